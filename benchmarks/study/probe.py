"""Two things that an evaluation does not show: latency by batch size, and every method's set for given queries.

    python -m benchmarks.study.probe RUN --study benchmarks/study/tiny.yaml

Every method answers in this process, the language model with every core. Times are taken twice: from query text to
items, and of the model alone (no encoding of the query, no search). Writes RUN/probe.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.plan import Probe, load_study
from cluster.devices import cores
from jobs.evaluate import WARM_UP, query_rows
from jobs.pipeline import locked
from jobs.policies import POLICY_OF, PolicySwitch, available_methods, build_methods
from jobs.retrieve import config_of, local_policies, with_query
from jobs.run import Run
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import Encoder, run_encoder
from r4t.config import Config
from r4t.errors import UserError
from r4t.evaluation.evaluate import sample
from r4t.evaluation.latency import Answer, measure_latency
from r4t.lineage import is_finished, write_json, write_manifest
from r4t.methods import Diffusion, QueryBatch, SetRetriever

STAGE = "probe"
SLOW = ("zero_shot", "best_of_n", "zero_shot_diffusion", "random", "popular", "r4t_diffusion_reference")
"""Methods that are not timed: they answer as another one does, or nobody would wait for them."""


def probe(run_folder: Path, settings: Probe) -> None:
    """Measures a run whose retriever is finished. Raises UserError for another."""
    config = config_of(run_folder)
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"threads": None})})
    if not is_finished(run_folder / "retriever"):
        raise UserError(f"{run_folder} has no finished retriever: run its stages first")
    dataset, encoder = load_dataset(run_folder / "prepare"), run_encoder(config, run_folder / "prepare")
    rows = query_rows(config, dataset)
    for text in settings.queries.get(config.fanout.domain, ()):
        dataset = with_query(dataset, text, encoder)
    asked = np.arange(len(dataset.queries) - len(settings.queries.get(config.fanout.domain, ())), len(dataset.queries))
    names = available_methods(run_folder, config)
    if config.task == "wscr":
        names = [name for name in names if name != "best_of_n"]  # it would choose by the references of the answer
    policies = local_policies(run_folder / "folm", config) if set(names) & POLICY_OF.keys() else None
    methods = build_methods(names, config, run_folder, dataset, encoder, policies)
    run = Run(run_folder, config)
    try:
        sets = gallery(dataset, methods, asked)
        texts = [dataset.queries[row].text for row in rows]
        latency = times(run, settings, encoder, methods, policies, texts)
    finally:
        run.close()
    folder = run.stage_folder(STAGE)
    write_json(folder / "metrics.json", {"schema": 1, "setup": setup(config, settings), "latency_ms": latency})
    write_json(folder / "sets.json", sets)
    inputs = {name: run_folder / name for name in ("prepare", "folm", "retriever")}
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
    policies: PolicySwitch | None,
    texts: Sequence[str],
) -> dict[str, Any]:
    """`{method: {"whole" | "model": {batch: {"p50", "p95"}}}}` in milliseconds, all taking turns."""
    known = dict(zip(texts, encoder.encode(list(texts)), strict=True))

    def batch(asked: Sequence[str]) -> QueryBatch:
        vectors = np.stack([known[text] for text in asked])
        return QueryBatch(rows=np.arange(len(asked)), texts=tuple(asked), vectors=vectors)

    def whole(method: SetRetriever) -> Answer:
        return lambda asked: method.retrieve(QueryBatch.encoded(np.arange(len(asked)), asked, encoder), 0)

    def model(method: Diffusion) -> Answer:
        return lambda asked: method.sampler.sample(
            torch.from_numpy(batch(asked).vectors), torch.Generator().manual_seed(0)
        )

    answers = {(name, "whole"): whole(method) for name, method in methods.items() if name not in SLOW}
    answers |= {
        (name, "model"): model(method)
        for name, method in methods.items()
        if isinstance(method, Diffusion) and name not in SLOW
    }
    if policies is not None:
        generate, temperature = policies.as_policy("policy"), run.config.evaluate.temperature
        answers["r4t_folm", "model"] = lambda asked: generate(batch(asked), 1, temperature, 0)
    with run.progress("latency", len(settings.batches) * (WARM_UP + settings.repeats)) as bar:
        taken = measure_latency(
            {"/".join(key): answer for key, answer in answers.items()},
            texts,
            batches=settings.batches,
            repeats=settings.repeats,
            warmup=WARM_UP,
            advance=bar.advance,
        )
    found: dict[str, Any] = {}
    for key, value in taken.items():
        name, _, what = key.rpartition("/")
        found.setdefault(name, {})[what] = value
    return found


def setup(config: Config, settings: Probe) -> dict[str, Any]:
    """What the times depend on."""
    return {
        "whole": "query encoding, generation or sampling, search",
        "model": "generation or sampling alone",
        "warm_up": WARM_UP,
        "repeats": settings.repeats,
        "device": config.cluster.device,
        "cores": cores(),
        "dtype": {"rollout": config.rollout.dtype, "retriever": "float32"},
        "price_per_core_hour": settings.price_per_core_hour,
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
