"""A second opinion: the same sets in the space of an encoder that the reward never saw.

A policy can learn the quirks of the reward's encoder. The judge reads the *names* of the retrieved items (what a user
sees, and not the text that was indexed) with its own frozen encoder. It is a proxy for the paper's LLM judge, labelled
as one, and its numbers are never mixed with an LLM's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, load_encoder
from r4t.catalog.encoders.cache import cache_key, read_cached, write_cached
from r4t.config import Config
from r4t.lineage import read_tensors, write_tensors
from r4t.objective.vendi import vendi
from r4t.types import Floats, Ints, RetrievedSets

GROUNDED_SETS = 100
"""Sets whose sub-queries the judge reads: those of all sets would cost more than every other metric together."""


def judge_encoder(config: Config) -> Encoder:
    """The encoder that `evaluate.judge` names, at its full width."""
    return load_encoder(config.evaluate.judge, path=config.evaluate.judge_path)


class Judge:
    """Scores sets by cosine and Vendi Score in its own space."""

    def __init__(self, encoder: Encoder, dataset: Dataset, cache: Path | None = None) -> None:
        self.encoder, self.dataset = encoder, dataset
        self.items = _cached_vectors(encoder, dataset.item_names, cache)
        self._texts: dict[str, Floats] = {}

    def score(self, query_rows: Ints, sets: RetrievedSets) -> dict[str, Floats]:
        """Per-query values [B] of `diversity` (Vendi/k of the shown items), `alignment` (mean cosine of the shown
        items with the query) and, where a method writes sub-queries, `groundedness` (mean cosine of each with its item;
        NaN for an invalid answer and beyond the first 100 queries).
        """
        shown = self.items[sets.items[:, :, 0]]  # [B, k, d]
        queries = self._encode([self.dataset.queries[row].text for row in query_rows])
        scores = {
            "diversity": vendi(shown) / shown.shape[1],
            "alignment": np.einsum("bkd,bd->b", shown, queries) / shown.shape[1],
        }
        if sets.subqueries is not None:
            scores["groundedness"] = self._groundedness(shown, sets.subqueries)
        return scores

    def _groundedness(self, shown: Floats, subqueries: Sequence[Sequence[str]]) -> Floats:
        grounded = np.full(len(shown), np.nan, dtype=np.float32)
        valid = [row for row, texts in enumerate(subqueries[:GROUNDED_SETS]) if texts]
        if valid:
            vectors = self._encode([text for row in valid for text in subqueries[row]])
            vectors = vectors.reshape(len(valid), -1, vectors.shape[-1])
            grounded[valid] = np.einsum("bkd,bkd->b", vectors, shown[valid]) / shown.shape[1]
        return grounded

    def _encode(self, texts: Sequence[str]) -> Floats:
        """Vectors of `texts`; each different text is encoded once in the judge's life."""
        fresh = sorted(set(texts) - self._texts.keys())
        if fresh:
            self._texts.update(zip(fresh, self.encoder.encode(fresh), strict=True))
        return np.stack([self._texts[text] for text in texts])


class LiveJudge:
    """A judge for training: it encodes the names it meets and no others. Loads its encoder when it is first asked."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self._config, self._dataset = config, dataset
        self._encoder: Encoder | None = None
        self._vectors: dict[str, Floats] = {}

    def score(self, query_rows: Sequence[int], shown: Ints) -> dict[str, float]:
        """Mean `judge/diversity` (Vendi/k) and `judge/alignment` (cosine) of the shown items [B, k] of B queries."""
        names = self._dataset.item_names
        items = self._encode([names[row] for row in shown.ravel()]).reshape(*shown.shape, -1)
        queries = self._encode([self._dataset.queries[row].text for row in query_rows])
        return {
            "judge/diversity": float((vendi(items) / shown.shape[1]).mean()),
            "judge/alignment": float(np.einsum("bkd,bd->bk", items, queries).mean()),
        }

    def _encode(self, texts: Sequence[str]) -> Floats:
        if self._encoder is None:
            self._encoder = judge_encoder(self._config)
        fresh = sorted(set(texts) - self._vectors.keys())
        if fresh:
            self._vectors.update(zip(fresh, self._encoder.encode(fresh), strict=True))
        return np.stack([self._vectors[text] for text in texts])


def _cached_vectors(encoder: Encoder, names: Sequence[str], cache: Path | None) -> Floats:
    """[N, d] vectors of the item names, from `cache` when it was made of the same names by the same encoder."""
    content = "\x00".join([encoder.fingerprint(), *names]).encode()
    digest = np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)
    if cache is not None and cache.is_file():
        stored = read_tensors(cache)
        if np.array_equal(stored["digest"], digest):
            return stored["items"]
    unique = sorted(set(names))
    position = {name: row for row, name in enumerate(unique)}
    key = cache_key(encoder.fingerprint(), unique)
    encoded = read_cached(key, len(unique), encoder.dim)
    if encoded is None:
        encoded = encoder.encode(unique)
        write_cached(key, encoded)
    vectors = encoded[[position[name] for name in names]]
    if cache is not None:
        write_tensors(cache, {"items": vectors, "digest": digest})
    return vectors
