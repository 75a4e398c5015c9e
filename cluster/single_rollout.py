"""One rollout worker for a stage that asks and does not train: lost, it is replaced and asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.launch import ActorsLost, gather
from cluster.rollout_actor import start_rollout
from r4t.config import Config
from r4t.types import Completion

WHO = "rollout worker"


class SingleRollout:
    """A replaced worker answers as the lost one would have: seeds decide, not when it is asked.

    say: where losses are reported. `waited`: seconds that whoever asked first waited for the worker to start.
    """

    waited = 0.0

    def __init__(self, config: Config, model_dir: Path, say: Callable[[str], None]) -> None:
        self._config, self._model_dir, self._say = config, model_dir, say
        self._worker = start_rollout(config, model_dir)
        self._loaded: tuple[Path, int] | None = None
        self._restarts = 0
        self._ready = False

    def generate(
        self, queries: Sequence[tuple[int, str]], samples: int, temperature: float, seed: int
    ) -> list[Completion]:
        """Completions, query-major. Raises RuntimeError once `cluster.max_restarts` workers have been lost."""

        def ask() -> Any:
            return self._worker.generate.remote(
                queries, samples=samples, temperature=temperature, seed=seed, logprobs=False
            )

        found: list[Completion] = self._until_answered(ask)
        return found

    def load_weights(self, path: Path, version: int) -> None:
        """Has the worker, and any that replaces it, answer as the policy in a safetensors file."""
        self._loaded = (path, version)
        self._until_answered(lambda: self._worker.load_weights.remote(path, version))

    def _until_answered(self, ask: Callable[[], Any]) -> Any:
        start = time.monotonic()
        while True:
            try:
                if not self._ready:  # starting has a time limit of its own
                    gather([self._worker.__ray_ready__.remote()], self._config, WHO)
                    self._ready, self.waited = True, self.waited or time.monotonic() - start
                return gather([ask()], self._config, WHO)[0]
            except ActorsLost as lost:
                self._replace(lost)

    def _replace(self, lost: ActorsLost) -> None:
        limit = self._config.cluster.max_restarts
        if self._restarts >= limit:
            raise RuntimeError(f"{lost}, after {limit} restarts (cluster.max_restarts)") from lost
        self._restarts += 1
        self._say(f"{lost}: restart {self._restarts} of at most {limit}")
        ray.kill(self._worker)  # it may be stuck, not dead
        self._worker, self._ready = start_rollout(self._config, self._model_dir), False
        if self._loaded is not None:
            self._worker.load_weights.remote(*self._loaded)  # before anything it is asked from now on
