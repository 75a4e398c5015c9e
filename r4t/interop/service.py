"""A reward that many callers ask at once: their answers are scored together, their mistakes counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from r4t.errors import UserError
from r4t.interop.batching import MOST, WAIT, Batcher
from r4t.interop.reward import Asked, Judged, SetReward

TIMEOUT = 600.0  # seconds that any answer may wait for its score

log = logging.getLogger("r4t.reward")


class RewardService:
    """`judge` from threads, `judge_async` from an event loop. Every failure is raised at its own caller and counted."""

    def __init__(self, reward: SetReward, wait: float = WAIT, most: int = MOST) -> None:
        self.reward = reward
        self.errors: Counter[str] = Counter()
        self._batcher: Batcher[Asked, Judged] = Batcher(reward.score, wait, most)
        self._lock = threading.Lock()

    def judge(self, wholes: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> list[Judged]:
        """Scores of decoded texts, prompt and answer together. Blocks until they are there.

        Raises UserError for bad input, RuntimeError when scoring fails, TimeoutError when it takes too long.
        """
        try:
            return self._submit(wholes, prompts, labels).result(TIMEOUT)
        except Exception as error:
            self._count(error)
            raise

    async def judge_async(self, wholes: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> list[Judged]:
        """As `judge`, without blocking the event loop."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._submit(wholes, prompts, labels)), TIMEOUT)
        except Exception as error:
            self._count(error)
            raise

    def begin(self, wholes: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> Future[list[Judged]]:
        """As `judge`, pending."""
        try:
            pending = self._submit(wholes, prompts, labels)
        except Exception as error:
            self._count(error)
            raise
        pending.add_done_callback(self._count_failure)
        return pending

    def stats(self) -> dict[str, Any]:
        """Calls, answers and batches so far, and errors by kind."""
        return asdict(self._batcher.load) | {"errors": dict(self.errors)}

    def close(self) -> None:
        """Finishes what was asked, then refuses more."""
        self._batcher.close()

    def _submit(self, wholes: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> Future[list[Judged]]:
        if not len(wholes) == len(prompts) == len(labels):
            raise UserError(
                f"{len(wholes)} answers came with {len(prompts)} prompts and {len(labels)} labels: send one of each"
            )
        asked = [self.reward.ask(*one) for one in zip(wholes, prompts, labels, strict=True)]
        return self._batcher.submit(asked)

    def _count_failure(self, done: Future[list[Judged]]) -> None:
        if not done.cancelled() and isinstance(error := done.exception(), Exception):
            self._count(error)

    def _count(self, error: Exception) -> None:
        with self._lock:
            self.errors[type(error).__name__] += 1
            count = self.errors.total()
        if count == 10 ** (len(str(count)) - 1):  # the 1st, 10th, 100th, ...: a bad run would fill the log
            log.error("reward error number %d: %s", count, error)
