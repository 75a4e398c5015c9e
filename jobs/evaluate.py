"""Stage evaluate: every method on the same held-out queries, k and database -> `metrics.json` and `samples.json`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from cluster.devices import cores
from cluster.single_rollout import SingleRollout
from jobs.policies import POLICY_OF, PolicySwitch, available_methods, build_methods, check_methods
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import Encoder, run_encoder
from r4t.catalog.fill_in_blank import read_blanks
from r4t.catalog.index import ExactIndex
from r4t.config import Config
from r4t.errors import UserError
from r4t.evaluation import evaluate as ev
from r4t.evaluation.checks import run_checks
from r4t.evaluation.cost import ASSUMPTION, cost_per_thousand
from r4t.evaluation.deviations import dataset_name, deviations, judge_name
from r4t.evaluation.judge import Judge, judge_encoder
from r4t.evaluation.latency import Answer, measure_latency
from r4t.evaluation.measure import Yardstick
from r4t.evaluation.metrics import paper_depth
from r4t.evaluation.outfits import given_blanks, made_blanks
from r4t.evaluation.shown import FILE as SHOWN
from r4t.evaluation.shown import write_shown
from r4t.evaluation.stopwatch import Stopwatch, TimedEncoder, TimedIndex
from r4t.evaluation.tuning import GRIDS, choose
from r4t.lineage import is_finished, write_json, write_manifest, write_tensors
from r4t.methods import Diffusion, QueryBatch, SetRetriever
from r4t.types import Floats, Ints, RetrievedSets

RIVALS = ("no_fanout", "mmr", "dpp", "kmeans", "prf", "bm25")
FIXED = ("popular", *RIVALS)  # answer alike under every seed
COMPILED = ("r4t_diffusion", "r4t_diffusion_reference", "r4t_distilled")
TIMED = (*RIVALS, "r4t_folm", *COMPILED)
REPEATED = ("zero_shot", "r4t_folm", *COMPILED, "zero_shot_diffusion")
RUNS = 5  # independent runs behind the Vendi Score of paper App. B.2
WARM_UP = 2
TUNING_QUERIES = 200
VALUES = "values.safetensors"  # every metric query by query: what tests of differences need


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one method retrieved."""

    runs: list[RetrievedSets]
    """One per seed."""
    repeated: list[RetrievedSets]
    """Independent runs (WSCR), or none."""


def main(config: Config, run: Run, methods: Sequence[str] | None = None, again: bool = False) -> None:
    """Evaluates `methods`, or all that the run has artefacts for. A finished stage is redone only with `again`.

    Raises UserError for an unknown method, one whose stage has not run, or a split without queries.
    """
    folder = run.stage_folder("evaluate")
    if is_finished(folder) and not again:
        run.say("evaluate: already finished")
        return
    names = list(methods) if methods else available_methods(run.folder, config)
    check_methods(names, run.folder)
    policies = start_policies(config, run) if set(names) & POLICY_OF.keys() else None
    evaluate(config, run, names, policies)


def evaluate(config: Config, run: Run, names: Sequence[str], policies: PolicySwitch | None) -> None:
    """Everything but the choice of methods and the start of the engine behind `policies`."""
    start = time.monotonic()
    folder = run.stage_folder("evaluate")
    dataset = load_dataset(run.folder / "prepare", (*config.objective.columns, config.objective.category_column))
    encoder = run_encoder(config, run.folder / "prepare")
    yardstick = make_yardstick(config, dataset, Judge(judge_encoder(config), dataset, folder / "judge.safetensors"))
    config, tuned = tune(config, run, dataset, names)
    watch = Stopwatch()
    encoder, index = TimedEncoder(encoder, watch), TimedIndex(ExactIndex(dataset.item_vectors), watch)
    depth = max(config.fanout.n, yardstick.paper_n or 1)
    methods = build_methods(names, config, run.folder, dataset, encoder, policies, index, depth)
    values, answers = compare(config, run, yardstick, methods)
    if depth > config.fanout.n:  # only metrics look deeper: nobody waits for it
        methods = build_methods(names, config, run.folder, dataset, encoder, policies, index)
    latency = time_methods(config, run, yardstick, methods, encoder, watch)
    result = describe(config, run, yardstick, methods, encoder) | results(config, yardstick, values, answers, latency)
    result["tuned"] = tuned
    held = sum(check["holds"] for check in result["checks"])
    write_tensors(folder / VALUES, ev.value_tensors(values))
    write_json(folder / "metrics.json", result)
    write_json(folder / "samples.json", ev.sample_sets(yardstick, {name: a.runs[0] for name, a in answers.items()}))
    write_shown(folder, yardstick.query_rows, {name: a.runs[0] for name, a in answers.items()})
    write_manifest(
        folder,
        stage="evaluate",
        config=config.model_dump(mode="json"),
        inputs={
            name: run.folder / name
            for name in ("prepare", "folm", "retriever", "distill")
            if is_finished(run.folder / name)
        },
        files=["metrics.json", "samples.json", SHOWN, VALUES, "judge.safetensors"],
        metrics={
            "seconds": round(time.monotonic() - start, 2),
            "engine_seconds": round(policies.waited(), 2) if policies else 0.0,
            "checks_held": held,
        },
    )
    run.say(f"evaluate: {held} of {len(result['checks'])} checks hold, {time.monotonic() - start:.1f} s")


