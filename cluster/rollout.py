"""The rollout engine: vLLM, sampling groups of answers under a known version of the policy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from vllm import LLM, CompletionOutput, SamplingParams, TokensPrompt
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.entrypoints import llm

from cluster.devices import weight_transport
from cluster.engine import PromptTokens, request_seed
from r4t.config import Config
from r4t.policy import load_tokenizer
from r4t.types import Completion

# vLLM imports its web servers to say at level INFO which arguments are not the defaults; nobody sees that level here.
llm.log_non_default_args = lambda args: None  # noqa: ARG005


class RolloutEngine:
    """One vLLM engine over a Hugging Face model directory."""

    def __init__(self, model_dir: Path, config: Config, version: int = 0) -> None:
        logging.getLogger("vllm").setLevel(logging.ERROR)
        self.config = config
        self.version = version
        self.tokenizer = load_tokenizer(model_dir)
        transport = weight_transport(config)
        self.llm = LLM(
            str(model_dir),
            dtype=config.rollout.dtype,
            tensor_parallel_size=config.rollout.tensor_parallel,
            distributed_executor_backend="mp"
            if config.rollout.tensor_parallel > 1
            else None,  # not Ray: one node, one seat
            max_model_len=config.policy.max_length,
            max_num_seqs=config.rollout.max_num_seqs,
            kv_cache_memory_bytes=int(config.rollout.kv_cache_gib * 2**30),
            enforce_eager=True,
            enable_prefix_caching=True,
            # vLLM 0.29 samples after a part of a prompt too and winds the request's generator back, which no generator
            # on CPU can. Prompts are short, so whole ones cost nothing.
            enable_chunked_prefill=False,
            logprobs_mode="processed_logprobs",  # of the sampling law, temperature included
            skip_tokenizer_init=True,
            generation_config="vllm",
            worker_extension_cls="cluster.engine_extension.EngineExtension",
            weight_transfer_config=None if transport == "file" else WeightTransferConfig(backend=transport),
            seed=config.seed,
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
        self.llm.collective_rpc("use_seeded_sampling")
        self._prompts = PromptTokens(self.tokenizer, config)
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the parameters that arrived last

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
        """`samples` answers to each (row, text), query-major. The same seed, row and sample give the same answer.

        Samples are numbered from `first_sample` on.

        `temperature` 0 is greedy. top_p stays 1 so that the log-probabilities are those of the sampling law;
        without `logprobs`, which only training needs, answers come sooner.
        """
        prompts = [self._prompts(text) for _, text in queries]
        params = [
            SamplingParams(
                n=samples,
                temperature=temperature,
                max_tokens=self._prompts.room(prompt),
                seed=request_seed(seed, row) + first_sample,
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
                sample=first_sample + out.index,
                prompt_ids=prompts[i],
                token_ids=tuple(out.token_ids),
                logprobs=_sampled(out),
                text=text,
                policy_version=self.version,
                finished=out.finish_reason == "stop",
            )
            for (i, out), text in zip(answers, texts, strict=True)
        ]

    def forget_prompts(self) -> None:
        """Empties the cache of prompts' beginnings: what is sampled next does not depend on what was before."""
        self.llm.reset_prefix_cache()

    def load_weights(self, path: Path, version: int) -> None:
        """Replaces the weights by those of a safetensors file in Hugging Face naming; answers then carry `version`."""
        self.llm.collective_rpc("receive_weights", args=(str(path),))
        with safe_open(path, framework="pt") as file:
            self._shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        self.llm.reset_prefix_cache()
        self.version = version

    def transfer_weights(self, step: str, payload: dict[str, Any]) -> None:
        """One step of a GPU weight transfer: `init`, then `start`, `update` and `finish` of every version."""
        if step == "init":
            self.llm.init_weight_transfer_engine({"init_info": payload})
        elif step == "start":
            self.llm.start_weight_update()
        elif step == "update":
            self._shapes |= {
                name: tuple(shape) for name, shape in zip(payload["names"], payload["shapes"], strict=True)
            }
            self.llm.update_weights({"update_info": payload})
        else:
            self.llm.finish_weight_update(str(payload["version"]))
            self.llm.collective_rpc("retie")
            self.llm.reset_prefix_cache()
            self.version = payload["version"]

    def weight_digest(self) -> dict[str, str]:
        """Hash of every parameter the engine computes with, in Hugging Face naming. Needs weights to have arrived."""
        if not self._shapes:
            raise RuntimeError("no weights have arrived yet: publish a version before asking for its digest")
        digests: list[dict[str, str]] = self.llm.collective_rpc("digest_weights", args=(self._shapes,))
        return digests[0]  # all that split the policy have the same ones


def _sampled(output: CompletionOutput) -> tuple[float, ...]:
    """Log-probability of each sampled token; empty when none were asked for."""
    if output.logprobs is None:
        return ()
    entries = list(output.logprobs)
    return tuple(entry[token].logprob for entry, token in zip(entries, output.token_ids, strict=True) if entry)
