"""From scored answers to a shard: every answer becomes one record, valid or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder
from r4t.config import Config
from r4t.sets.store import SetRecord, Shard
from r4t.sets.targets import compose_slots
from r4t.types import ScoredBatch


def scoring_config(config: Config) -> Config:
    """The run's configuration with a search deep enough for fillers: OAR sets also hold second-nearest items.

    OAR rewards look at the nearest item alone, so the depth does not change them.
    """
    if config.task == "wscr":
        return config
    return config.model_copy(update={"fanout": config.fanout.model_copy(update={"n": max(config.fanout.n, 2)})})


def build_shard(
    query_rows: Sequence[int],
    samples: Sequence[int],
    versions: Sequence[int],
    scored: ScoredBatch,
    dataset: Dataset,
    encoder: Encoder,
    config: Config,
) -> Shard:
    """Records of B answers in order. Rows are items (OAR) or sub-queries with their vectors (WSCR).

    Which fillers an answer gets depends on the run's seed, its query and its number alone.
    """
    texts = tuple(sorted({text for fanout in scored.fanouts for text in fanout.subqueries}))
    place = {text: i for i, text in enumerate(texts)}
    items = config.task == "oar"
    records = []
    for b, fanout in enumerate(scored.fanouts):
        subqueries = tuple(place[text] for text in fanout.subqueries)
        rows: tuple[int, ...] = ()
        if fanout.valid:
            rng = np.random.default_rng([config.seed, query_rows[b], samples[b]])
            depth = scored.items.shape[2] if items else 1
            slots = compose_slots(len(subqueries), depth, config.retriever.rows, rng)
            rows = tuple(int(scored.items[b, i, rank]) if items else subqueries[i] for i, rank in slots)
        record = SetRecord(
            query=int(query_rows[b]),
            query_id=dataset.queries[query_rows[b]].query_id,
            sample=int(samples[b]),
            rows=rows,
            subqueries=subqueries,
            reward=float(scored.rewards[b]),
            terms={name: float(values[b]) for name, values in scored.terms.items() if fanout.valid},
            valid=fanout.valid,
            policy_version=int(versions[b]),
        )
        records.append(record)
    vectors = None if items else encoder.encode(texts)
    return Shard(records=tuple(records), texts=texts, vectors=vectors)
