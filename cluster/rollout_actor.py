"""Starts rollout workers as Ray actors; the engine itself is imported in those processes alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.devices import role_environment
from cluster.engine import open_engine
from cluster.roles import Placement
from r4t.config import Config
from r4t.seats import gpus
from r4t.types import Completion, Sampled


class RolloutWorker:
    """Holds one engine; see `cluster.engine`. Its calls run one by one, in the order they were made."""

    def __init__(self, model_dir: Path, config: Config) -> None:
        self.engine = open_engine(model_dir, config)
        self._load_seconds = 0.0

    def generate(self, queries: Sequence[tuple[int, str]], **sampling: Any) -> list[Completion]:
        return self.engine.generate(queries, **sampling)

    def sample(self, queries: Sequence[tuple[int, str]], **sampling: Any) -> Sampled:
        """`generate`, with the time that it and the weight loads before it took."""
        started = time.perf_counter()
        completions = tuple(self.engine.generate(queries, **sampling))
        loading, self._load_seconds = self._load_seconds, 0.0
        return Sampled(completions=completions, seconds=time.perf_counter() - started, load_seconds=loading)

    def load_weights(self, path: Path, version: int) -> None:
        started = time.perf_counter()
        self.engine.load_weights(path, version)
        self._load_seconds += time.perf_counter() - started

    def transfer_weights(self, step: str, payload: dict[str, Any]) -> None:
        self.engine.transfer_weights(step, payload)

    def weight_digest(self) -> dict[str, str]:
        return self.engine.weight_digest()


def seat_rollout(config: Config, model_dir: Path, placement: Placement, index: int) -> Any:
    """The worker on one of the placement's rollout seats."""
    seat, env = placement.of("rollout")[index], role_environment("rollout", config)
    return ray.remote(RolloutWorker).options(**placement.options(seat, env)).remote(model_dir, config)


def start_rollout(config: Config, model_dir: Path) -> Any:
    """A single worker outside any placement group, for synthesis and evaluation."""
    return (
        ray.remote(RolloutWorker)
        .options(
            num_cpus=config.rollout.cpus,
            num_gpus=gpus("rollout", config),
            runtime_env={"env_vars": role_environment("rollout", config)},
        )
        .remote(model_dir, config)
    )