def make_yardstick(config: Config, dataset: Dataset, judge: Judge) -> Yardstick:
    """What all methods are measured with. Raises UserError for a split without queries or unusable questions."""
    rows = query_rows(config, dataset)
    plain = Yardstick(dataset=dataset, query_rows=rows, objective=config.objective, task=config.task, judge=judge)
    references = plain.references
    if references is None:
        return plain
    path = config.evaluate.fill_in_blank
    return replace(
        plain,
        n=config.fanout.n,
        paper_n=paper_depth(config.fanout.k, len(dataset.item_ids)),
        blanks=given_blanks(read_blanks(path), references, dataset.item_ids)
        if path
        else made_blanks(references, config.data.seed),
    )


def query_rows(config: Config, dataset: Dataset) -> Ints:
    """Rows of at most `evaluate.queries` queries of the split, ascending: a fixed random choice when there are more.

    Runs that differ in the top-level seed share it, as they share their data.
    """
    rows = usable_rows(config, dataset, config.evaluate.split, config.evaluate.queries)
    if len(rows) < 2:
        raise UserError(
            f"the split '{config.evaluate.split}' has {len(rows)} usable queries, evaluation needs at least 2"
        )
    return rows


def usable_rows(config: Config, dataset: Dataset, split: str, most: int) -> Ints:
    """Rows of the split's queries that the task can measure, ascending, `most` of them at most."""
    rows = dataset.split(split)
    if config.task == "wscr":
        rows = rows[[len(dataset.queries[row].references) > 0 for row in rows]] if len(rows) else rows
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(config.data.seed).choice(rows, most, replace=False))
    return rows


