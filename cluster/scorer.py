"""The reward scorer: encoder, index and objective behind one call that scores a whole rollout batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.devices import search_device
from cluster.index_shards import remote_index
from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.catalog.index import open_index
from r4t.config import Config
from r4t.scoring import SetScorer
from r4t.types import Sampled, Scored, ScoredBatch


class RewardScorer:
    """Loads a prepared dataset once, then scores batches of answers. A plain class; Ray wraps it.

    With `shards`, handles of the `ShardActor`s of that dataset, these search; without, this process does.
    """

    def __init__(self, prepare_folder: Path, config: Config, shards: Sequence[Any] = ()) -> None:
        dataset = load_dataset(prepare_folder, config.objective.columns)
        index = (
            remote_index(shards, len(dataset.item_ids), config)
            if shards
            else open_index(prepare_folder, dataset.item_vectors, config.index, search_device(config))
        )
        self.scorer = SetScorer(dataset, run_encoder(config, prepare_folder), config, index)

    def score(self, query_rows: Sequence[int], texts: Sequence[str]) -> ScoredBatch:
        return self.scorer.score(query_rows, texts)

    def score_share(self, sampled: Sampled, query_rows: Sequence[int], share: int, shares: int) -> Scored:
        """Scores share number `share` of `shares` of a rollout worker's answers, whose queries are `query_rows`.

        Ray hands the answers over from worker to scorer, so scoring begins without the driver. Shares are consecutive;
        the last ones may be empty.
        """
        started = time.perf_counter()
        samples = len(sampled.completions) // len(query_rows)
        size = -(-len(sampled.completions) // shares)
        answers = range(len(sampled.completions))[share * size : (share + 1) * size]
        batch = self.scorer.score(
            [query_rows[i // samples] for i in answers], [sampled.completions[i].text for i in answers]
        )
        return Scored(batch=batch, seconds=time.perf_counter() - started)
