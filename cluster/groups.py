"""Batches of informative groups for the learner: the slot buffer kept full, the oldest groups judged first."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from cluster.dispatch import Chunk, Dispatch, Draw
from r4t.catalog.dataset import Dataset
from r4t.config import Config
from r4t.grpo import informative_groups
from r4t.objective.training import training_rewards
from r4t.slots import SlotBuffer
from r4t.stream import QueryStream
from r4t.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step consumed: draws `first ... stop - 1` of the query stream."""

    kept: tuple[Group, ...]
    dropped: tuple[Group, ...]
    first: int
    stop: int

    def padded(self, size: int) -> list[Group]:
        """`size` groups: the kept ones, and filtered ones (which carry no loss) where too few were informative."""
        return [*self.kept, *self.dropped[: size - len(self.kept)]]


class GroupSource:
    """consumes: the query stream from draw `consumed` on. produces: `Batch`es in the stream's order.
    blocked by: the answers to the oldest draw; and, to submit, a free slot, which `published` makes.
    """

    def __init__(self, config: Config, dataset: Dataset, dispatch: Dispatch, *, step: int, consumed: int) -> None:
        rl = config.rl
        self.config, self.dataset, self.dispatch = config, dataset, dispatch
        self.stream = QueryStream(dataset.split("train"), config.seed)
        self.slots = SlotBuffer(rl.queries_per_step, rl.staleness, rl.max_refill)
        self.consumed = self.submitted = consumed
        self._steps_left = rl.steps - step
        self._chunks: deque[Chunk] = deque()
        self._arrived: deque[Group] = deque()
        self._judged: list[tuple[Group, bool]] = []

    @property
    def in_flight(self) -> list[str]:
        """Query ids of draws that are submitted and not in any batch yet."""
        return [self.query_id(position) for position in range(self.consumed, self.submitted)]

    def query_id(self, position: int) -> str:
        return self.dataset.queries[self.stream.row(position)].query_id

    def fill(self) -> None:
        """Submits the next draws into all free slots, but no more than the remaining steps can train."""
        per_step = self.config.rl.queries_per_step
        room = min(self.slots.free, self._steps_left * per_step - self.slots.claimed)
        draws = []
        for position in range(self.submitted, self.submitted + max(0, room)):
            self.slots.submit(position)
            row = self.stream.row(position)
            draws.append(Draw(key=position, row=row, text=self.dataset.queries[row].text))
        self.submitted += len(draws)
        chunk = max(1, -(-min(len(draws), per_step) // len(self.dispatch.actors.rollouts)))
        # Validation samples with the run's seed and rows as keys; training with the next seed and draws as keys.
        self._chunks.extend(
            self.dispatch.send(draws, samples=self.config.rl.group_size, seed=self.config.seed + 1, chunk=chunk)
        )

    def take(self) -> Batch:
        """The next batch. Waits for the oldest groups, drops uninformative ones and refills, at most as configured."""
        self.fill()
        while not self.slots.complete:
            self._judge_oldest()
        self.slots.take()
        self._steps_left -= 1
        first, self.consumed = self.consumed, self.consumed + len(self._judged)
        batch = Batch(
            kept=tuple(group for group, informative in self._judged if informative),
            dropped=tuple(group for group, informative in self._judged if not informative),
            first=first,
            stop=self.consumed,
        )
        self._judged = []
        return batch

    def work_ahead(self, calls: Sequence[Any]) -> None:
        """Judges and refills for the next step, until one of `calls` (the learners' update) is done."""
        while not self.slots.complete and (self._arrived or self._chunks):
            if not self._arrived:
                head = self._chunks[0].scores
                waiting = ray.wait(head, num_returns=len(head), timeout=0)[1]
                ready, _ = ray.wait([*calls, *waiting], num_returns=1, timeout=self.config.cluster.call_timeout)
                if not ready or ready[0] in calls:
                    return  # whoever gathers `calls` says who is late
                if waiting:
                    continue
            self._judge_oldest()

    def published(self) -> None:
        """The weights after the last batch are on their way to every worker: its slots are free."""
        self.slots.publish()

    def _judge_oldest(self) -> None:
        if not self._arrived:
            self._arrived.extend(self.dispatch.collect(self._chunks.popleft()))
        group = self._arrived.popleft()
        version = group.completions[0].policy_version
        rewards, _ = training_rewards(group.scored, self.config.objective, [version])
        informative = bool(informative_groups(rewards[None], self.config.rl.std_tolerance)[0])
        position = self.slots.decide(informative)
        if position != group.key:
            raise RuntimeError(f"group {group.key} arrived where group {position} was due")
        self._judged.append((group, informative))
        if not informative:
            self.fill()
