"""A run directory with a real small catalogue, an untrained policy and training sets over its items."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from jobs.run import Run
from r4t.catalog.dataset import FILES, save_dataset
from r4t.catalog.encoders import encoder_record, load_encoder
from r4t.catalog.source import Catalog, Item
from r4t.config import Config, parse_config
from r4t.fanout import format_answer
from r4t.lineage import write_manifest
from r4t.policy import create_policy, load_tokenizer, train_tokenizer
from r4t.sets import ShardColumns, compose_rows, filler_order, write_shard
from r4t.types import Query

NAMES = [f"{a} {b}" for a in ("apple", "carrot", "lemon", "walnut", "ginger") for b in ("soup", "cake", "salad", "pie")]
QUERIES = [
    f"{mood} {meal}"
    for mood in ("warm", "light", "festive", "quick", "rustic")
    for meal in ("dinner", "lunch", "treat", "snack")
]
TRAIN = 16


def settings(**retriever: Any) -> Config:
    return parse_config(
        {
            "fanout": {"k": 4},
            "encoder": {"dim": 64},
            "policy": {"vocab_size": 384, "hidden": 64, "layers": 1, "heads": 2, "max_length": 96},
            "rl": {"max_tokens": 16},
            "rollout": {"max_num_seqs": 16, "kv_cache_gib": 0.05, "threads": 1},
            "learner": {"threads": 1},
            "scorer": {"threads": 1},
            "sets": {"shard_queries": 3},
            "retriever": {
                "rows": 5,
                "hidden": 32,
                "mlp": 32,
                "layers": 2,
                "heads": 2,
                "noise_dim": 16,
                "batch": 8,
                "steps": 60,
                "warmup_steps": 5,
                "validate_every": 20,
                "checkpoint_every": 20,
                "dropout": 0.1,
                "validation_share": 0.2,
                **retriever,
            },
        }
    )


def make_run(folder: Path, config: Config, taught: bool = False) -> Run:
    """Prepare and folm stages; queries past the first 16 are test queries.

    The policies write noise, or, when `taught`, lists of dishes.
    """
    run = Run(folder, config)
    encoder = load_encoder("wordllama", 64)
    queries = [
        Query(query_id=f"q{i}", text=text, split="train" if i < TRAIN else "test") for i, text in enumerate(QUERIES)
    ]
    items = [Item(item_id=f"i{i}", text=name, name=name) for i, name in enumerate(NAMES)]
    prepare, folm = run.stage_folder("prepare"), run.stage_folder("folm")
    save_dataset(
        prepare, Catalog(items=items, queries=queries, dropped={}), encoder.encode(NAMES), encoder.encode(QUERIES)
    )
    made_by = {"encoder": encoder_record(encoder, config.encoder)}
    write_manifest(prepare, stage="prepare", config={}, inputs={}, files=FILES, metrics={}, extra=made_by)
    tokenizer = train_tokenizer([*NAMES, *QUERIES], config.policy.vocab_size)
    for seed, name in enumerate(("warm_start", "policy")):
        create_policy(folm / name, tokenizer, config.policy, seed)
        if taught:
            teach(folm / name, config)
    write_manifest(folm, stage="folm", config={}, inputs={"prepare": prepare}, files=[], metrics={"step": 12})
    return run


def teach(folder: Path, config: Config, steps: int = 150) -> None:
    """Trains the policy in `folder` to answer any query with `fanout.k` random dishes."""
    tokenizer, rng = load_tokenizer(folder), np.random.default_rng(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        lines = [
            f"<broad_query>{query}</broad_query>{format_answer(rng.choice(NAMES, config.fanout.k).tolist())}<end>"
            for query in rng.choice(QUERIES, 16)
        ]
        ids = tokenizer(lines, return_tensors="pt", padding=True)["input_ids"]
        loss = model(ids, labels=ids.where(ids != tokenizer.pad_token_id, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def make_sets(run: Run, folder: Path) -> None:
    """A finished sets folder: random items for every training query."""
    folder.mkdir(parents=True, exist_ok=True)
    config = run.config
    queries, samples = np.repeat(np.arange(TRAIN), 4), np.tile(np.arange(4), TRAIN)
    rng = np.random.default_rng(0)
    found = rng.permuted(np.tile(np.arange(len(NAMES)), (len(queries), 1)), axis=1)[:, : config.fanout.k]
    order = filler_order(0, queries, samples, config.fanout.k)
    shard = ShardColumns(
        query=queries,
        sample=samples,
        rows=compose_rows(found[:, :, None], order, config.retriever.rows),
        subqueries=np.zeros_like(found),
        reward=np.full(len(queries), 0.5, np.float32),
        valid=np.ones(len(queries), bool),
        terms={},
        texts=("anything",),
        vectors=None,
        status=np.zeros(len(queries), np.int8),
        policy_version=np.ones(len(queries), np.int64),
        query_id=tuple(f"q{query}" for query in queries),
    )
    write_shard(folder / "shard-00000.parquet", shard, lineage={})
    write_manifest(folder, stage="sets", config={}, inputs={}, files=["shard-00000.parquet"], metrics={})
