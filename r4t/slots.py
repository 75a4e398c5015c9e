"""The slot buffer that bounds how old a trained answer can be. Pure bookkeeping; the proof is in docs/rl.md."""

from __future__ import annotations

from collections import deque


class SlotBuffer:
    """Slots for groups of answers, first in, first out.

    A group takes a slot when it is submitted. The slot is free again when the group was trained *and* the weights of
    that step were published, or when the group was filtered out and another may still replace it in the step. So every
    step holds exactly `queries_per_step` slots until its weights are published, even a step that found fewer
    informative groups, and a group submitted under version v is consumed by a step v ... v + staleness.
    """

    def __init__(self, queries_per_step: int, staleness: int, max_refill: int) -> None:
        self.per_step = queries_per_step
        self.capacity = (staleness + 1) * queries_per_step
        self.refills = max_refill * queries_per_step
        self.undecided: deque[int] = deque()
        """Positions submitted and not yet judged, oldest first."""
        self.kept: list[int] = []
        """Informative groups of the step that is being collected."""
        self.dropped: list[int] = []
        """Filtered groups of that step."""
        self._unpublished = 0  # steps that were taken and whose weights are not out yet
        self._newest = -1

    @property
    def claimed(self) -> int:
        """Slots held by steps not taken yet: undecided and kept groups, and filtered ones past the refills."""
        return len(self.undecided) + len(self.kept) + max(0, len(self.dropped) - self.refills)

    @property
    def held(self) -> int:
        """Slots in use."""
        return self.claimed + self._unpublished * self.per_step

    @property
    def free(self) -> int:
        return self.capacity - self.held

    @property
    def complete(self) -> bool:
        """Whether the step has all its informative groups, or has used up its refills."""
        return len(self.kept) == self.per_step or len(self.kept) + len(self.dropped) == self.per_step + self.refills

    def submit(self, position: int) -> None:
        """Takes a slot. Raises RuntimeError when none is free or when `position` is not the stream's next."""
        if self.free < 1:
            raise RuntimeError(f"no free slot for group {position}: all {self.capacity} are held")
        if position <= self._newest:
            raise RuntimeError(f"group {position} was submitted after group {self._newest}: the order is the stream's")
        self._newest = position
        self.undecided.append(position)

    def decide(self, informative: bool) -> int:
        """Judges the oldest group for the step being collected; returns its position."""
        if self.complete or not self.undecided:
            raise RuntimeError("no group to judge: the step is complete or nothing is in flight")
        position = self.undecided.popleft()
        (self.kept if informative else self.dropped).append(position)
        return position

    def take(self) -> tuple[list[int], list[int]]:
        """Closes the complete step: its (informative, filtered) positions. Its slots stay held until `publish`."""
        if not self.complete:
            raise RuntimeError(f"the step has {len(self.kept)} of {self.per_step} groups and may still refill")
        step = (self.kept, self.dropped)
        self.kept, self.dropped = [], []
        self._unpublished += 1
        return step

    def publish(self) -> None:
        """The weights that the oldest taken step led to are on their way to every worker: frees its slots."""
        if not self._unpublished:
            raise RuntimeError("published weights without a taken step")
        self._unpublished -= 1
