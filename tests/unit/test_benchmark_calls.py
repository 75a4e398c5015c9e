"""What the benchmark of network calls computes from values per query."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.retriever_ablations import VARIANTS, changed, choice_of, plan_of, table, with_teachers
from benchmarks.retriever_calls import bootstrap_ratio, choices, compare, folm_share, means
from benchmarks.retriever_figure import best_points, markdown, picture
from r4t.config import Config
from r4t.lineage import write_json


def result(name: str, steps: int, nfe: int, reward: float) -> dict[str, Any]:
    return {
        "name": name, "curve": name, "steps": steps, "guidance": 0.0, "sigma_max": None, "rho": 7.0, "spread": 1.0,
        "nfe": nfe,
        "metrics": {"reward": {"mean": reward, "stderr": 0.01}},
    }  # fmt: skip


def test_share_of_items_that_the_policy_finds_too() -> None:
    items = np.array([[1, 2, 3, 4], [5, 5, 6, 7]])
    assert folm_share(items, [{1, 2, 9}, {5}]).tolist() == [0.5, 0.5]


def test_ratio_is_paired_over_queries() -> None:
    """Where every query is kept to 98 % the interval is a point, however much the queries differ."""
    base = np.random.default_rng(0).uniform(0.1, 0.9, 200)
    found = bootstrap_ratio(0.98 * base, base)
    assert found == pytest.approx({"ratio": 0.98, "low": 0.98, "high": 0.98})
    noisy = bootstrap_ratio(base[::-1].copy(), base)
    assert noisy["low"] < 1 < noisy["high"]


def test_kept_is_against_the_better_of_policy_and_best_guided_reference() -> None:
    results = [
        {"name": "r4t_folm"}, result("euler_maruyama", 256, 256, 0), result("euler_maruyama", 256, 512, 0),
        result("dpmpp_2m", 8, 8, 0),
    ]  # fmt: skip
    values = [
        {"reward": np.full(9, 0.4), "diversity": np.full(9, 0.5)},
        {"reward": np.full(9, 0.3), "diversity": np.full(9, 0.9)},
        {"reward": np.full(9, 0.5), "diversity": np.full(9, 0.6)},
        {"reward": np.full(9, 0.45), "diversity": np.full(9, 0.6)},
    ]
    compare(results, values)
    assert results[3]["kept"]["reward"]["ratio"] == pytest.approx(0.9)  # of the guided reference
    assert results[3]["kept"]["diversity"]["ratio"] == pytest.approx(1.0)  # which the other reference does not decide
    assert results[0]["kept"]["reward"]["ratio"] == pytest.approx(0.8)
    policy, reference = results[3]["against"]["r4t_folm"], results[3]["against"]["reference"]
    assert [policy[m]["ratio"] for m in ("reward", "diversity")] == pytest.approx([1.125, 1.2])
    assert [reference[m]["ratio"] for m in ("reward", "diversity")] == pytest.approx([0.9, 1.0])


def test_a_metric_without_a_ratio_is_left_out() -> None:
    results = [{"name": "r4t_folm"}, result("dpmpp_2m", 8, 8, 0)]
    share = np.array([0.0, 0.0, 0.5])  # a third of all resamples has none of the last query
    compare(results, [{"reward": np.full(3, 0.4), "folm_share": share}] * 2)
    assert set(results[1]["kept"]) == {"reward"}


def test_values_that_do_not_apply_leave_the_means() -> None:
    found = means({"reward": np.array([0.2, np.nan, 0.4]), "recall": np.full(3, np.nan)})
    assert found["reward"]["mean"] == pytest.approx(0.3)
    assert "recall" not in found


def test_every_choice_is_drawn_once_and_the_reference_first() -> None:
    given = argparse.Namespace(
        run=Path("r"), solvers=["euler_maruyama", "heun"], steps=[8, 256], guidance=[0.0, 0.1], sigma_max=[None],
        rho=[7.0, 3.0], no_reference=False, students=[Path("runs/long-3")], student_calls=[1, 2],
        student_spreads=[0.5, 1.0],
    )  # fmt: skip
    found = list(choices(given))
    assert len(set(found)) == len(found) == 2 * 2 * 2 * 2 + 4
    assert [(c.name, c.steps, c.guidance, c.rho) for c in found[:4]] == [
        ("euler_maruyama", 256, guidance, rho) for guidance in (0.0, 0.1) for rho in (7.0, 3.0)
    ]
    assert [(c.curve, c.steps, c.spread) for c in found[-4:]] == [
        ("long, spread 0.5", 1, 0.5), ("long", 1, 1.0), ("long, spread 0.5", 2, 0.5), ("long", 2, 1.0),
    ]  # fmt: skip


def test_a_curve_is_the_way_of_the_best_reward_at_each_number_of_calls() -> None:
    results = [
        result("heun", 4, 8, 0.2),
        result("heun", 8, 8, 0.3),
        result("heun", 16, 32, 0.25),
        result("x", 1, 1, 0.9),
    ]
    for one, diversity in zip(results, (0.9, 0.5, 0.7, 0.1), strict=True):
        one["metrics"]["diversity"] = {"mean": diversity}
    assert best_points(results, "heun", "reward") == [(8.0, 0.3), (32.0, 0.25)]
    assert best_points(results, "heun", "diversity") == [(8.0, 0.5), (32.0, 0.7)], "of the same ways, not the best ones"
    drawn = picture([*results, {"name": "r4t_folm", "metrics": {"reward": {"mean": 0.4}}}], ["reward"])
    assert drawn.count("<polyline") == 3
    assert "policy" in drawn
    assert "| heun | 4 | 0.0 |  | 7.0 | 1.0 | 8 | 0.200 |" in markdown(results)


def test_a_curve_of_several_training_seeds_is_their_mean() -> None:
    results = [result("long", 1, 1, reward) for reward in (0.2, 0.3, 0.7)]
    assert best_points(results, "long", "reward") == [(1.0, pytest.approx(0.4))]
    results[2]["rho"] = 3.0
    assert best_points(results, "long", "reward") == [(1.0, 0.7)], "points spaced otherwise are another way"


def test_ablations_change_what_they_say_and_nothing_else() -> None:
    config = Config()
    for variant in VARIANTS.values():
        other = changed(config, variant, seed=3)
        assert other.seed == 3
        differing = {s for s in Config.model_fields if getattr(config, s) != getattr(other, s)}
        assert differing <= {"seed", *variant.changes}
        for section, keys in variant.changes.items():
            assert {key: getattr(getattr(other, section), key) for key in keys} == keys
    rows = [
        {
            "variant": "base", "seed": s, "nfe": 8, "seconds": 60.0, "parameters": 5000,
            "metrics": {"reward": {"mean": 0.3 + s}},
        }
        for s in (0, 1)
    ]  # fmt: skip
    assert "| base | 5,000 | 8 | 60 | 0.800 ± 0.707 |" in table(rows)


def test_a_trained_network_is_drawn_from_as_its_folder_says(tmp_path: Path) -> None:
    sampler = {"name": "heun", "steps": 3, "guidance": 0.2, "sigma_max": 5.0, "rho": 4.0}
    write_json(tmp_path / "config.json", {"sampler": sampler})
    assert asdict(choice_of(tmp_path)) == sampler | {"folder": str(tmp_path), "spread": 1.0}


def test_a_teacher_is_trained_once_and_before_its_student() -> None:
    assert with_teachers(["student_of_wide_32", "wide_32", "student_long"]) == [
        "wide_32", "student_of_wide_32", "student_long",
    ]  # fmt: skip
    for name in with_teachers(list(VARIANTS)):
        teacher = VARIANTS[name].teacher
        assert not teacher or not VARIANTS[teacher].student


def test_a_student_learns_from_the_teacher_of_its_own_training_seed(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    (run / "config.yaml").write_text("name: x\n")
    _, teacher = plan_of(run, out, "wide_32", seed=2)
    _, student = plan_of(run, out, "student_of_wide_32", seed=2)
    assert student.inputs["retriever"] == teacher.folder == student.args[-1]
    assert student.folder != teacher.folder
    _, other = plan_of(run, out, "student_long", seed=2)
    assert other.inputs["retriever"] == run / "retriever"
