"""The methods that need neither a policy nor a trained retriever, by name."""

from __future__ import annotations

from r4t.catalog.dataset import Dataset
from r4t.catalog.index import Index
from r4t.config import Evaluate
from r4t.methods.base import SetRetriever
from r4t.methods.baselines import NoFanout, Popular, Random, popularity
from r4t.methods.feedback import Rocchio
from r4t.methods.pool import DPP, MMR, Facets

UNTRAINED = ("random", "popular", "no_fanout", "mmr", "dpp", "kmeans", "prf", "bm25")


def build_untrained(name: str, dataset: Dataset, index: Index, settings: Evaluate, k: int, n: int) -> SetRetriever:
    """One of `UNTRAINED`, over the items of `dataset`. Raises ValueError for another name."""
    vectors = dataset.item_vectors
    match name:
        case "random":
            return Random(len(vectors), k, n)
        case "popular":
            return Popular(popularity(dataset, index, k), k, n)
        case "no_fanout":
            return NoFanout(index, k, n)
        case "mmr":
            return MMR(index, vectors, k, n, settings.mmr_lambda)
        case "dpp":
            return DPP(index, vectors, k, n, settings.dpp_quality)
        case "kmeans":
            return Facets(index, vectors, k, n)
        case "prf":
            return Rocchio(index, vectors, k, n, settings.prf_weight)
        case "bm25":
            from r4t.methods.lexical import BM25  # loads a compiler, which no other method should wait for

            return BM25(dataset.item_texts, index, k, n, settings.bm25_feedback)
    raise ValueError(f"'{name}' is none of {', '.join(UNTRAINED)}")
