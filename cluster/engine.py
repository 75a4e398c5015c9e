"""Which engine writes the answers: vLLM, or transformers where vLLM cannot run. What both share."""

from __future__ import annotations

import importlib.util
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from r4t.config import Config
from r4t.errors import UserError
from r4t.fanout import build_prompt
from r4t.lean_imports import lean_imports
from r4t.policy import encode_prompt
from r4t.processor import CPU_INFO, instruction_sets
from r4t.types import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KNOWN = 65_536  # prompts kept as tokens: more than a run has queries, and a bound where strangers write them
FALLBACK = "vLLM cannot run here ({}): transformers samples instead (rollout.engine: hf), slower and of the same law"


class Engine(Protocol):
    """Samples groups of answers under a known version of the policy."""

    version: int

    def generate(
        self,
        queries: Sequence[tuple[int, str]],
        *,
        samples: int,
        temperature: float,
        seed: int,
        logprobs: bool = True,
        first_sample: int = 0,
    ) -> list[Completion]: ...

    def forget_prompts(self) -> None: ...

    def load_weights(self, path: Path, version: int) -> None: ...

    def transfer_weights(self, step: str, payload: dict[str, Any]) -> None: ...

    def weight_digest(self) -> dict[str, str]: ...


def open_engine(model_dir: Path, config: Config, version: int = 0) -> Engine:
    """The engine that `rollout.engine` asks for. vLLM takes over the process that imports it.

    Raises UserError where vLLM is asked for and cannot run.
    """
    if chosen_engine(config) == "vllm":
        try:
            with lean_imports():
                from cluster.rollout import RolloutEngine
        except ImportError as error:
            if config.rollout.engine == "vllm" or config.cluster.device != "cpu":
                raise _refusal(f"it does not import ({error})") from error
            logging.getLogger(__name__).warning("%s", FALLBACK.format(f"it does not import: {error}"))
        else:
            return RolloutEngine(model_dir, config, version)
    with lean_imports():
        from cluster.rollout_hf import TransformersEngine

    return TransformersEngine(model_dir, config, version)


def chosen_engine(config: Config) -> str:
    """`vllm` or `hf`: what `rollout.engine` says, `auto` being vLLM wherever nothing visible speaks against it."""
    if config.rollout.engine == "hf":
        return "hf"
    problem = vllm_problem(config.cluster.device)
    if problem and (config.rollout.engine == "vllm" or config.cluster.device != "cpu"):
        raise _refusal(problem)
    return "hf" if problem else "vllm"


def vllm_problem(device: str, cpu_info: Path = CPU_INFO) -> str:
    """Why vLLM cannot run here, as far as is seen without importing it; empty where nothing speaks against it."""
    try:
        installed = importlib.util.find_spec("vllm") is not None
    except ImportError:
        installed = False
    if not installed:
        return "it is not installed"
    if device == "cpu" and platform.machine() == "x86_64" and "avx2" not in instruction_sets(cpu_info):
        return "its CPU build needs a processor with AVX2"
    return ""


def fallback_notice(config: Config) -> str:
    """What to tell who runs `config` where `auto` does without vLLM; empty elsewhere."""
    fell_back = config.rollout.engine == "auto" and chosen_engine(config) == "hf"
    return FALLBACK.format(vllm_problem(config.cluster.device)) if fell_back else ""


def request_seed(seed: int, row: int) -> int:
    """Seed of one query's request; the sample's index is added to it."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0]) >> 2


class PromptTokens:
    """Token ids of the prompts that queries make, kept for the next time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: Config) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._known: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> tuple[int, ...]:
        """Raises UserError for a query that leaves no room for an answer."""
        if text not in self._known:
            fanout = self.config.fanout
            prompt = build_prompt(text, style=fanout.prompt, task=self.config.task, domain=fanout.domain, k=fanout.k)
            ids = tuple(encode_prompt(self.tokenizer, prompt))
            room = self.config.policy.max_length - len(ids)
            if room < 8:
                raise UserError(
                    f"the prompt of {text[:60]!r} takes {len(ids)} tokens and leaves {room} of policy.max_length for"
                    " the answer: raise policy.max_length or shorten the query"
                )
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[text] = ids
        return self._known[text]

    def room(self, prompt: Sequence[int]) -> int:
        """Tokens that an answer to `prompt` may have."""
        return min(self.config.rl.max_tokens, self.config.policy.max_length - len(prompt))


def _refusal(problem: str) -> UserError:
    return UserError(
        f"vLLM cannot run here: {problem}. Install it (pip install 'r4t[cpu]' or 'r4t[gpu]'), or set"
        " cluster.device=cpu and rollout.engine=hf, which samples with transformers: slower, the same law"
    )
