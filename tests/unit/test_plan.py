"""`r4t plan`: rates that a run gives predict that run, and predictions follow from work and rates."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support import ROOT

from jobs.plan import describe, duration, show
from r4t import plan
from r4t.config import Config, load_config, parse_config
from r4t.config.policy import Scorer
from r4t.errors import UserError
from r4t.footprint import PolicyShape, footprints, policy_shape
from r4t.rates import Rates, load_rates
from r4t.seats import gpus_held

SHIPPED = ROOT / "benchmarks" / "rates.json"
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
RATES = Rates(
    source="test", measured=True, device="cuda", parameters=1e9, retriever_parameters=1e6, answer_tokens=100.0,
    encode=1000.0, warm=50.0, generate=10_000.0, score=500.0, train=8_000.0, synthesise=40.0, denoise=2_000.0,
    evaluate=5.0, sync=0.2, overhead=0.1, start=60.0, answer_bytes=130.0,
)  # fmt: skip
SIZE = plan.Size(
    items=10_000,
    queries=5_000,
    policy=PolicyShape(parameters=10**9, hidden=2048, layers=16, vocabulary=32_000),
    retriever_parameters=10**6,
)


def gpu_config(workers: int = 2, ranks: int = 2, staleness: int = 0, colocate: bool = False, **rl: int) -> Config:
    return parse_config(
        {
            "cluster": {"device": "cuda"},
            "rollout": {"workers": workers, "colocate": colocate},
            "learner": {"ranks": ranks},
            "rl": {"queries_per_step": 32, "group_size": 8, "staleness": staleness} | rl,
        }
    )


def test_a_step_is_its_work_divided_by_the_rates() -> None:
    parts = plan.step_parts(gpu_config(workers=4, ranks=2), RATES, SIZE)
    answers = 32 * 8
    assert parts == pytest.approx(
        {
            "sampling": answers * 100 / (4 * 10_000),
            "scoring": answers / 500,
            "learning": answers * 100 / (2 * 8_000),
            "weights": 0.2,
            "overhead": 0.1,
        }
    )
    assert plan.step_seconds(gpu_config(), parts) == pytest.approx(sum(parts.values()))
    ahead = parts["sampling"] + parts["scoring"]
    assert plan.step_seconds(gpu_config(staleness=1), parts) == pytest.approx(max(ahead, parts["learning"]) + 0.3)
    shared = gpu_config(staleness=1, colocate=True)
    assert plan.step_seconds(shared, parts) == pytest.approx(sum(parts.values()))  # one GPU does one thing at a time


@pytest.mark.parametrize(("staleness", "colocate"), [(0, False), (1, False), (1, True)])
def test_the_simulated_step_is_the_reckoned_one_where_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, staleness: int, colocate: bool
) -> None:
    config = gpu_config(workers=4, ranks=4, staleness=staleness, colocate=colocate)
    parts = plan.step_parts(config, RATES, SIZE)
    uneven = plan.simulated_step(config, parts)
    monkeypatch.setattr(plan, "SPREAD", 0.0)
    even = plan.simulated_step(config, parts)
    learner = parts["learning"] + parts["weights"] + parts["overhead"]
    ahead = parts["sampling"] + parts["scoring"]
    exact = max(ahead, learner) if staleness and not colocate else ahead + learner
    assert even.step == pytest.approx(exact, rel=0.06)  # the first steps count too
    assert even.step <= plan.step_seconds(config, parts) * 1.06
    assert even.step < uneven.step < 1.5 * even.step
    assert even.learners_idle == pytest.approx(1 - parts["learning"] / even.step)
    assert 0 <= even.samplers_idle < 1


@settings(max_examples=50)
@given(workers=st.integers(1, 300), ranks=st.integers(1, 60), staleness=st.integers(0, 1))
def test_more_actors_are_never_slower_and_never_beyond_one_sequence_each(
    workers: int, ranks: int, staleness: int
) -> None:
    def seconds(w: int, r: int) -> float:
        config = plan.with_split(gpu_config(staleness=staleness), plan.Split(workers=w, ranks=r, colocate=False))
        return plan.step_seconds(config, plan.step_parts(config, RATES, SIZE))

    assert seconds(workers + 1, ranks) <= seconds(workers, ranks)
    assert seconds(workers, ranks + 1) <= seconds(workers, ranks)
    assert seconds(10_000, ranks) == seconds(32 * 8, ranks)


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 16])
def test_the_best_split_is_the_best_of_all(gpus: int) -> None:
    config = gpu_config(staleness=1)
    best = plan.best_split(config, RATES, SIZE, gpus, gpu_gib=200.0)
    assert best is not None
    every = [plan.Split(workers=gpus, ranks=gpus, colocate=True)]
    every += [plan.Split(workers=gpus - n, ranks=n, colocate=False) for n in range(1, gpus)]

    def seconds(one: Config) -> float:
        return plan.step_seconds(one, plan.step_parts(one, RATES, SIZE))

    assert gpus_held(best) == gpus
    assert plan.best_split(config, RATES, SIZE, gpus, gpu_gib=4.0) is None
    assert seconds(best) == min(seconds(plan.with_split(config, split)) for split in every)
    parse_config(best.model_dump(mode="json"))  # a configuration that R4T would take


def test_a_stage_names_what_it_spends_most_on() -> None:
    found = plan.stages(gpu_config(steps=1000), RATES, SIZE)
    assert found["folm"].bottleneck == "learning"
    assert plan.total(found).seconds == pytest.approx(sum(stage.seconds for stage in found.values()))
    assert plan.stages(gpu_config(steps=1), RATES, SIZE)["folm"].bottleneck != "learning"
    twice = RATES.model_copy(update={"train": 16_000.0})
    assert plan.stages(gpu_config(steps=1000), twice, SIZE)["folm"].seconds < found["folm"].seconds


def test_both_retrievers_train_at_once_where_each_has_a_gpu() -> None:
    two, one = gpu_config(workers=1, ranks=1), gpu_config(workers=1, ranks=1, colocate=True)
    assert (gpus_held(two), gpus_held(one)) == (2, 1)
    alone = two.retriever.steps * two.retriever.batch / 2_000
    assert plan.stages(two, RATES, SIZE)["retriever"].seconds == pytest.approx(alone)
    assert plan.stages(one, RATES, SIZE)["retriever"].seconds == pytest.approx(2 * alone)


@pytest.mark.parametrize(
    ("config", "given", "fragments"),
    [
        (gpu_config(workers=6, ranks=4), {"gpus": 8}, ["need 10 GPUs and 8 are given", "rollout.colocate"]),
        (gpu_config(), {"gpu_gib": 10.0}, ["a learner rank needs about", "zero_stage=3", "gradient_checkpointing"]),
        (gpu_config(colocate=True), {"gpu_gib": 20.0}, ["a GPU with a rollout worker", "kv_cache_gib"]),
        (
            gpu_config(workers=6, ranks=2).model_copy(update={"scorer": Scorer(workers=2, gpus=0.5)}),
            {"gpus": 8},
            ["scorer.gpus 0.5 need 9 GPUs and 8 are given", "--set scorer.gpus=0 ", "--set rollout.workers=5 "],
        ),
        (
            gpu_config().model_copy(update={"scorer": Scorer(workers=60, gpus=0.02)}),
            {},
            ["a GPU with 50 scorers needs about 10", "a larger scorer.gpus (now 0.02)"],
        ),
        (Config(), {"memory_gib": 2.0}, ["2 are given", "learner.micro_tokens"]),
    ],
)
def test_what_cannot_fit_is_refused_with_the_change_that_helps(
    config: Config, given: dict[str, Any], fragments: list[str]
) -> None:
    limits: dict[str, Any] = {"gpus": None, "gpu_gib": 80.0, "memory_gib": None} | given
    with pytest.raises(UserError) as raised:
        plan.check_fit(config, SIZE, footprints(config, SIZE.policy, SIZE.items), **limits)
    assert [fragment for fragment in fragments if fragment not in str(raised.value)] == []


def finished_run(folder: Path, config: Config) -> dict[str, float]:
    """A run directory as a machine with known rates would leave it. Returns those rates."""
    truth = {
        "generate": 1500.0,
        "score": 600.0,
        "train": 1000.0,
        "sync": 0.1,
        "warm": 40.0,
        "start": 50.0,
        "denoise": 300.0,
        "distill": 120.0,
    }
    rl, answers = config.rl, config.rl.queries_per_step * config.rl.group_size
    validations = 1 + rl.steps // rl.validate_every
    sampled = answers + rl.validate_queries * validations / rl.steps
    busy = {
        "rollout": sampled * 40 / (truth["generate"] * config.rollout.workers),
        "score": sampled / (truth["score"] * config.scorer.workers),
        "train": answers * 40 / (truth["train"] * config.learner.ranks),
        "sync": truth["sync"],
    }
    wall = sum(busy.values())
    step = {"step/seconds": wall, "tokens/answer": 40.0} | {f"share/{name}": part / wall for name, part in busy.items()}
    per_warm_step = config.warm_start.batch / (truth["warm"] * config.learner.ranks)
    lines = [
        {"stage": "warm_start", "step": n, "time": n * per_warm_step, "values": {"loss": 1.0}}
        for n in range(50, config.warm_start.steps + 1, 50)
    ]
    lines += [{"stage": "folm", "step": n, "time": 0.0, "values": step} for n in range(1, rl.steps + 1)]
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    retriever, student = config.retriever, config.distill
    metrics = {
        "prepare": {"items": 900, "queries_train": 800, "queries_valid": 100, "queries_test": 100, "seconds": 2.0},
        "folm": {"seconds": truth["start"] + per_warm_step * config.warm_start.steps + rl.steps * wall},
        "sets": {"answers": 1600, "seconds": 64.0},
        "retriever": {"parameters": 700_000, "seconds": retriever.steps * retriever.batch / truth["denoise"]},
        "distill": {"seconds": student.steps * student.batch / truth["distill"]},
        "evaluate": {"seconds": 25.0},
    }
    for name, values in metrics.items():
        (folder / name).mkdir()
        manifest = {"config": config.model_dump(mode="json"), "metrics": values}
        (folder / name / "manifest.json").write_text(json.dumps(manifest))
    (folder / "sets" / "shard-00000.parquet").write_bytes(b"x" * 320_000)
    return truth


def test_rates_of_a_run_are_those_of_its_machine_and_predict_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(QUICKSTART, ["evaluate.queries=100", "rl.validate_queries=100"])
    truth = finished_run(tmp_path / "run", config)
    policy = policy_shape(config.policy)
    monkeypatch.setattr("r4t.rates.policy_parameters", lambda _: float(policy.parameters))
    rates = load_rates(tmp_path / "run", "cpu")
    assert {name: getattr(rates, name) for name in truth} == pytest.approx(truth)
    assert rates.synthesise == pytest.approx(3200 / 64 / 2)
    assert rates.answer_bytes == pytest.approx(100)
    assert (rates.items, rates.queries) == (900, 1000)
    size = plan.Size(items=900, queries=1000, policy=policy, retriever_parameters=700_000)
    found = plan.stages(config, rates, size)
    for name, stage in found.items():
        measured = json.loads((tmp_path / "run" / name / "manifest.json").read_text())["metrics"]["seconds"]
        assert stage.seconds == pytest.approx(measured, rel=0.01), name


def test_a_student_is_planned_where_it_is_wanted_and_from_its_teacher_where_none_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(QUICKSTART)
    finished_run(tmp_path / "run", config)
    (tmp_path / "run" / "distill" / "manifest.json").unlink()
    monkeypatch.setattr("r4t.rates.policy_parameters", lambda _: float(policy_shape(config.policy).parameters))
    rates = load_rates(tmp_path / "run", "cpu")
    size = plan.Size(items=900, queries=1000, policy=policy_shape(config.policy), retriever_parameters=700_000)
    found = plan.stages(config, rates, size)
    assert found["distill"].seconds == pytest.approx(plan.DISTILLING * 800 * 64 / 300)
    without = load_config(QUICKSTART, ["distill.enabled=false"])
    assert list(plan.stages(without, rates, size)) == ["prepare", "folm", "sets", "retriever", "evaluate"]


def test_what_starts_is_told_from_what_grows_with_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short run predicts a long one: every stage begins with seconds that do not depend on its length."""
    config = load_config(QUICKSTART, ["evaluate.queries=100", "rl.validate_queries=100", "retriever.steps=150"])
    finished_run(tmp_path / "run", config)
    monkeypatch.setattr("r4t.rates.policy_parameters", lambda _: float(policy_shape(config.policy).parameters))
    starts = {"sets": 12.0, "retriever": 20.0, "evaluate": 15.0}
    asked = 100 * len(config.evaluate.seeds)
    lines = [{"stage": "retriever", "step": n, "time": 20 + n / 10, "values": {}} for n in (50, 100, 150)]
    lines += [
        {"stage": "evaluate", "step": n, "time": n / 10, "values": {f"{n}/a": 0}} for n in range(3)
    ]  # an earlier one
    waited = 9.0  # for the engine, within the line of the first method that writes
    times = [15 - waited + n / 8 * asked / 5 + waited * (n > 4) for n in range(9)]
    lines += [{"stage": "evaluate", "step": n, "time": time, "values": {f"{n}/b": 0}} for n, time in enumerate(times)]
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    measured = {
        "sets": {"seconds": 12 + 3200 / 80, "first_shard": {"answers": 64, "seconds": 12 + 64 / 80}},
        "retriever": {"seconds": 20 + 150 / 10},
        "evaluate": {"seconds": 15 + asked / 5, "engine_seconds": waited},
    }
    for name, values in measured.items():
        path = tmp_path / "run" / name / "manifest.json"
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps(manifest | {"metrics": manifest["metrics"] | values}))
    rates = load_rates(tmp_path / "run", "cpu")
    assert {name: getattr(rates, f"{name}_start") for name in starts} == pytest.approx(starts)
    longer = load_config(QUICKSTART, ["evaluate.queries=1000", "retriever.steps=8000", "sets.samples_per_query=30"])
    size = plan.Size(items=900, queries=10_000, policy=policy_shape(config.policy), retriever_parameters=700_000)
    found = plan.stages(longer, rates, size)
    assert found["sets"].seconds == pytest.approx(12 + 2 * 8000 * 30 / 80)
    assert found["retriever"].seconds == pytest.approx(20 + 8000 / 10)
    assert found["evaluate"].seconds == pytest.approx(15 + 10 * asked / 5)


