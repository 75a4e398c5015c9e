"""Acceptance checks: each must turn when its numbers turn."""

from __future__ import annotations

import numpy as np
import pytest

from r4t.evaluation.checks import run_checks

RNG = np.random.default_rng(0)
EASE = RNG.normal(size=200) * 0.1


def around(mean: float, noise: float = 0.02) -> np.ndarray:
    """Per-query values that share the queries' difficulty."""
    return mean + EASE + RNG.normal(size=200) * noise


def holds(rows: list[dict], start: str) -> bool:
    found = [row for row in rows if row["name"].startswith(start)]
    assert len(found) == 1, [row["name"] for row in rows]
    return found[0]["holds"]


def test_c57_reward_order_and_its_standard_errors() -> None:
    values = {"zero_shot": {"reward": around(0.40)}, "best_of_n": {"reward": around(0.45)}}
    good = run_checks("oar", values | {"r4t_folm": {"reward": around(0.47)}}, {})
    assert holds(good, "reward: r4t_folm above zero_shot")
    assert holds(good, "reward: r4t_folm above best_of_n")
    bad = run_checks("oar", values | {"r4t_folm": {"reward": around(0.401)}}, {})
    assert not holds(bad, "reward: r4t_folm above zero_shot")
    assert not holds(bad, "reward: r4t_folm above best_of_n")


@pytest.mark.parametrize(
    ("diversity", "alignment", "expected"),
    [(0.05, 0.0, True), (0.0, 0.05, True), (0.05, -0.05, False), (0.0, 0.0, False), (-0.05, 0.05, False)],
)
def test_gaming_shows_as_a_loss_in_the_judges_space(diversity: float, alignment: float, expected: bool) -> None:
    base = {"judge.diversity": 0.5 + EASE, "judge.alignment": 0.3 + EASE}
    noise = np.tile([0.01, -0.01], 100)
    folm = {
        "judge.diversity": base["judge.diversity"] + diversity + noise,
        "judge.alignment": base["judge.alignment"] + alignment + noise,
    }
    assert holds(run_checks("oar", {"zero_shot": base, "r4t_folm": folm}, {}), "judge: r4t_folm raises") is expected


def test_c57_distillation_keeps_nine_tenths_in_both_spaces() -> None:
    folm = {"diversity": around(0.6), "judge.alignment": around(0.3)}
    kept = run_checks("oar", {"r4t_folm": folm, "r4t_diffusion": {"diversity": around(0.56)}}, {})
    assert [row["name"].split(":")[0] for row in kept] == ["diversity"]
    assert kept[0]["holds"]
    lost = run_checks("oar", {"r4t_folm": folm, "r4t_diffusion": {"diversity": around(0.5)}}, {})
    assert not lost[0]["holds"]


def test_c56_speed_needs_four_times_at_one_query_and_more_than_once_beyond() -> None:
    def rows(slow: float, fast: float, batch: str) -> list[dict]:
        cells = {
            "r4t_folm": {batch: {"p50": slow, "p95": slow}},
            "r4t_diffusion": {batch: {"p50": fast, "p95": fast}},
        }
        return run_checks("oar", {}, cells)

    assert holds(rows(76, 19, "1"), "latency at batch 1")
    assert not holds(rows(76, 20, "1"), "latency at batch 1")
    assert holds(rows(410, 400, "64"), "latency at batch 64")
    assert not holds(rows(410, 410, "64"), "latency at batch 64")


def test_coverage_must_beat_popularity_and_shuffled_queries() -> None:
    folm = {"recall": around(0.3), "recall_shuffled": around(0.29)}
    values = {
        "zero_shot": {"recall": around(0.2)},
        "popular": {"recall": around(0.4)},
        "no_fanout": {"recall": around(0.25)},
        "r4t_folm": folm,
    }
    rows = run_checks("wscr", values, {})
    assert holds(rows, "recall: r4t_folm at least 1.3 x zero_shot")
    assert holds(rows, "recall: r4t_folm above no_fanout")
    assert not holds(rows, "recall: r4t_folm above popular")
    assert holds(rows, "recall: r4t_folm above shuffled queries")
    same = {"r4t_folm": {"recall": folm["recall"], "recall_shuffled": folm["recall"]}}
    assert not holds(run_checks("wscr", same, {}), "recall: r4t_folm above shuffled queries")


def test_checks_about_methods_that_were_not_measured_are_absent() -> None:
    assert run_checks("oar", {"random": {"reward": around(0.3)}}, {}) == []
