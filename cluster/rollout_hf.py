"""The rollout engine for machines without vLLM: transformers on the CPU. Slow, and of the same law.

A sequence draws its tokens from a generator of its own by the rule of `cluster.seeded_sampling`, so that both engines
give the same answers to the same seeds, up to the rounding of their kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cluster.devices import torch_dtype
from cluster.engine import PromptTokens, request_seed
from cluster.seeded_sampling import sample_by_inversion
from r4t.config import Config
from r4t.digest import tensor_digest
from r4t.policy import load_tokenizer
from r4t.types import Completion


@dataclass(slots=True, kw_only=True)
class _Sequence:
    """One answer while it is written."""

    query: int
    sample: int
    prompt: tuple[int, ...]
    room: int
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def done(self) -> bool:
        return self.ended or len(self.tokens) >= self.room


class TransformersEngine:
    """Answers as `cluster.rollout.RolloutEngine` does, over a Hugging Face model directory."""

    def __init__(self, model_dir: Path, config: Config, version: int = 0) -> None:
        self.config = config
        self.version = version
        self.tokenizer = load_tokenizer(model_dir)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=torch_dtype(config.rollout.dtype), local_files_only=True, trust_remote_code=False
        ).eval()
        self._prompts = PromptTokens(self.tokenizer, config)
        self._arrived = False

    def generate(
        self,
        queries: Sequence[tuple[int, str]],
        *,
        samples: int,
        temperature: float,
        seed: int,
        logprobs: bool = True,
        first_sample: int = 0,
    ) -> list[Completion]:
        """As `RolloutEngine.generate`."""
        sequences = [
            self._begin(row, text, first_sample + sample, seed) for row, text in queries for sample in range(samples)
        ]
        size = self.config.rollout.max_num_seqs
        for start in range(0, len(sequences), size):
            self._write(sequences[start : start + size], temperature)
        texts = self.tokenizer.batch_decode([one.tokens for one in sequences], skip_special_tokens=True)
        return [
            Completion(
                query=one.query,
                sample=one.sample,
                prompt_ids=one.prompt,
                token_ids=tuple(one.tokens),
                logprobs=tuple(one.logprobs) if logprobs else (),
                text=text,
                policy_version=self.version,
                finished=one.ended,
            )
            for one, text in zip(sequences, texts, strict=True)
        ]

    def forget_prompts(self) -> None:
        """Nothing is kept between calls."""

    def load_weights(self, path: Path, version: int) -> None:
        """Replaces the weights by those of a safetensors file in Hugging Face naming; answers then carry `version`."""
        tensors = load_file(path)
        missing, unknown = self.model.load_state_dict(tensors, strict=False)
        tied = set(self.model.all_tied_weights_keys)
        if unknown or set(missing) - tied:
            raise RuntimeError(f"{path} holds other weights than the model: {(unknown or sorted(missing))[0]}")
        self.model.tie_weights()
        self._arrived = True
        self.version = version

    def transfer_weights(self, step: str, payload: dict[str, Any]) -> None:  # noqa: ARG002
        """Weights come as files here: this engine runs on the CPU alone."""
        raise RuntimeError(f"rollout.engine hf takes weights as files, not by GPU transfer ({step})")

    def weight_digest(self) -> dict[str, str]:
        """As `RolloutEngine.weight_digest`."""
        if not self._arrived:
            raise RuntimeError("no weights have arrived yet: publish a version before asking for its digest")
        return {name: tensor_digest(weight) for name, weight in self.model.named_parameters(remove_duplicate=False)}

    def _begin(self, row: int, text: str, sample: int, seed: int) -> _Sequence:
        prompt = self._prompts(text)
        generator = torch.Generator().manual_seed(request_seed(seed, row) + sample)
        return _Sequence(query=row, sample=sample, prompt=prompt, room=self._prompts.room(prompt), generator=generator)

    @torch.inference_mode()
    def _write(self, sequences: list[_Sequence], temperature: float) -> None:
        """Writes the answers of one batch, token by token."""
        for logits in self._steps(sequences):
            scaled = logits.float() / (temperature or 1.0)
            if temperature:
                chosen = sample_by_inversion(scaled, {i: one.generator for i, one in enumerate(sequences)})
            else:
                chosen = scaled.argmax(dim=-1)
            sampled = scaled.log_softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1)
            for one, token, logprob in zip(sequences, chosen.tolist(), sampled.tolist(), strict=True):
                if not one.done:
                    one.tokens.append(token)
                    one.logprobs.append(logprob)
                    one.ended = token == self.tokenizer.eos_token_id

    def _steps(self, sequences: list[_Sequence]) -> Iterator[torch.Tensor]:
        """[S, V] logits of every sequence's next token, until all are done. Prompts are padded on the left."""
        width = max(len(one.prompt) for one in sequences)
        ids = torch.full((len(sequences), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, one in enumerate(sequences):
            ids[i, width - len(one.prompt) :] = torch.tensor(one.prompt)
            mask[i, width - len(one.prompt) :] = 1
        cache = None
        while True:
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = self.model(
                input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            cache = out.past_key_values
            yield out.logits[:, -1]
            if all(one.done for one in sequences):
                return
            ids = torch.tensor([[one.tokens[-1]] for one in sequences])
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
