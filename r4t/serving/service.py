"""Requests in, answers out: the version in use, batches, and the bound on what may wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from r4t.config import Serve
from r4t.interop.batching import Batcher, Load
from r4t.serving.refused import RefusedError
from r4t.serving.version import Answered, Asked, Version

log = logging.getLogger("r4t.serve")


class Service:
    """Answers with one version at a time, which `swap` replaces: what is admitted before is answered by the old one.

    Batches form by themselves: what arrives while one is worked on is the next. Queries that a language model writes
    for have batches of their own, for which the others do not wait.
    """

    def __init__(self, version: Version, settings: Serve) -> None:
        self.version, self.settings = version, settings
        self.waiting = 0
        """Queries without an answer yet."""
        self.draining = False
        """Whether new queries are turned away, since the server is about to stop."""
        self._quick, self._written = (
            Batcher[tuple[Version, Asked], Answered](_work, wait=0.0, most=settings.batch) for _ in range(2)
        )

    @property
    def load(self) -> Load:
        """What was worked on so far."""
        return self._quick.load + self._written.load

    def swap(self, version: Version) -> None:
        """From now on requests are answered by `version`."""
        self.version = version

    async def answer(self, version: Version, asked: Sequence[Asked]) -> list[Answered]:
        """Answers to queries of one method.

        Raises RefusedError where too much waits already, when the time is up, and once nothing is admitted any more.
        """
        if self.draining:
            raise RefusedError(503, "stopping", "the server is about to stop: ask another one")
        if self.waiting and self.waiting + len(asked) > self.settings.max_waiting:
            raise RefusedError(429, "overloaded", f"{self.waiting} queries wait already: ask again in a second")
        self.waiting += len(asked)
        try:
            batcher = self._written if version.methods[asked[0].method].writes else self._quick
            pending = batcher.submit([(version, one) for one in asked])
            async with asyncio.timeout(self.settings.timeout):
                return await asyncio.wrap_future(pending)
        except TimeoutError:
            raise RefusedError(
                503, "timeout", f"no answer within {self.settings.timeout:g} s: ask again, with fewer queries"
            ) from None
        finally:
            self.waiting -= len(asked)

    def stop_admitting(self) -> None:
        """From now on new queries are turned away; those that were admitted get their answers."""
        self.draining = True

    def close(self) -> None:
        """Finishes what was admitted. `stop_admitting` comes before, in the thread that asks for answers."""
        self._quick.close()
        self._written.close()


def _work(entries: list[tuple[Version, Asked]]) -> list[Answered]:
    """Each version's part of a batch."""
    versions = {id(version): version for version, _ in entries}
    answers: dict[int, Answered] = {}
    for version in versions.values():
        places = [place for place, (its, _) in enumerate(entries) if its is version]
        answers |= zip(places, version.answer([entries[place][1] for place in places]), strict=True)
    return [answers[place] for place in range(len(entries))]