def tune(config: Config, run: Run, dataset: Dataset, names: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    """The configuration with the rivals' trade-offs chosen on validation queries, and how they were chosen.

    Nothing is chosen where `evaluate.tune_rivals` is off, where validation queries are what is evaluated, or where
    there are none.
    """
    rows = usable_rows(config, dataset, "valid", TUNING_QUERIES)
    if not config.evaluate.tune_rivals or config.evaluate.split == "valid" or len(rows) < 2:
        return config, {}
    yardstick = Yardstick(dataset=dataset, query_rows=rows, objective=config.objective, task=config.task)
    fanout, settings = config.fanout, config.evaluate
    index = ExactIndex(dataset.item_vectors)
    choices = {name: choose(name, yardstick, index, settings, fanout.k, fanout.n) for name in names if name in GRIDS}
    for name, choice in choices.items():
        run.say(f"evaluate: {name} tuned on {len(rows)} validation queries, {choice.key} {choice.value:g}")
    chosen = {choice.key: choice.value for choice in choices.values()}
    tuned = config.model_copy(update={"evaluate": settings.model_copy(update=chosen)})
    return tuned, {name: asdict(choice) for name, choice in choices.items()}


def start_policies(config: Config, run: Run) -> PolicySwitch:
    """One rollout worker for both policies, so that a second engine never competes for memory."""
    folm = run.folder / "folm"
    worker = SingleRollout(config, folm / "warm_start", lambda text: run.say(f"evaluate: {text}"))
    return PolicySwitch(folm, worker.generate, worker.load_weights, waited=lambda: worker.waited)


def compare(
    config: Config, run: Run, yardstick: Yardstick, methods: dict[str, SetRetriever]
) -> tuple[dict[str, dict[str, Floats]], dict[str, Answers]]:
    """Retrieves with every method and seed, and measures. Returns per-query values and the sets."""
    queries = QueryBatch.of_rows(yardstick.dataset, yardstick.query_rows)
    values: dict[str, dict[str, Floats]] = {}
    answers: dict[str, Answers] = {}
    with run.progress("evaluate", len(methods)) as bar:
        for step, (name, method) in enumerate(methods.items()):
            start = time.monotonic()
            answers[name] = answer(config, method, queries)
            values[name] = ev.method_values(yardstick, answers[name].runs, answers[name].repeated)
            means = {metric: float(np.nanmean(v)) for metric, v in values[name].items() if not np.isnan(v).all()}
            shown = ("reward", "recall", "diversity", "content_alignment", "judge.diversity", "judge.alignment")
            numbers = "  ".join(f"{metric} {means[metric]:.3f}" for metric in shown if metric in means)
            line = f"evaluate {name:<20} {numbers}  {time.monotonic() - start:.1f} s"
            run.log("evaluate", step, {f"{name}/{metric}": mean for metric, mean in means.items()}, line)
            bar.advance()
    return values, answers


def answer(config: Config, method: SetRetriever, queries: QueryBatch) -> Answers:
    """One method's sets for every seed, and its independent runs where the task measures diversity over them."""
    seeds = config.evaluate.seeds[:1] if method.name in FIXED else config.evaluate.seeds
    runs = [method.retrieve(queries, seed) for seed in seeds]
    if config.task != "wscr" or method.name not in REPEATED:
        return Answers(runs=runs, repeated=[])
    more = [method.retrieve(queries, 1000 * (1 + seeds[0]) + i) for i in range(1, RUNS)]
    return Answers(runs=runs, repeated=[runs[0], *more])


def time_methods(
    config: Config,
    run: Run,
    yardstick: Yardstick,
    methods: dict[str, SetRetriever],
    encoder: Encoder,
    watch: Stopwatch,
) -> dict[str, dict[str, dict[str, float]]]:
    """Latency from query text to items, methods taking turns, and what 1,000 queries cost at its median."""

    def timed(method: SetRetriever) -> Answer:
        return lambda texts: method.retrieve(QueryBatch.encoded(np.arange(len(texts)), texts, encoder), seed=0)

    repeats = config.evaluate.latency_repeats
    with run.progress("latency", len(config.evaluate.latency_batches) * (WARM_UP + repeats)) as bar:
        latency = measure_latency(
            {name: timed(methods[name]) for name in TIMED if name in methods},
            [yardstick.dataset.queries[row].text for row in yardstick.query_rows],
            batches=config.evaluate.latency_batches,
            repeats=repeats,
            warmup=WARM_UP,
            advance=bar.advance,
            shared=lambda: watch.seconds,
        )
    price = config.evaluate.price_per_core_hour
    for batches in latency.values():
        for batch, cell in batches.items():
            cell["cost_per_1000"] = round(cost_per_thousand(cell["p50"], int(batch), cores(), price), 8)
    return latency


def results(
    config: Config,
    yardstick: Yardstick,
    values: dict[str, dict[str, Floats]],
    answers: dict[str, Answers],
    latency: dict[str, dict[str, dict[str, float]]],
) -> dict[str, Any]:
    """The measured half of `metrics.json`."""
    cells: dict[str, dict[str, Any]] = {}
    for name, per_query in values.items():
        cells[name] = ev.method_cells(per_query, answers[name].runs[0].items[:, :, 0])
        if name in latency:
            cells[name]["latency_ms"] = latency[name]
    floors = ev.floors(yardstick, config.fanout.k, config.fanout.n)
    if "random" in cells and "recall" in floors:
        cells["random"]["recall_floor"] = floors["recall"]
    return {
        "floors": floors,
        "methods": cells,
        "against_zero_shot": ev.comparisons(values),
        "checks": run_checks(config.task, values, latency),
    }


def describe(
    config: Config, run: Run, yardstick: Yardstick, methods: dict[str, SetRetriever], encoder: Encoder
) -> dict[str, Any]:
    """The half of `metrics.json` that says what was measured, with what, and how it departs from the paper."""
    n_items, n_queries = len(yardstick.dataset.item_ids), len(yardstick.query_rows)
    weights = run.folder / "folm" / "policy" / "model.safetensors"
    policy_parameters = parameters(weights) if weights.is_file() else None
    found: dict[str, Any] = {
        "schema": 1,
        "dataset": dataset_name(config),
        "task": config.task,
        "split": config.evaluate.split,
        "n_queries": n_queries,
        "seeds": list(config.evaluate.seeds),
        "k": config.fanout.k,
        "n": config.fanout.n,
        "database_items": n_items,
        "paper_n": yardstick.paper_n,
        "encoder": f"{encoder.name}, {encoder.dim} columns",
        "judge_encoder": f"{judge_name(config)}, item names",
        "policy": config.policy.model.name if config.policy.model else "llama, trained from scratch",
        "temperature": config.evaluate.temperature,
        "objective": config.objective.model_dump(mode="json"),
        "latency_setup": {
            "includes": "query encoding, generation or sampling, search",
            "own": "the same without query encoding and without search in the index",
            "price_per_core_hour": config.evaluate.price_per_core_hour,
            "cost_assumes": ASSUMPTION,
            "warm_up": WARM_UP,
            "repeats": config.evaluate.latency_repeats,
            "device": config.cluster.device,
            "cores": cores(),
            "threads": {"driver": torch.get_num_threads(), "rollout": config.rollout.threads or cores()},
            "dtype": {"rollout": config.rollout.dtype, "retriever": "float32"},
        },
        "deviations": deviations(config, n_items=n_items, n_queries=n_queries, policy_parameters=policy_parameters),
    }
    if policy_parameters is not None:
        found["policy_parameters"] = policy_parameters
    diffusion = methods.get("r4t_diffusion")
    if isinstance(diffusion, Diffusion):
        sampler = diffusion.sampler
        settings = config.retriever.sampler
        found["retriever_parameters"] = sum(p.numel() for p in sampler.denoiser.parameters())
        found["sampler"] = {"name": settings.name, "nfe": sampler.nfe, "guidance": sampler.guidance}
    student = methods.get("r4t_distilled")
    if isinstance(student, Diffusion):
        found["student"] = {"nfe": student.sampler.nfe}
    return found


def parameters(weights: Any) -> int:
    """Number of values in a safetensors file; tied weights are stored, and so counted, once."""
    with safe_open(str(weights), framework="numpy") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118 (not a dict)
