"""The slot buffer and the query stream: bounded age, strict order, no deadlock, under any timing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.slots import SlotBuffer
from r4t.stream import QueryStream


class Simulation:
    """A rollout side, a learner and a publisher, interleaved by `choose`. Groups complete in any order."""

    def __init__(self, slots: SlotBuffer, choose: Callable[[int], int], informative: Callable[[], bool]) -> None:
        self.slots, self.choose, self.informative = slots, choose, informative
        self.position = self.published = self.taken = 0
        self.version: dict[int, int] = {}
        self.finished: set[int] = set()
        self.steps: deque[int] = deque()
        self.consumed: list[int] = []
        self.worst = 0

    def moves(self) -> list[Callable[[], None]]:
        head = self.slots.undecided[0] if self.slots.undecided else None
        possible: list[tuple[bool, Callable[[], None]]] = [
            (self.slots.free > 0, self.submit),
            (bool(set(self.slots.undecided) - self.finished), self.finish),
            (head in self.finished and not self.slots.complete, self.decide),
            (self.slots.complete, self.take),
            (bool(self.steps), self.publish),
        ]
        return [move for allowed, move in possible if allowed]

    def submit(self) -> None:
        self.version[self.position] = self.published
        self.slots.submit(self.position)
        self.position += 1

    def finish(self) -> None:
        running = sorted(set(self.slots.undecided) - self.finished)
        self.finished.add(running[self.choose(len(running))])

    def decide(self) -> None:
        self.consumed.append(self.slots.decide(self.informative()))

    def take(self) -> None:
        kept, dropped = self.slots.take()
        ages = [self.taken - self.version[p] for p in [*kept, *dropped]]
        self.worst = max([self.worst, *ages])
        self.steps.append(self.taken)
        self.taken += 1

    def publish(self) -> None:
        self.slots.publish()
        self.published = self.steps.popleft() + 1


@settings(max_examples=300)
@given(
    per_step=st.integers(1, 5),
    staleness=st.integers(0, 3),
    refill=st.integers(0, 2),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_age_stays_within_the_bound_in_any_order_of_events(
    per_step: int, staleness: int, refill: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    slots = SlotBuffer(per_step, staleness, refill)
    world = Simulation(slots, lambda n: int(rng.integers(n)), lambda: bool(rng.random() < share))
    for _ in range(600):
        moves = world.moves()
        assert moves, "deadlock"
        moves[int(rng.integers(len(moves)))]()
        assert 0 <= slots.held <= slots.capacity
    assert world.worst <= staleness
    assert world.consumed == list(range(len(world.consumed))), "strictly in the order of the stream, none lost"


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_the_bound_is_reached_by_a_slow_learner(staleness: int) -> None:
    """Otherwise the bound would say nothing: work ahead as far as the slots allow, then train."""
    world = Simulation(SlotBuffer(2, staleness, 1), lambda _: 0, lambda: True)
    for _ in range(400):
        moves = world.moves()
        order = [world.submit, world.finish, world.decide, world.take, world.publish]
        next(move for move in order if move in moves)()
    assert world.worst == staleness


def test_a_step_without_any_informative_group_ends_and_holds_its_slots() -> None:
    slots = SlotBuffer(queries_per_step=2, staleness=0, max_refill=1)
    for position in range(4):
        assert slots.free, "a filtered group makes room while the step may refill"
        slots.submit(position)
        slots.decide(informative=False)
    assert slots.complete
    assert slots.take() == ([], [0, 1, 2, 3])
    assert slots.free == 0
    slots.publish()
    assert slots.free == 2


def test_misuse_is_refused() -> None:
    slots = SlotBuffer(1, 0, 0)
    with pytest.raises(RuntimeError, match="nothing is in flight"):
        slots.decide(True)
    with pytest.raises(RuntimeError, match="0 of 1 groups"):
        slots.take()
    with pytest.raises(RuntimeError, match="without a taken step"):
        slots.publish()
    slots.submit(3)
    with pytest.raises(RuntimeError, match="no free slot"):
        slots.submit(4)
    slots.decide(True)
    slots.take()
    slots.publish()
    with pytest.raises(RuntimeError, match="order"):
        slots.submit(3)


@given(rows=st.lists(st.integers(0, 1000), min_size=1, max_size=30, unique=True), seed=st.integers(0, 99))
def test_every_epoch_of_the_stream_draws_each_query_once(rows: list[int], seed: int) -> None:
    stream, again = QueryStream(np.array(rows), seed), QueryStream(np.array(rows), seed)
    drawn = [stream.row(p) for p in range(3 * len(rows))]
    for epoch in range(3):
        assert sorted(drawn[epoch * len(rows) : (epoch + 1) * len(rows)]) == sorted(rows)
    assert [again.row(p) for p in reversed(range(len(drawn)))] == drawn[::-1], "a position is drawn alike in any order"