def test_rates_of_half_a_run_are_refused(tmp_path: Path) -> None:
    config = load_config(QUICKSTART)
    finished_run(tmp_path / "run", config)
    (tmp_path / "run" / "sets" / "manifest.json").unlink()
    with pytest.raises(UserError, match="no finished sets"):
        load_rates(tmp_path / "run", "cpu")


def test_a_run_too_short_to_tell_rates_is_refused(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", load_config(QUICKSTART))
    path = tmp_path / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"time": 7.0}) + "\n" for line in lines))  # no time passes
    with pytest.raises(UserError, match="too few steps to tell rates"):
        load_rates(tmp_path / "run", "cpu")


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "no rates at"),
        ("{}", "no rates for 'cpu'"),
        ('{"rates": {"cpu": {"generate": -1}}}', "not usable.*generate"),
    ],
)
def test_a_file_that_holds_no_rates_is_refused(tmp_path: Path, content: str | None, fragment: str) -> None:
    if content is not None:
        (tmp_path / "rates.json").write_text(content)
    with pytest.raises(UserError, match=fragment):
        load_rates(tmp_path / "rates.json", "cpu")


def test_the_shipped_rates_say_which_were_measured() -> None:
    assert load_rates(SHIPPED, "cpu").measured
    assert not load_rates(SHIPPED, "cuda").measured


