"""Sends queries to rollout workers and their answers on to scorers; lost work is sent again.

    queries -> chunk -> rollout worker --(answers, by Ray)--> every scorer's share -> groups

consumes: (key, row, text) of queries. produces: one scored `Group` per query, in the order sent.
blocked by: the chunk's rollout worker, which first does what it was asked before (weight loads too), then the scorers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from cluster.launch import LOST, ActorsLost, gather
from cluster.watch import Actors
from cluster.weights import WeightChannel
from r4t.config import Config
from r4t.scoring import join_scored, part_of
from r4t.types import Group, Sampled, ScoredBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One query to answer. `key` names its group and, with the call's seed, decides its sampling seed."""

    key: int
    row: int
    text: str


@dataclass(slots=True, kw_only=True, eq=False)
class Chunk:
    """Queries that one rollout worker answers in one call, and the pending calls."""

    draws: Sequence[Draw]
    samples: int
    seed: int
    worker: int
    answers: Any = None
    """Pending `Sampled`."""
    scores: list[Any] = field(default_factory=list)
    """Pending `Scored` of every scorer's share."""


@dataclass(slots=True, kw_only=True)
class Busy:
    """Seconds that actors of one kind worked, summed over the actors, since the last `take`."""

    rollout: float = 0.0
    load: float = 0.0
    score: float = 0.0

    def take(self) -> Busy:
        """The sums so far; starts again at zero."""
        taken = replace(self)
        self.rollout = self.load = self.score = 0.0
        return taken


class Dispatch:
    """Chunks on their way through `actors`. Strictly first in, first out on every worker."""

    def __init__(self, config: Config, actors: Actors, channel: WeightChannel) -> None:
        self.config, self.actors, self.channel = config, actors, channel
        self.busy = Busy()
        self._pending: list[Chunk] = []

    def send(self, draws: Sequence[Draw], *, samples: int, seed: int, chunk: int) -> list[Chunk]:
        """Sends the draws, at most `chunk` in a call, each call to the worker that has least to do."""
        sent = []
        for start in range(0, len(draws), chunk):
            load = [0] * len(self.actors.rollouts)
            for other in self._pending:
                load[other.worker] += len(other.draws) * other.samples
            part = Chunk(draws=draws[start : start + chunk], samples=samples, seed=seed, worker=load.index(min(load)))
            self._ask(part)
            self._pending.append(part)
            sent.append(part)
        return sent

    def collect(self, chunk: Chunk) -> list[Group]:
        """Waits for a chunk. A worker or scorer that is lost meanwhile is replaced and its work sent again."""
        while True:
            try:
                (sampled,) = gather([chunk.answers], self.config, f"rollout worker {chunk.worker}, call")
            except ActorsLost as lost:
                self._replace_rollout(chunk.worker, lost.why)
                continue
            try:
                parts = gather(chunk.scores, self.config, "scorers")
                break
            except ActorsLost as lost:
                if lost.argument:
                    self._ask(chunk)
                else:
                    self._replace_scorers(lost)
        self._pending.remove(chunk)
        self.busy.rollout += sampled.seconds
        self.busy.load += sampled.load_seconds
        self.busy.score += sum(part.seconds for part in parts)
        return _groups(chunk, sampled, join_scored([part.batch for part in parts]))

    def _ask(self, chunk: Chunk) -> None:
        chunk.answers = self.actors.rollouts[chunk.worker].sample.remote(
            [(draw.key, draw.text) for draw in chunk.draws],
            samples=chunk.samples,
            temperature=self.config.rl.temperature,
            seed=chunk.seed,
        )
        chunk.scores = [self._ask_scorer(chunk, share) for share in range(len(self.actors.scorers))]

    def _ask_scorer(self, chunk: Chunk, share: int) -> Any:
        rows, shares = [draw.row for draw in chunk.draws], len(self.actors.scorers)
        return self.actors.scorers[share].score_share.remote(chunk.answers, rows, share, shares)

    def _replace_rollout(self, index: int, why: str) -> None:
        self.actors.restart_rollout(index, self.channel, why)
        for chunk in self._pending:
            if chunk.worker == index and not _arrived(chunk.answers):
                self._ask(chunk)

    def _replace_scorers(self, lost: ActorsLost) -> None:
        for index in lost.missing:
            self.actors.restart_scorer(index, lost.why)
            for chunk in self._pending:
                if not _arrived(chunk.scores[index]):
                    chunk.scores[index] = self._ask_scorer(chunk, index)


def _groups(chunk: Chunk, sampled: Sampled, scored: ScoredBatch) -> list[Group]:
    size = chunk.samples
    parts = [slice(i * size, (i + 1) * size) for i in range(len(chunk.draws))]
    return [
        Group(
            key=draw.key,
            completions=tuple(replace(answer, query=draw.row) for answer in sampled.completions[part]),
            scored=part_of(scored, part),
        )
        for draw, part in zip(chunk.draws, parts, strict=True)
    ]


def _arrived(call: Any) -> bool:
    """Whether a call's result is here; a lost one is not. Raises what the actor itself raised."""
    ready, _ = ray.wait([call], timeout=0)
    if not ready:
        return False
    try:
        ray.get(call)
    except LOST:
        return False
    return True
