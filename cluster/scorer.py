"""The reward scorer: encoder, index and objective behind one call that scores a whole rollout batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import load_encoder
from r4t.config import Config
from r4t.scoring import SetScorer
from r4t.types import ScoredBatch


class RewardScorer:
    """Loads a prepared dataset once, then scores batches of answers. A plain class; Ray wraps it."""

    def __init__(self, prepare_folder: Path, config: Config) -> None:
        encoder = load_encoder(config.encoder.name, config.encoder.dim)
        self.scorer = SetScorer(load_dataset(prepare_folder), encoder, config)

    def score(self, query_rows: Sequence[int], texts: Sequence[str]) -> ScoredBatch:
        return self.scorer.score(query_rows, texts)
