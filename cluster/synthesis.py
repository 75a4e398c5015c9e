"""The two actors of the synthesis job: one samples answers of a frozen policy, one scores them and writes shards.

Ray Data moves one row per shard between them, so that the next shard is being sampled while the last is scored.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import run_encoder
from r4t.catalog.index import open_index
from r4t.config import Config
from r4t.scoring import SetScorer
from r4t.sets.records import build_shard, scoring_config
from r4t.sets.store import write_shard

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to make: which queries, which policy, and where the shard goes."""

    path: str
    policy: str
    """A Hugging Face directory."""
    version: int
    queries: list[int]
    """Rows of the prepared dataset."""
    lineage: str
    """JSON."""

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


class ShardSampler:
    """One vLLM engine. It starts with the first shard's policy and swaps weights when a shard names another."""

    def __init__(self, prepare_folder: Path, config: Config) -> None:
        self.config = config
        self.queries = load_dataset(prepare_folder).queries
        self.engine: Any = None
        self.policy = ""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self._load(Path(row["policy"]), int(row["version"]))
        sets = self.config.sets
        asked = [(int(q), self.queries[int(q)].text) for q in row["queries"]]
        answers = self.engine.generate(
            asked,
            samples=sets.samples_per_query,
            temperature=sets.temperature,
            seed=self.config.seed,
            logprobs=False,
        )
        return {
            "path": row["path"],
            "lineage": row["lineage"],
            "query": [answer.query for answer in answers],
            "sample": [answer.sample for answer in answers],
            "version": [answer.policy_version for answer in answers],
            "text": [answer.text for answer in answers],
        }

    def _load(self, policy: Path, version: int) -> None:
        if self.engine is None:
            from cluster.rollout import RolloutEngine  # vLLM takes over the process that imports it

            self.engine = RolloutEngine(policy, self.config, version)
        elif str(policy) != self.policy:
            self.engine.load_weights(policy / WEIGHTS, version)
        self.policy = str(policy)


class ShardScorer:
    """Parses, retrieves and rewards the answers of a shard, composes the sets and writes it."""

    def __init__(self, prepare_folder: Path, config: Config) -> None:
        self.config = config
        self.dataset = load_dataset(prepare_folder, config.objective.columns)
        self.encoder = run_encoder(config, prepare_folder)
        index = open_index(prepare_folder, self.dataset.item_vectors, config.index)
        self.scorer = SetScorer(self.dataset, self.encoder, scoring_config(config), index)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        queries = [int(q) for q in row["query"]]
        scored = self.scorer.score(queries, list(row["text"]))
        shard = build_shard(queries, row["sample"], row["version"], scored, self.dataset, self.encoder, self.config)
        write_shard(
            Path(row["path"]),
            shard,
            k=self.config.fanout.k,
            rows=self.config.retriever.rows,
            lineage=json.loads(row["lineage"]),
        )
        valid = [record.reward for record in shard.records if record.valid]
        return {"path": row["path"], "answers": len(queries), "valid": len(valid), "reward": float(sum(valid))}
