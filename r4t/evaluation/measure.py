"""Everything that is measured about one method's sets, query by query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.config import Objective, Task
from r4t.evaluation import metrics, outfits
from r4t.evaluation.judge import Judge
from r4t.objective.compose import inverse_frequency_weights, score_sets
from r4t.objective.facts import item_facts
from r4t.objective.inputs import SetInputs
from r4t.objective.vendi import vendi
from r4t.types import Floats, Ints, RetrievedSets

DIRECTION_TERMS = ("groundedness", "alignment")
ROW_TERMS = {"groundedness": "manifold", "alignment": "row_alignment"}
"""What the terms of directions are called when the directions are generated rows: no text grounds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """The queries and the rules that all methods are measured with."""

    dataset: Dataset
    query_rows: Ints
    """[B] rows of the dataset's queries."""
    objective: Objective
    task: Task
    judge: Judge | None = None
    n: int | None = None
    """Items of each list that every metric looks at but those of the paper's depth; None: all."""
    paper_n: int | None = None
    """Items of each list behind `recall_5k` and `hit_5k`; None: these are not measured."""
    blanks: Ints | None = None
    """[B, 4] fill-in-the-blank candidates, the right one first; -1 where a query has no question."""

    @property
    def references(self) -> list[tuple[int, ...]] | None:
        if self.task != "wscr":
            return None
        return [self.dataset.queries[row].references for row in self.query_rows]

    def item_weights(self) -> Floats:
        """[N] coverage weights of the objective."""
        if self.objective.coverage_weighting == "inverse_frequency":
            return inverse_frequency_weights(self.dataset.item_frequencies())
        return np.ones(len(self.dataset.item_vectors), dtype=np.float32)


def measure(yardstick: Yardstick, sets: RetrievedSets, seed: int = 0) -> dict[str, Floats]:
    """Per-query values [B] of every metric that applies; judged ones are prefixed `judge.`.

    A set whose answer was invalid counts with the items that the user got instead, so a metric of items has no gap.
    Terms of directions leave it out, and a reward that needs directions is the objective's invalid reward.
    """
    deep, sets = sets, replace(sets, items=sets.items[:, :, : yardstick.n])
    values = _objective_terms(yardstick, sets)
    values |= _labels(yardstick, sets) | {"content_alignment_shuffled": _shuffled_alignment(yardstick, sets, seed)}
    values["distinct_items"] = metrics.distinct_share(sets.items[:, :, 0])
    if sets.valid is not None:
        values["invalid"] = (~sets.valid).astype(np.float32)
    if (references := yardstick.references) is not None:
        values |= _coverage(yardstick, sets.items, references, seed)
        if yardstick.paper_n is not None:
            pool = deep.items[:, :, : yardstick.paper_n]
            uniform = np.ones(len(yardstick.dataset.item_vectors), dtype=np.float32)
            values["recall_5k"] = metrics.recall(pool, references, uniform)
            values["hit_5k"] = metrics.hit(pool, references)
    if yardstick.judge is not None:
        judged = yardstick.judge.score(yardstick.query_rows, sets)
        values |= {f"judge.{name}": scores for name, scores in judged.items()}
    return values


def run_diversity(runs: Sequence[RetrievedSets]) -> dict[str, Floats]:
    """Diversity over independent runs of one method, `vendi_runs` and `vendi_rows`; empty without directions."""
    directions = [run.directions for run in runs if run.directions is not None]
    if len(directions) != len(runs) or not runs:
        return {}
    means, rows = metrics.vendi_over_runs(np.stack(directions))
    return {"vendi_runs": means, "vendi_rows": rows}


