"""`r4t retrieve`: one query against a finished run, as a table or as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.devices import role_environment
from cluster.engine import open_engine
from jobs.policies import POLICY_OF, PolicySwitch, build_methods, check_methods, product
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.catalog.encoders import Encoder, run_encoder
from r4t.catalog.index import open_index
from r4t.catalog.source import normalise
from r4t.config import Config, load_config
from r4t.errors import UserError
from r4t.methods import QueryBatch
from r4t.types import Completion, Query, RetrievedSets


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One retrieved item."""

    item_id: str
    name: str
    text: str
    score: float
    """Cosine of the item with the query."""
    direction: str
    """The sub-query that found it, or `row 3` of the generated set, or an empty string."""


def retrieve(run_folder: Path, query: str, k: int | None = None, method: str | None = None, seed: int = 0) -> list[Hit]:
    """The set of items for `query`, k of them (the run's `fanout.k` when None, which is also the most).

    method None: the student where the run has one, else its teacher. Only methods that write text start a
    language-model engine; the compiled retriever needs neither it nor Ray. Raises UserError for an empty query, an
    unknown method, a stage that has not run, or k out of range.
    """
    config = config_of(run_folder)
    method = method or product(run_folder)
    wanted = _checked(query, k, method, config)
    dataset, sets = answer(run_folder, config, query, method, seed)
    return hits(dataset, sets)[:wanted]


def answer(run_folder: Path, config: Config, query: str, method: str, seed: int) -> tuple[Dataset, RetrievedSets]:
    """One method's set [1, k, n] for `query`, and the run's dataset with the query added, last."""
    check_methods([method], run_folder)
    encoder = run_encoder(config, run_folder / "prepare")
    facts = (*config.objective.columns, config.objective.category_column)
    dataset = with_query(load_dataset(run_folder / "prepare", facts), query.strip(), encoder)
    policies = local_policies(run_folder / "folm", config) if method in POLICY_OF else None
    index = open_index(run_folder / "prepare", dataset.item_vectors, config.index)
    built = build_methods([method], config, run_folder, dataset, encoder, policies, index)[method]
    return dataset, built.retrieve(QueryBatch.of_rows(dataset, [len(dataset.queries) - 1]), seed)


def with_query(dataset: Dataset, query: str, encoder: Encoder) -> Dataset:
    """The dataset with one more query, last, that belongs to no split. It has the references of a known query of its
    text, if there is one."""
    known = {normalise(other.text): other.references for other in dataset.queries}
    asked = Query(query_id="", text=query, split="", references=known.get(normalise(query), ()))
    vectors = np.concatenate([dataset.query_vectors, encoder.encode([query])])
    return replace(dataset, queries=[*dataset.queries, asked], query_vectors=vectors)


def hits(dataset: Dataset, sets: RetrievedSets) -> list[Hit]:
    """The shown items of the first set, each item once, in the method's order."""
    shown = sets.items[0, :, 0]
    scores = dataset.item_vectors[shown] @ dataset.query_vectors[-1]
    found: dict[int, Hit] = {}
    for place, (row, score) in enumerate(zip(shown.tolist(), scores.tolist(), strict=True)):
        found.setdefault(
            row,
            Hit(
                item_id=dataset.item_ids[row],
                name=dataset.item_names[row],
                text=dataset.item_texts[row],
                score=round(score, 4),
                direction=found_by(sets, place),
            ),
        )
    return list(found.values())


def local_policies(folm: Path, config: Config) -> PolicySwitch:
    """The run's policies in an engine inside this process."""
    os.environ.update(role_environment("rollout", config))
    engine = open_engine(folm / "warm_start", config)

    def generate(queries: Sequence[tuple[int, str]], samples: int, temperature: float, seed: int) -> list[Completion]:
        return engine.generate(queries, samples=samples, temperature=temperature, seed=seed)

    return PolicySwitch(folm, generate, engine.load_weights)


def as_json(query: str, method: str, found: Sequence[Hit]) -> dict[str, Any]:
    """What `--json` prints."""
    return {"schema": 1, "query": query, "method": method, "items": [asdict(hit) for hit in found]}


def show(console: Console, query: str, method: str, found: Sequence[Hit]) -> None:
    """Prints the set as a table. Names come from the catalogue, so they are printed as text, never as markup."""
    table = Table(title=Text(f"{query}  ({method})"), title_justify="left", expand=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("item")
    table.add_column("cos", justify="right")
    directed = any(hit.direction for hit in found)
    if directed:
        table.add_column("found by", style="dim")
    for place, hit in enumerate(found, 1):
        cells = [Text(str(place)), Text(hit.name), Text(f"{hit.score:.2f}")]
        table.add_row(*cells, *([Text(hit.direction)] if directed else []))
    console.print(table)


def found_by(sets: RetrievedSets, place: int) -> str:
    """What found the item in that place of the first set, in words; empty for a method without directions."""
    if sets.valid is not None and not sets.valid[0]:
        return "the plain query (unusable answer)"
    if sets.subqueries is not None:
        return sets.subqueries[0][place]
    return f"row {place + 1}" if sets.directions is not None else ""


def _checked(query: str, k: int | None, method: str, config: Config) -> int:
    check_query(query)
    if method == "best_of_n" and config.objective.kind == "coverage":
        raise UserError(
            "best_of_n chooses by coverage of reference items, which a new query does not have: use r4t_folm"
        )
    if k is not None and not 1 <= k <= config.fanout.k:
        raise UserError(f"-k {k} is out of range: this run retrieves sets of 1 to {config.fanout.k} items (fanout.k)")
    return k or config.fanout.k


def check_query(query: str) -> None:
    """Raises UserError for a query without words."""
    if not query.strip():
        raise UserError('the query is empty: give a few words, for example "light summer lunch"')


def config_of(run_folder: Path) -> Config:
    """The configuration of a run directory. Raises UserError for another folder."""
    path = run_folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{path.parent} is no run directory ({path.name} is missing): give the folder that `r4t run` made"
        )
    return load_config(path)
