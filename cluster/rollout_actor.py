"""Starts rollout workers as Ray actors; vLLM itself is imported in those processes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.devices import gpus, role_environment
from cluster.roles import Placement
from r4t.config import Config
from r4t.types import Completion


class RolloutWorker:
    """Holds one engine; see `cluster.rollout.RolloutEngine`."""

    def __init__(self, model_dir: Path, config: Config) -> None:
        from cluster.rollout import RolloutEngine

        self.engine = RolloutEngine(model_dir, config)

    def generate(self, queries: Sequence[tuple[int, str]], **sampling: Any) -> list[Completion]:
        return self.engine.generate(queries, **sampling)

    def load_weights(self, path: Path, version: int) -> None:
        self.engine.load_weights(path, version)

    def transfer_weights(self, step: str, payload: dict[str, Any]) -> None:
        self.engine.transfer_weights(step, payload)

    def weight_digest(self) -> dict[str, str]:
        return self.engine.weight_digest()


def start_rollouts(config: Config, model_dir: Path, placement: Placement) -> list[Any]:
    """One actor per rollout seat."""
    env = role_environment("rollout", config)
    return [
        ray.remote(RolloutWorker).options(**placement.options(seat, env)).remote(model_dir, config)
        for seat in placement.of("rollout")
    ]


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
