"""Verdicts on claims and the search for reward hacking, from values that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.study.claims import RULES, Claim, Test, load_claims, of_study, outcomes, verdict
from benchmarks.study.hacking import search
from benchmarks.study.plan import Cell, load_study
from benchmarks.study.results import CellResults

STUDIES = RULES.parent
RNG = np.random.default_rng(3)
NOISE = {
    method: RNG.normal(0, 0.05, size=(2, 80)) for method in ("zero_shot", "best_of_n", "r4t_folm", "r4t_diffusion")
}


def cell(levels: dict[str, dict[str, float]], key: str = "c", part: str = "table1", **more: Any) -> CellResults:
    """A cell with two seeds and 80 queries, whose metrics lie around the given levels."""
    values = [
        {
            f"{m}/{name}": (level + NOISE[m][seed]).astype(np.float32)
            for m, own in levels.items()
            for name, level in own.items()
        }
        for seed in (0, 1)
    ]
    metrics = [{"methods": {m: {} for m in levels}} for _ in values]
    plan = Cell.model_validate({"part": part, "label": key, "config": Path("x.yaml")})
    return CellResults(key=key, cell=plan, seeds=[0, 1], metrics=metrics, values=values, **more)


def judged(reward: float, diversity: float, alignment: float) -> dict[str, float]:
    return {"reward": reward, "judge.diversity": diversity, "judge.alignment": alignment}


def claim(*tests: dict[str, Any], part: str | None = "table1") -> Claim:
    return Claim.model_validate({"id": "x", "says": "X", "part": part, "tests": tests})


BETTER = {"better": "r4t_folm", "than": "zero_shot", "metric": "reward"}
KEPT = {"kept": "r4t_diffusion", "of": "r4t_folm", "metric": "reward", "share": 0.9}


def test_a_claim_is_replicated_partly_or_not_as_its_tests_hold() -> None:
    up = cell({"zero_shot": {"reward": 0.3}, "r4t_folm": {"reward": 0.4}, "r4t_diffusion": {"reward": 0.38}})
    down = cell({"zero_shot": {"reward": 0.4}, "r4t_folm": {"reward": 0.3}}, key="d")
    both = claim(BETTER, KEPT)
    assert verdict(both, outcomes([both], {"c": up})) == "replicated"
    found = outcomes([both], {"c": up, "d": down})
    assert [(o.where, o.holds) for o in found] == [("c", True), ("d", False), ("c", True), ("d", None)]
    assert verdict(both, found) == "partly"
    assert verdict(both, outcomes([both], {"d": down})) == "not"
    assert verdict(both, outcomes([both], {})) == "not run"
    none = Claim.model_validate({"id": "y", "says": "Y", "untestable": "closed data"})
    assert verdict(none, []) == "not testable"


def test_a_share_of_nothing_has_no_verdict() -> None:
    nothing = cell({"r4t_folm": {"reward": 0.0}, "r4t_diffusion": {"reward": 0.0}})
    for values in nothing.values:
        values["r4t_folm/reward"][:] = 0
    (outcome,) = outcomes([claim(KEPT)], {"c": nothing})
    assert (outcome.holds, outcome.says) == (None, "the whole is zero")


def test_a_positive_difference_within_the_noise_is_not_better() -> None:
    level = cell({"zero_shot": {"reward": 0.3}, "r4t_folm": {"reward": 0.303}})
    (outcome,) = outcomes([claim(BETTER)], {"c": level})
    assert outcome.estimate is not None
    assert outcome.estimate.value > -0.02
    assert outcome.holds is False


def test_more_tests_of_one_family_make_each_harder() -> None:
    close = cell({"zero_shot": {"reward": 0.3}, "r4t_folm": {"reward": 0.315}, "best_of_n": {"reward": 0.3}})
    (alone,) = outcomes([claim(BETTER)], {"c": close})
    others = [{"better": "best_of_n", "than": "zero_shot", "metric": "reward"}] * 30
    first = outcomes([claim(BETTER, *others)], {"c": close})[0]
    assert alone.p_adjusted is not None
    assert first.p_adjusted is not None
    assert first.p_adjusted > alone.p_adjusted


def test_two_metrics_are_averaged_and_another_metric_can_stand_against() -> None:
    both = cell({"zero_shot": judged(0.3, 0.5, 0.3), "r4t_folm": judged(0.3, 0.7, 0.2)})
    mean = both.matrix("r4t_folm", "judge.diversity+judge.alignment")
    assert mean is not None
    assert mean.mean() == pytest.approx(0.45, abs=0.01)
    itself = {"better": "r4t_folm", "than": "r4t_folm", "metric": "judge.diversity", "against": "judge.alignment"}
    assert outcomes([claim(itself)], {"c": both})[0].holds is True


def test_curves_and_latencies_are_judged_by_their_bounds() -> None:
    curves = [{"distinct": [(0.0, 0.9), (10.0, 0.3)]}, {"distinct": [(0.0, 0.9), (10.0, 0.5), (20.0, 0.1)]}]
    collapsed = cell({}, key="g", part="terms", curves=curves)
    assert collapsed.curve("distinct") == [(0.0, 0.9), (10.0, 0.4)], "only steps that every seed has"
    fell = claim(
        {"curve": "distinct", "cell": "g", "below": 0.5}, {"curve": "distinct", "cell": "g", "above": 0.5}, part=None
    )
    assert [o.holds for o in outcomes([fell], {"g": collapsed})] == [True, False]
    times = {
        "r4t_folm": {"8": {"p50": 80.0}, "64": {"p50": 90.0}},
        "r4t_diffusion": {"8": {"p50": 8.0}, "64": {"p50": 30.0}},
    }
    timed = cell({"r4t_folm": {"reward": 0.1}}, probes=[{"latency_ms": times}])
    for least, holds in ((3, True), (8, False)):
        fast = claim({"faster": "r4t_diffusion", "than": "r4t_folm", "times": least})
        assert outcomes([fast], {"c": timed})[0].holds is holds


@pytest.mark.parametrize(
    ("after", "hacked"),
    [
        (judged(0.5, 0.6, 0.30), False),  # the reward rises and the judge agrees
        (judged(0.5, 0.7, 0.20), True),  # the paper's drift: diversity up, alignment down
        (judged(0.5, 0.3, 0.30), True),  # collapse
        (judged(0.5, 0.6, 0.29), False),  # a loss under 5 % of the start
        (judged(0.3, 0.3, 0.10), False),  # worse in everything: a failure, but no hacking
    ],
)
def test_a_reward_that_rises_while_the_judge_falls_is_a_failure(after: dict[str, float], hacked: bool) -> None:
    (finding,) = search({"c": cell({"zero_shot": judged(0.3, 0.6, 0.30), "r4t_folm": after})})
    assert finding.hacked is hacked


def test_hacking_is_not_looked_for_where_the_reward_counts_what_people_used() -> None:
    levels = {"zero_shot": judged(0.3, 0.6, 0.3), "r4t_folm": judged(0.5, 0.3, 0.1)}
    assert search({"c": cell(levels, part="table2")}) == []


def test_a_study_reports_the_claims_that_its_cells_can_test() -> None:
    claims = load_claims()
    of_curves = [claim for claim in claims if any(test.curve for test in claim.tests)]
    assert of_study(claims, load_study(STUDIES / "tiny.yaml")) == list(claims)
    left = of_study(claims, load_study(STUDIES / "smollm2.yaml"))
    assert left == [claim for claim in claims if claim not in of_curves]
    assert len(of_curves) > 3
    assert any(claim.untestable for claim in left)


def test_the_shipped_claims_are_whole_and_a_rule_without_meaning_is_refused() -> None:
    assert len({c.id for c in load_claims()}) == len(load_claims()) > 10
    for wrong in ({"better": "a"}, {"kept": "a", "of": "b"}, {"curve": "d", "cell": "g"}, {}):
        with pytest.raises(ValidationError):
            Test.model_validate(wrong)
    with pytest.raises(ValidationError, match="needs tests, or a reason"):
        Claim.model_validate({"id": "x", "says": "X"})
