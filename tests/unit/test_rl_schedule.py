"""The schedule simulation against what arithmetic says where nothing varies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rl_schedule import Phases, best, simulate


def phases(rollout: float, train: float, sync: float = 0.0) -> Phases:
    return Phases(groups=4, rollout=rollout, train=train, sync=sync)


@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 0.5))
@settings(max_examples=40)
def test_without_spread_phases_add_up_or_overlap(
    samplers: int, learners: int, rollout: float, train: float, sync: float
) -> None:
    machines = samplers + learners
    given_ = phases(rollout, train, sync)
    rounds = -(-given_.groups * machines // samplers)  # groups that the busiest sampling machine gets
    sample, learn = rounds * rollout / given_.groups, train * machines / learners + sync
    assert simulate(given_, samplers, learners, 0, 20, 0.0) == pytest.approx(sample + learn)
    overlapped = simulate(given_, samplers, learners, 1, 20, 0.0)
    busy = (
        given_.rollout * machines / samplers
    )  # of all sampling machines on average: rounds of two steps may interlock
    assert max(busy, learn) * (1 - 1e-9) <= overlapped <= sample + learn + 1e-9
    if (given_.groups * machines) % samplers == 0:
        assert overlapped == pytest.approx(max(sample, learn), rel=0.06)  # the first steps count too


def test_overlap_gains_most_where_both_phases_are_as_long() -> None:
    def gain(rollout: float, train: float) -> float:
        both = (best(phases(rollout, train), 8, staleness, 30, 0.2)["seconds_per_step"] for staleness in (0, 1))
        synchronous, one_off = both
        return synchronous / one_off

    assert gain(1.0, 1.0) > gain(1.0, 0.1) > 1.0