def test_the_plan_of_the_quickstart_in_json_and_in_words() -> None:
    found = describe(load_config(QUICKSTART))
    assert list(found["stages"]) == ["prepare", "folm", "sets", "retriever", "distill", "evaluate", "total"]
    assert found["scaling"] == []
    assert json.loads(json.dumps(found)) == found
    text = io.StringIO()
    show(Console(file=text, width=200), found)
    assert "rates measured" in text.getvalue()
    assert "SIMULATED step: " in text.getvalue()
    assert found["simulation"]["simulated"]
    assert found["simulation"]["step_seconds"] >= found["simulation"]["reckoned_step_seconds"] * 0.99
    assert "assumed: " in text.getvalue()


def test_the_table_for_gpus_goes_from_1_to_512_and_says_what_is_assumed() -> None:
    config = load_config(ROOT / "cluster/kuberay/overlays/multi-node/cluster/config.yaml")
    found = describe(config, items=100_000, queries=20_000, parameters=1.7e9, gpus=24)
    assert [row["gpus"] for row in found["scaling"]] == list(plan.GPUS)
    seconds = [row["seconds"] for row in found["scaling"] if "seconds" in row]
    assert len(seconds) >= 8
    assert seconds == sorted(seconds, reverse=True)
    text = io.StringIO()
    show(Console(file=text, width=200), found)
    assert "ASSUMED, not measured" in text.getvalue()


def test_sizes_that_are_not_known_are_asked_for() -> None:
    table = parse_config({"data": {"kind": "table", "items": "/absent/items.parquet"}})
    with pytest.raises(UserError, match="--items and --queries"):
        describe(table)


def test_rates_of_another_kind_of_machine_are_refused(tmp_path: Path) -> None:
    wrong = json.loads(SHIPPED.read_text())
    wrong["rates"]["cuda"] = wrong["rates"]["cpu"]
    (tmp_path / "rates.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"cluster\.device=cpu"):
        describe(gpu_config(), rates=tmp_path / "rates.json")


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (270, "4.5 min"), (24_120, "6.7 h")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
