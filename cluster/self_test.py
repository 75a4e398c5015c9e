"""The start-up self-test: what the rollout engines hold and compute is what the learners hold and compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.launch import gather
from r4t.batch import token_batch
from r4t.config import Config
from r4t.types import Completion

ENGINES = "rollout workers"
# Mean nats per token by which two correct kernels differ in rounding. The mean, because in bfloat16 a single unlikely
# token may be a third of a nat off (measured: 30 layers, SmolLM2-135M), while a wrong context moves every token.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}


def self_test(
    config: Config, learners: Sequence[Any], rollouts: Sequence[Any], query: tuple[int, str], pad_id: int
) -> float:
    """Compares every rollout worker with the learners, after a publish. Returns the largest mean log-probability
    gap of an answer, in nats per token.

    First all parameters, bit by bit, then the log-probabilities of one answer to `query` (row, text). Raises
    RuntimeError that names the worker and the first parameter that differs.
    """
    expected = gather([learner.weight_digest.remote() for learner in learners], config, "learner ranks")[0]
    held = gather([worker.weight_digest.remote() for worker in rollouts], config, ENGINES)
    for i, digests in enumerate(held):
        compare_digests(expected, digests, f"rollout worker {i}")
    sampling = {"samples": 1, "temperature": config.rl.temperature, "seed": config.seed}
    answers = gather([worker.generate.remote([query], **sampling) for worker in rollouts], config, ENGINES)
    completions: list[Completion] = [completion for part in answers for completion in part]
    batch = token_batch(
        completions,
        [np.zeros(len(c.token_ids), dtype=np.float32) for c in completions],
        np.ones(len(completions), dtype=bool),
        pad_id,
    )
    own = gather([learner.logprobs.remote(batch) for learner in learners], config, "learner ranks")[0]
    gap = np.where(batch.mask, np.abs(own - batch.engine_logprobs), 0.0).sum(axis=1) / batch.mask.sum(axis=1)
    limit = max(TOLERANCE[config.rollout.dtype], TOLERANCE[config.learner.dtype])
    if gap.max() > limit:
        raise RuntimeError(
            f"rollout worker {int(gap.argmax())} holds the learner's weights but computes other log-probabilities: they"
            f" differ by {gap.max():.2g} nats per token (limit {limit:g}). Its kernels or its context of the prompt are"
            " at fault: compare rollout.dtype with learner.dtype, and what `r4t doctor` prints with the lock"
        )
    return float(gap.max())


def compare_digests(expected: dict[str, str], held: dict[str, str], who: str) -> None:
    """Raises RuntimeError naming the first parameter, in the model's order, that `who` lacks or holds otherwise."""
    wrong = [name for name, digest in expected.items() if held.get(name) != digest]
    if wrong:
        what = "differs from the learner's" if wrong[0] in held else "never arrived"
        raise RuntimeError(
            f"{who} does not hold the published weights: {wrong[0]} {what} ({len(wrong)} of {len(expected)} parameters"
            " do). The weight transfer or the engine's loader is at fault; training on its answers would be noise"
        )