def set_inputs(yardstick: Yardstick, sets: RetrievedSets) -> SetInputs:
    """What the objective sees of `sets`. Items stand in for directions that are absent or of an invalid answer."""
    vectors = yardstick.dataset.item_vectors
    content = vectors[sets.items[:, :, 0]]
    usable = np.ones(len(content), dtype=bool) if sets.valid is None else sets.valid
    directions = content if sets.directions is None else np.where(usable[:, None, None], sets.directions, content)
    return SetInputs(
        query=yardstick.dataset.query_vectors[yardstick.query_rows],
        directions=directions,
        items=sets.items,
        top_cosine=np.einsum("bkd,bkd->bk", directions, content),
        item_vectors=vectors,
        references=yardstick.references,
        item_weights=yardstick.item_weights() if yardstick.task == "wscr" else None,
        facts=item_facts(yardstick.dataset.facts, yardstick.objective, yardstick.dataset.item_frequencies()),
    )


def _objective_terms(yardstick: Yardstick, sets: RetrievedSets) -> dict[str, Floats]:
    """The reward and its terms, without those of directions where a method has none."""
    inputs = set_inputs(yardstick, sets)
    content = inputs.content
    usable = np.ones(len(content), dtype=bool) if sets.valid is None else sets.valid
    scores = score_sets(inputs, yardstick.objective)
    values = {name: term for name, term in scores.terms.items() if name not in (*DIRECTION_TERMS, "coverage")}
    values["diversity"] = vendi(content) / content.shape[1]
    needs_directions = _needs_directions(yardstick.objective)
    if sets.directions is not None:
        written = sets.subqueries is not None
        for name in DIRECTION_TERMS:
            values[name if written else ROW_TERMS[name]] = np.where(usable, scores.terms[name], np.nan)
        invalid = yardstick.objective.invalid_reward
        values["reward"] = np.where(usable, scores.reward, invalid) if needs_directions else scores.reward
    elif not needs_directions:
        values["reward"] = scores.reward
    return values


def _labels(yardstick: Yardstick, sets: RetrievedSets) -> dict[str, Floats]:
    """What the labels of the items say, where the catalogue has them."""
    values = {}
    facts = item_facts(yardstick.dataset.facts, yardstick.objective, yardstick.dataset.item_frequencies())
    references = yardstick.references
    if facts.kinds is not None and facts.categories:
        shown = facts.kinds[sets.items[:, :, 0]]
        values["categories"] = outfits.category_share(shown)
        if references is not None:
            wanted = [facts.kinds[list(reference)] for reference in references]
            values["category_coverage"] = outfits.category_coverage(shown, wanted)
    if yardstick.blanks is not None:
        rows = set_inputs(yardstick, sets).directions
        values["fill_in_blank"] = outfits.fill_in_blank(rows, yardstick.blanks, yardstick.dataset.item_vectors)
    return values


def _shuffled_alignment(yardstick: Yardstick, sets: RetrievedSets, seed: int) -> Floats:
    """[B]: cosine of the shown items with *another* query: what a method that ignores its query also reaches."""
    rows = yardstick.query_rows
    if len(rows) < 2:
        return np.full(len(rows), np.nan, dtype=np.float32)
    other = yardstick.dataset.query_vectors[rows[metrics.other_queries(len(rows), seed)]]
    content = yardstick.dataset.item_vectors[sets.items[:, :, 0]]
    return np.asarray(np.einsum("bkd,bd->b", content, other) / content.shape[1], dtype=np.float32)


def _needs_directions(objective: Objective) -> bool:
    return any(objective.weighs(name) for name in DIRECTION_TERMS)


def _coverage(yardstick: Yardstick, items: Ints, references: Sequence[Sequence[int]], seed: int) -> dict[str, Floats]:
    weights = yardstick.item_weights()
    uniform = np.ones_like(weights)
    values = {
        "recall": metrics.recall(items, references, uniform),
        "hit": metrics.hit(items, references),
        "recall_shuffled": metrics.shuffled_recall(items, references, uniform, seed),
        "pool_items": metrics.pool_size(items),
    }
    if yardstick.objective.coverage_weighting == "inverse_frequency":
        values["recall_weighted"] = metrics.recall(items, references, weights)
        values["recall_weighted_shuffled"] = metrics.shuffled_recall(items, references, weights, seed)
    return values
