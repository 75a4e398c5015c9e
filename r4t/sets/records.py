"""From a shard's answers to its columns: parsed, searched, scored and composed at once, one line per answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r4t.config import Config
from r4t.scoring import SetScorer
from r4t.sets.answers import Answers, read_answers
from r4t.sets.known import KnownTexts
from r4t.sets.store import ShardColumns
from r4t.sets.targets import compose_rows, filler_order
from r4t.types import Floats, Ints

CHUNK = 2048  # answers whose sub-queries' vectors are gathered at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """M answers of the policy."""

    query: Ints
    """[M] rows of the queries in the prepared dataset."""
    sample: Ints
    """[M]"""
    text: Sequence[str]
    finished: Sequence[bool]
    """False where the token limit cut an answer."""
    policy_version: int


def scoring_config(config: Config) -> Config:
    """The run's configuration with what synthesis needs of a scorer, and no more.

    OAR searches deep enough for fillers, the second-nearest items; its rewards look at the nearest item alone, so the
    depth does not change them. What each sub-query adds to the reward is for training and is left out.
    """
    objective = config.objective.model_copy(update={"credit": "set"})
    fanout = config.fanout
    if config.task == "oar":
        fanout = fanout.model_copy(update={"n": max(fanout.n, 2)})
    return config.model_copy(update={"objective": objective, "fanout": fanout})


def build_shard(written: Written, scorer: SetScorer, config: Config, known: KnownTexts | None = None) -> ShardColumns:
    """The shard of M answers in order. Rows are items (OAR) or sub-queries with their vectors (WSCR).

    Which fillers an answer gets depends on the run's seed, its query and its number alone. `scorer` is one of
    `scoring_config(config)`; `known` may hold what other shards looked up with it.
    """
    answers = read_answers(written.text, written.finished, config.fanout.k)
    look_up = known or KnownTexts(scorer.encoder, scorer.index, scorer.config.fanout.n, room=0)
    vectors, cosine, items = look_up(answers.texts)
    reward, terms = _rewards(written.query, answers, vectors, cosine[:, 0], items, scorer)
    valid = answers.valid
    rows = np.full((len(written.text), config.retriever.rows), -1, dtype=np.int64)
    places = answers.places[valid]
    order = filler_order(config.seed, written.query[valid], written.sample[valid], config.fanout.k)
    found = items[:, :2][places] if config.task == "oar" else places[:, :, None]
    rows[valid] = compose_rows(found, order, config.retriever.rows)
    queries = scorer.dataset.queries
    return ShardColumns(
        query=written.query,
        sample=written.sample,
        rows=rows,
        subqueries=answers.places,
        reward=reward,
        valid=valid,
        terms=terms,
        texts=answers.texts,
        vectors=None if config.task == "oar" else vectors,
        status=answers.status,
        policy_version=np.full(len(written.text), written.policy_version, dtype=np.int64),
        query_id=tuple(queries[row].query_id for row in written.query.tolist()),
    )


def _rewards(
    query: Ints, answers: Answers, vectors: Floats, top_cosine: Floats, items: Ints, scorer: SetScorer
) -> tuple[Floats, dict[str, Floats]]:
    """Rewards [M] and terms, chunk by chunk: all sub-queries' vectors at once would be the largest array here."""
    reward = np.full(len(query), scorer.config.objective.invalid_reward, dtype=np.float32)
    terms: dict[str, Floats] = {}
    valid = np.flatnonzero(answers.valid)
    for start in range(0, len(valid), CHUNK):
        chunk = valid[start : start + CHUNK]
        places = answers.places[chunk]
        scores = scorer.score_found(query[chunk], vectors[places], items[places], top_cosine[places])
        reward[chunk] = scores.reward
        for name, values in scores.terms.items():
            terms.setdefault(name, np.full(len(query), np.nan, dtype=np.float32))[chunk] = values
    return reward, terms
