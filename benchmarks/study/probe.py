"""Two things that an evaluation does not show: latency by batch size, and every method's set for given queries.

    python -m benchmarks.study.probe RUN --study benchmarks/study/tiny.yaml

Every method answers in this process, the language model with every core. Writes RUN/probe.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.plan import Probe, load_study
from cluster.devices import cores
from jobs.evaluate import WARM_UP, query_rows
from jobs.pipeline import locked
from jobs.policies import POLICY_OF, PolicySwitch, available_methods, build_methods
from jobs.retrieve import config_of, local_policies, with_query
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import Encoder, run_encoder
from r4t.catalog.index import ExactIndex
from r4t.config import Config
from r4t.errors import UserError
from r4t.evaluation.cost import cost_per_thousand
from r4t.evaluation.evaluate import sample
from r4t.evaluation.latency import Answer, measure_latency
from r4t.evaluation.stopwatch import Stopwatch, TimedEncoder, TimedIndex
from r4t.lineage import is_finished, write_json, write_manifest
from r4t.methods import QueryBatch, SetRetriever

STAGE = "probe"
UNTIMED = ("zero_shot", "best_of_n", "zero_shot_diffusion", "random", "popular", "r4t_diffusion_reference")
"""Methods that are not timed: they answer as another one does, or nobody would wait for them."""


def probe(run_folder: Path, settings: Probe, policies: PolicySwitch | None = None) -> None:
    """Measures a run whose retriever is finished. `policies`: the run's own, None: in an engine in this process.

    Raises UserError for another run.
    """
    config = config_of(run_folder)
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"threads": None})})
    if not is_finished(run_folder / "retriever"):
        raise UserError(f"{run_folder} has no finished retriever: run its stages first")
    facts = (*config.objective.columns, config.objective.category_column)
    dataset, encoder = load_dataset(run_folder / "prepare", facts), run_encoder(config, run_folder / "prepare")
    rows = query_rows(config, dataset)
    known = len(dataset.queries)
    for text in settings.queries.get(config.fanout.domain, ()):
        dataset = with_query(dataset, text, encoder)
    names = available_methods(run_folder, config)
    if config.task == "wscr":
        names = [name for name in names if name != "best_of_n"]  # it would choose by the references of the answer
    if policies is None and set(names) & POLICY_OF.keys():
        policies = local_policies(run_folder / "folm", config)
    watch = Stopwatch()
    encoder, index = TimedEncoder(encoder, watch), TimedIndex(ExactIndex(dataset.item_vectors), watch)
    methods = build_methods(names, config, run_folder, dataset, encoder, policies, index)
    run = Run(run_folder, config)
    try:
        sets = gallery(dataset, methods, range(known, len(dataset.queries)))
        texts = [dataset.queries[row].text for row in rows]
        latency = times(run, settings, encoder, methods, watch, texts)
    finally:
        run.close()
    folder = run.stage_folder(STAGE)
    write_json(folder / "metrics.json", {"schema": 1, "setup": setup(config, settings), "latency_ms": latency})
    write_json(folder / "sets.json", sets)
    made = ("prepare", "folm", "retriever", "distill")
    inputs = {name: run_folder / name for name in made if is_finished(run_folder / name)}
    files = ["metrics.json", "sets.json"]
    write_manifest(folder, stage=STAGE, config=config.model_dump(mode="json"), inputs=inputs, files=files, metrics={})


def gallery(dataset: Dataset, methods: dict[str, SetRetriever], asked: Sequence[int]) -> list[dict[str, Any]]:
    """For each of the rows `asked`, every method's items and sub-queries (seed 0)."""
    if not len(asked):
        return []
    batch = QueryBatch.of_rows(dataset, asked)
    found = {name: method.retrieve(batch, 0) for name, method in methods.items()}
    return [
        {
            "query": text,
            "methods": {name: sample(dataset.item_names, sets, place) for name, sets in found.items()},
        }
        for place, text in enumerate(batch.texts)
    ]


def times(
    run: Run,
    settings: Probe,
    encoder: Encoder,
    methods: dict[str, SetRetriever],
    watch: Stopwatch,
    texts: Sequence[str],
) -> dict[str, dict[str, dict[str, float]]]:
    """`{method: {batch: {"p50", "p95", "own_p50", "own_p95", "cost_per_1000"}}}`, milliseconds and dollars."""

    def timed(method: SetRetriever) -> Answer:
        return lambda asked: method.retrieve(QueryBatch.encoded(np.arange(len(asked)), asked, encoder), 0)

    with run.progress("latency", len(settings.batches) * (WARM_UP + settings.repeats)) as bar:
        latency = measure_latency(
            {name: timed(method) for name, method in methods.items() if name not in UNTIMED},
            texts,
            batches=settings.batches,
            repeats=settings.repeats,
            warmup=WARM_UP,
            advance=bar.advance,
            shared=lambda: watch.seconds,
        )
    price = run.config.evaluate.price_per_core_hour
    for batches in latency.values():
        for batch, cell in batches.items():
            cell["cost_per_1000"] = round(cost_per_thousand(cell["p50"], int(batch), cores(), price), 8)
    return latency


def setup(config: Config, settings: Probe) -> dict[str, Any]:
    """What the times depend on."""
    return {
        "includes": "query encoding, generation or sampling, search",
        "own": "the same without encoding and without search",
        "warm_up": WARM_UP,
        "repeats": settings.repeats,
        "device": config.cluster.device,
        "cores": cores(),
        "dtype": {"rollout": config.rollout.dtype, "retriever": "float32"},
        "price_per_core_hour": config.evaluate.price_per_core_hour,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--study", type=Path, required=True)
    a = parser.parse_args()
    try:
        settings = load_study(a.study).probe
        with locked(a.run):
            probe(a.run, settings)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
