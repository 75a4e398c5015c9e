"""A small policy, a token batch and learner groups for the tests of the reinforcement-learning engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors.torch import load_file

from cluster.checkpoint import Piece, SavedState
from cluster.launch import gather, launch_group
from cluster.learner import Phase, PolicyLearner
from r4t.batch import TokenBatch, token_batch
from r4t.config import Config, parse_config
from r4t.policy import create_policy, train_tokenizer
from r4t.types import Completion

PHASE = Phase(lr=1e-3, betas=(0.9, 0.95), grad_clip=1e9)


def configuration(
    updates: int = 2, rollout: dict[str, Any] | None = None, policy: dict[str, Any] | None = None, **learner: Any
) -> Config:
    shape = {"vocab_size": 400, "hidden": 64, "layers": 2, "heads": 2, "max_length": 64}
    return parse_config(
        {
            "policy": {**shape, **(policy or {})},
            "rl": {"queries_per_step": 2, "group_size": 4, "updates_per_batch": updates, "max_tokens": 24, "clip": 0.2},
            "rollout": {"kv_cache_gib": 0.1, "max_num_seqs": 16, "threads": 1, "cpus": 0.5, **(rollout or {})},
            "learner": {"threads": 1, "cpus": 0.2, **learner},
            "scorer": {"threads": 1},
        }
    )


def make_policy(folder: Path) -> Path:
    tokenizer = train_tokenizer(["beef stew", "apple pie", "green salad"] * 4, 400)
    create_policy(folder, tokenizer, configuration().policy, seed=0)
    return folder


def batch(sequences: int = 10) -> TokenBatch:
    """An odd number of sequences per update, so that two ranks never get as many."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(sequences):
        answer = tuple(rng.integers(3, 300, int(rng.integers(3, 20))).tolist())
        made.append(
            Completion(
                query=0, sample=0, prompt_ids=tuple(rng.integers(3, 300, 4).tolist()), token_ids=answer,
                logprobs=(-5.8,) * len(answer), text="", policy_version=0, finished=True,
            )
        )  # fmt: skip
    advantages = [np.full(len(c.token_ids), a, "f4") for c, a in zip(made, rng.normal(size=sequences), strict=True)]
    return token_batch(made, advantages, np.ones(sequences, dtype=bool), pad_id=0)


def model_logprobs(model: torch.nn.Module, sequences: TokenBatch) -> torch.Tensor:
    """[S, T-1] log-probability of each next token by plain transformers."""
    tokens = torch.from_numpy(sequences.tokens)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=torch.from_numpy(sequences.attention).long()).logits
    return logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)


class Group:
    """Learner ranks that are called together."""

    phase = PHASE

    def __init__(self, config: Config) -> None:
        self.config = config
        self.learners = launch_group(PolicyLearner, config, ranks=config.learner.ranks, cpus=0.2)

    def __call__(self, method: str, *args: object) -> list[Any]:
        return gather([getattr(learner, method).remote(*args) for learner in self.learners], self.config, "ranks")

    def weights(self, path: Path, *args: object) -> dict[str, torch.Tensor]:
        self("export", path, *args)
        return load_file(path)

    def state(self, folder: Path, slot: str = "master") -> dict[str, torch.Tensor]:
        """Whole tensors of one slot of a checkpoint, put together from every rank's pieces."""
        folder.mkdir(parents=True, exist_ok=True)
        self("save", folder)
        return saved_state(folder, slot)


def saved_state(folder: Path, slot: str) -> dict[str, torch.Tensor]:
    saved = SavedState(folder)
    nothing = torch.empty(0)
    return {
        name: saved.read(Piece(name=name, start=0, size=saved.size(name), held=nothing, offset=0), slot)
        for name in saved.slots
    }


@contextmanager
def group(config: Config, model_dir: Path) -> Iterator[Group]:
    """A learner group that has begun, and ends with the block."""
    ranks = Group(config)
    try:
        ranks("begin", model_dir, PHASE)
        yield ranks
    finally:
        for learner in ranks.learners:
            ray.kill(learner)
