"""The rollout worker: a vLLM engine that samples groups of answers under a known version of the policy."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from vllm import LLM, CompletionOutput, SamplingParams, TokensPrompt

from r4t.config import Config
from r4t.errors import UserError
from r4t.fanout import build_prompt
from r4t.policy import encode_prompt, load_tokenizer
from r4t.types import Completion


class WeightReceiver:
    """Mixed into vLLM's own worker: replaces the weights through vLLM's reload path (a bare load breaks on CPU)."""

    def receive_weights(self, path: str) -> int:
        tensors = load_file(path)

        def named() -> Iterator[tuple[str, torch.Tensor]]:
            yield from tensors.items()

        self.model_runner.reload_weights(weights_iterator=named())  # type: ignore[attr-defined]
        self._retie()
        return len(tensors)

    def _retie(self) -> None:
        """A tied output head keeps a packed copy of the old embeddings through a reload: tie and pack it again."""
        runner = self.model_runner  # type: ignore[attr-defined]
        model = runner.get_model()
        head = getattr(model, "lm_head", None)
        if head is not None and runner.model_config.hf_config.tie_word_embeddings:
            head.tie_weights(model.model.embed_tokens)
            head.quant_method.process_weights_after_loading(head)


class RolloutEngine:
    """One vLLM engine over a Hugging Face model directory."""

    def __init__(self, model_dir: Path, config: Config, version: int = 0) -> None:
        logging.getLogger("vllm").setLevel(logging.ERROR)
        self.config = config
        self.version = version
        self.tokenizer = load_tokenizer(model_dir)
        self.llm = LLM(
            str(model_dir),
            dtype=config.rollout.dtype,
            max_model_len=config.policy.max_length,
            max_num_seqs=config.rollout.max_num_seqs,
            kv_cache_memory_bytes=int(config.rollout.kv_cache_gib * 2**30),
            enforce_eager=True,
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",  # of the sampling law, temperature included
            skip_tokenizer_init=True,
            generation_config="vllm",
            worker_extension_cls="cluster.rollout.WeightReceiver",
            seed=config.seed,
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
        self._prompts: dict[str, tuple[int, ...]] = {}

    def generate(
        self,
        queries: Sequence[tuple[int, str]],
        *,
        samples: int,
        temperature: float,
        seed: int,
        logprobs: bool = True,
    ) -> list[Completion]:
        """`samples` answers to each (row, text), query-major. The same seed, row and sample give the same answer.

        `temperature` 0 is greedy. top_p stays 1 so that the log-probabilities are those of the sampling law;
        without `logprobs`, which only training needs, answers come sooner.
        """
        rl = self.config.rl
        prompts = [self._prompt(text) for _, text in queries]
        params = [
            SamplingParams(
                n=samples,
                temperature=temperature,
                max_tokens=min(rl.max_tokens, self.config.policy.max_length - len(prompt)),
                seed=request_seed(seed, row),
                logprobs=0 if logprobs else None,
                stop_token_ids=[self.tokenizer.eos_token_id],
                detokenize=False,
            )
            for prompt, (row, _) in zip(prompts, queries, strict=True)
        ]
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        outputs = self.llm.generate(requests, params, use_tqdm=False)
        answers = [(i, out) for i, output in enumerate(outputs) for out in output.outputs]
        texts = self.tokenizer.batch_decode([list(out.token_ids) for _, out in answers], skip_special_tokens=True)
        return [
            Completion(
                query=queries[i][0],
                sample=out.index,
                prompt_ids=prompts[i],
                token_ids=tuple(out.token_ids),
                logprobs=_sampled(out),
                text=text,
                policy_version=self.version,
                finished=out.finish_reason == "stop",
            )
            for (i, out), text in zip(answers, texts, strict=True)
        ]

    def load_weights(self, path: Path, version: int) -> None:
        """Replaces the weights by those of a safetensors file in Hugging Face naming; answers then carry `version`."""
        self.llm.collective_rpc("receive_weights", args=(str(path),))
        self.llm.reset_prefix_cache()
        self.version = version

    def _prompt(self, text: str) -> tuple[int, ...]:
        if text not in self._prompts:
            fanout = self.config.fanout
            prompt = build_prompt(text, style=fanout.prompt, task=self.config.task, domain=fanout.domain, k=fanout.k)
            ids = tuple(encode_prompt(self.tokenizer, prompt))
            room = self.config.policy.max_length - len(ids)
            if room < 8:
                raise UserError(
                    f"the prompt of {text[:60]!r} takes {len(ids)} tokens and leaves {room} of policy.max_length for"
                    " the answer: raise policy.max_length or shorten the query"
                )
            self._prompts[text] = ids
        return self._prompts[text]


def request_seed(seed: int, row: int) -> int:
    """Seed of one query's request; vLLM adds the sample's index to it."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0]) >> 2


def _sampled(output: CompletionOutput) -> tuple[float, ...]:
    """Log-probability of each sampled token; empty when none were asked for."""
    if output.logprobs is None:
        return ()
    entries = list(output.logprobs)
    return tuple(entry[token].logprob for entry, token in zip(entries, output.token_ids, strict=True) if entry)
