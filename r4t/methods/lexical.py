"""BM25 over the items' texts, with the relevance model RM3 as query expansion."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer
from scipy import sparse

from r4t.catalog.index import Index
from r4t.methods.base import QueryBatch, arrange, check_depth
from r4t.types import Floats, Ints, RetrievedSets

K1, B = 1.5, 0.75
FEEDBACK_ITEMS, FEEDBACK_TERMS = 10, 10
CHUNK = 64  # queries whose scores of all items stand in memory together


class BM25:
    """The k x n items with the highest score, of the words of the query and of those that its 10 best items suggest.

    RM3 (Abdul-Jaleel et al. 2004): weights (1 - feedback) * p(w | query) + feedback * p(w | 10 best items), of which
    the 10 likeliest words. Words are English stems without stop words. Where fewer than k x n items share a word with
    the query, the items nearest to its vector follow, so that every method fills its sets.
    """

    name = "bm25"

    def __init__(self, texts: Sequence[str], index: Index, k: int, n: int, feedback: float) -> None:
        check_depth(k, n, len(texts))
        self.index, self.k, self.n, self.feedback = index, k, n, feedback
        self._stemmer = Stemmer.Stemmer("english")
        words = self.words(texts)
        self.vocabulary = {word: i for i, word in enumerate(sorted({word for text in words for word in text}))}
        self.counts = self._matrix(words)  # [N, V]
        self.impacts = _impacts(words, self.vocabulary)  # [V, N]

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """The stems of each text, stop words left out."""
        return bm25s.tokenize(
            list(texts), stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False, allow_empty=False
        )

    def retrieve(self, queries: QueryBatch, seed: int) -> RetrievedSets:  # noqa: ARG002 (the protocol's signature)
        depth = self.k * self.n
        starts = range(0, len(queries), CHUNK)
        scores = (self.scores(queries.texts[start : start + CHUNK]) for start in starts)
        best = [_best(row, depth) for part in scores for row in part]
        ranked = np.empty((len(queries), depth), dtype=np.int64)
        full = np.array([len(found) == depth for found in best], dtype=bool)
        nearest = dict(zip(np.flatnonzero(~full), self.index.search(queries.vectors[~full], depth)[1], strict=True))
        for row, found in enumerate(best):
            ranked[row] = found if full[row] else _filled(found, nearest[row])
        return RetrievedSets(items=arrange(ranked, self.k))

    def scores(self, texts: Sequence[str]) -> Floats:
        """[B, N] scores of every item after feedback."""
        asked = _shares(self._matrix(self.words(texts)))
        if not (self.feedback and self.vocabulary):
            return (asked @ self.impacts).toarray()
        return (self.expanded(asked) @ self.impacts).toarray()

    def expanded(self, asked: sparse.csr_matrix) -> sparse.csr_matrix:
        """RM3's word weights [B, V] from the queries' own [B, V]."""
        first = (asked @ self.impacts).toarray()
        models = sparse.vstack([self._relevance_model(scores) for scores in first], format="csr")
        return (1 - self.feedback) * asked + self.feedback * models

    def _relevance_model(self, scores: Floats) -> sparse.csr_matrix:
        """p(w | the best items) [1, V], items weighed by their scores, cut to the likeliest words."""
        best = _best(scores, FEEDBACK_ITEMS)
        if not best.size:
            return sparse.csr_matrix((1, len(self.vocabulary)))
        weights = sparse.csr_matrix(scores[best] / scores[best].sum())
        model = (weights @ _shares(self.counts[best])).toarray()[0]
        model[_order(model)[FEEDBACK_TERMS:]] = 0.0
        return _shares(sparse.csr_matrix(model))

    def _matrix(self, words: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        """[len(words), V] how often each known word occurs."""
        known = [[self.vocabulary[word] for word in text if word in self.vocabulary] for text in words]
        ends = np.cumsum([0, *map(len, known)])
        columns = np.array([column for text in known for column in text], dtype=np.int64)
        matrix = sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(words), len(self.vocabulary)))
        matrix.sum_duplicates()
        return matrix


def _impacts(words: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> sparse.csr_matrix:
    """[V, N] what one occurrence of a word in a query adds to an item's score (Lucene's variant of BM25)."""
    if not vocabulary:  # items without words, such as images
        return sparse.csr_matrix((0, len(words)))
    engine = bm25s.BM25(k1=K1, b=B, method="lucene")
    ids = [[vocabulary[word] for word in text] for text in words]
    engine.index((ids, vocabulary), show_progress=False, create_empty_token=False)
    found = engine.scores
    shape = (len(words), len(vocabulary))
    return sparse.csc_matrix((found["data"], found["indices"], found["indptr"]), shape=shape).T.tocsr()


def _shares(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows that sum to 1; an empty row stays empty."""
    totals = np.asarray(counts.sum(axis=1)).reshape(-1)
    return sparse.diags_array(1 / np.where(totals > 0, totals, 1.0)).tocsr() @ counts


def _order(scores: Floats) -> Ints:
    return np.argsort(-scores, kind="stable")


def _best(scores: Floats, depth: int) -> Ints:
    """At most `depth` positions with the highest scores above 0, ties in their order."""
    positive = np.flatnonzero(scores > 0)
    return positive[_order(scores[positive])[:depth]]


def _filled(best: Ints, nearest: Ints) -> Ints:
    """`best`, then those of `nearest` that are not in it, as many as `nearest` has together."""
    return np.concatenate([best, nearest[~np.isin(nearest, best)]])[: len(nearest)]
