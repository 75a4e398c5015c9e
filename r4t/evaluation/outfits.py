"""Checks against what people labelled rather than against an encoder: categories, and the item left out of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r4t.catalog.fill_in_blank import CHOICES, BlankQuestion
from r4t.types import Floats, Ints

NONE = -1


def category_share(kinds: Ints) -> Floats:
    """[B]: different categories among the k shown items over k; `kinds` [B, k] are codes, -1 for none."""
    found = [len(set(row.tolist()) - {NONE}) for row in kinds]
    return np.asarray(found, dtype=np.float32) / np.float32(kinds.shape[1])


def category_coverage(kinds: Ints, references: Sequence[Ints]) -> Floats:
    """[B]: share of the reference set's categories that the shown items have; NaN for one without categories.

    `kinds` [B, k] are codes of the shown items, `references` those of each reference set, -1 for none.
    """
    wanted = [set(reference.tolist()) - {NONE} for reference in references]
    shown = [set(row.tolist()) for row in kinds]
    share = [len(want & seen) / len(want) if want else np.nan for want, seen in zip(wanted, shown, strict=True)]
    return np.asarray(share, dtype=np.float32)


def made_blanks(references: Sequence[Sequence[int]], seed: int) -> Ints:
    """[B, 4] candidates for one item left out of each reference set: that item, and three of other sets.

    A set of one item, or without three items elsewhere, has no question (-1). The same seed makes the same questions,
    whatever the method.
    """
    every = np.unique([row for reference in references for row in reference])
    questions = np.full((len(references), CHOICES), NONE, dtype=np.int64)
    for b, reference in enumerate(references):
        others = np.setdiff1d(every, reference)
        if len(reference) < 2 or len(others) < CHOICES - 1:
            continue
        rng = np.random.default_rng((seed, b))
        questions[b] = [rng.choice(reference), *rng.choice(others, CHOICES - 1, replace=False)]
    return questions


def given_blanks(blanks: Sequence[BlankQuestion], references: Sequence[Sequence[int]], item_ids: Sequence[str]) -> Ints:
    """[B, 4] candidates of the first question about each reference set whose items are all known, else -1."""
    row_of: Mapping[str, int] = {item_id: row for row, item_id in enumerate(item_ids)}
    questions = np.full((len(references), CHOICES), NONE, dtype=np.int64)
    holders: dict[int, list[int]] = {}
    for b, reference in enumerate(references):
        for row in reference:
            holders.setdefault(row, []).append(b)
    for blank in blanks:
        choices = [row_of.get(item_id, NONE) for item_id in blank.choices]
        outfit = {row_of.get(item_id, NONE) for item_id in blank.items} | {choices[0]}
        if NONE in (*choices, *outfit):
            continue
        for b in holders.get(choices[0], []):
            if questions[b, 0] == NONE and outfit <= set(references[b]):
                questions[b] = choices
    return questions


def fill_in_blank(rows: Floats, questions: Ints, item_vectors: Floats) -> Floats:
    """[B]: 1 where the left-out item is the candidate nearest to a method's rows [B, k, d], else 0; NaN unasked.

    A candidate is as near as its nearest row. Candidates that tie share the point: answering blindly expects 1/4.
    """
    candidates = item_vectors[np.maximum(questions, 0)]
    nearness = np.einsum("bcd,bkd->bck", candidates, rows).max(axis=2)
    best = nearness >= nearness.max(axis=1, keepdims=True) - 1e-6
    score = best[:, 0] / best.sum(axis=1)
    return np.where(questions[:, 0] == NONE, np.nan, score).astype(np.float32)
