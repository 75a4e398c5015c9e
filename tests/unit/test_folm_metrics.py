"""The numbers of a step, what a short batch is padded with, and the deferred SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dispatch import Busy
from cluster.groups import Batch
from cluster.weights import Sync
from jobs.folm_metrics import policy_age, summary, wall_shares
from jobs.stopping import stop_at_boundary
from r4t.config import parse_config
from r4t.fanout import format_answer, parse
from r4t.types import Completion, Group, ScoredBatch

CONFIG = parse_config({"fanout": {"k": 2}, "rl": {"group_size": 2, "queries_per_step": 2, "updates_per_batch": 1}})


def group(key: int, version: int, rewards: tuple[float, float] = (0.0, 1.0), broken: bool = False) -> Group:
    text = "broken" if broken else format_answer(["a b", "c d"])
    completions = tuple(
        Completion(
            query=0, sample=i, prompt_ids=(1,), token_ids=(2, 3), logprobs=(-1.0, -2.0), text=text,
            policy_version=version, finished=True,
        )
        for i in range(2)
    )  # fmt: skip
    scored = ScoredBatch(
        fanouts=(parse(text, 2),) * 2,
        rewards=np.array(rewards, "f4"),
        terms={} if broken else {"diversity": np.array(rewards, "f4")},
        items=np.full((2, 2, 1), -1 if broken else key, dtype=np.int64),
        row_credit=np.zeros((2, 2), "f4"),
        cosine=np.full(2, np.nan if broken else 0.5, "f4"),
    )
    return Group(key=key, completions=completions, scored=scored)


def batch(kept: list[Group], dropped: list[Group]) -> Batch:
    keys = [g.key for g in [*kept, *dropped]]
    return Batch(kept=tuple(kept), dropped=tuple(dropped), first=min(keys), stop=max(keys) + 1)


@given(kept=st.integers(0, 4), refill=st.integers(0, 2))
def test_a_short_batch_keeps_its_shape(kept: int, refill: int) -> None:
    dropped = 0 if kept == 4 else 4 * (1 + refill) - kept
    made = batch([group(i, 0) for i in range(kept)], [group(10 + i, 0, (1, 1)) for i in range(max(dropped, 0))])
    padded = made.padded(4)
    assert len(padded) == 4
    assert padded[:kept] == list(made.kept)


def test_summary_counts_filtering_over_everything_consumed() -> None:
    values = summary(CONFIG, batch([group(0, 0), group(2, 0)], [group(1, 0, (-1, -1), broken=True)]))
    assert values["groups/trained"] == 2
    assert values["groups/dropped"] == 1
    assert values["groups/refilled"] == 1
    assert (values["groups/first"], values["groups/stop"]) == (0, 3)
    assert values["valid"] == pytest.approx(2 / 3)
    assert values["reward/mean"] == pytest.approx((0.5 + 0.5 - 1) / 3)
    assert values["reward/diversity"] == pytest.approx(0.5)


def test_age_is_measured_and_its_bound_asserted() -> None:
    mixed = batch([group(0, 3), group(1, 4)], [])
    assert policy_age(mixed, step=4, staleness=1) == {"policy_age/mean": 0.5, "policy_age/max": 1.0}
    with pytest.raises(RuntimeError, match="aged 1 to 2"):
        policy_age(mixed, step=5, staleness=1)
    with pytest.raises(RuntimeError, match="aged -1 to 0"):
        policy_age(mixed, step=3, staleness=1)
    with pytest.raises(RuntimeError, match="step 5"):
        policy_age(batch([group(0, 5)], [group(1, 3, (0, 0))]), step=5, staleness=1)


def test_shares_and_idle_times_add_up() -> None:
    config = parse_config({"rollout": {"workers": 2}})
    sync = Sync(version=1, seconds=1.0, bytes=1)
    values = wall_shares(config, 10.0, Busy(rollout=8.0, load=2.0, score=3.0), 4.0, sync)
    assert values["share/rollout"] == pytest.approx(0.4)
    assert values["idle/rollout"] == pytest.approx(0.5)
    assert values["idle/scorer"] == pytest.approx(0.7)
    assert values["share/train"] == pytest.approx(0.4)
    assert values["idle/learner"] == pytest.approx(0.5)
    assert values["share/sync"] == pytest.approx(0.2)


def test_busy_seconds_start_again_when_taken() -> None:
    busy = Busy(rollout=1.0, load=2.0, score=3.0)
    assert busy.take() == Busy(rollout=1.0, load=2.0, score=3.0)
    assert busy.take() == Busy()


@pytest.mark.parametrize("outer", [signal.SIG_DFL, lambda number, _: sys.exit(number)], ids=["default", "as Ray's"])
def test_the_first_sigterm_waits_for_the_boundary_and_the_second_does_not(outer: Any) -> None:
    found = signal.signal(signal.SIGTERM, outer)
    try:
        with pytest.raises(SystemExit) as unasked, stop_at_boundary() as stop:  # noqa: PT012  the block is what is tested
            assert not stop.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            with pytest.raises(SystemExit) as left:
                os.kill(os.getpid(), signal.SIGTERM)
        assert left.value.code == unasked.value.code == stop.exit.code == 143
        assert signal.getsignal(signal.SIGTERM) is outer
    finally:
        signal.signal(signal.SIGTERM, found)
