"""A small dataset whose encoder needs no model, and the reward over it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder, unit_rows
from r4t.config import Config, parse_config
from r4t.fanout import build_prompt, format_answer
from r4t.interop.reward import SetReward
from r4t.scoring import SetScorer
from r4t.types import Floats, Query

ITEMS = ["apple pie", "beef stew", "carrot soup", "lemon cake", "green salad", "walnut bread", "rice pudding"]
QUERIES = ["warm dinner", "light lunch", "festive treat", "quick snack"]
K = 3


class WordHashes(Encoder):
    """The sum of one random direction per word, drawn from the word's checksum. Counts its calls."""

    name, dim = "word-hashes", 32

    def __init__(self) -> None:
        self.calls = 0

    def _embed(self, texts: list[str]) -> Floats:
        self.calls += 1
        words = [[zlib.crc32(word.encode()) for word in text.split()] for text in texts]
        rows = [sum(np.random.default_rng(word).normal(size=self.dim) for word in own) for own in words]
        return np.array(rows, dtype=np.float32)

    def _state(self) -> list[bytes]:
        return []


def configuration(**objective: Any) -> Config:
    return parse_config({"fanout": {"k": K}, "encoder": {"dim": WordHashes.dim}, "objective": objective})


def reward(config: Config | None = None) -> SetReward:
    encoder = WordHashes()
    dataset = Dataset(
        item_ids=[f"i{i}" for i in range(len(ITEMS))],
        item_texts=ITEMS,
        item_names=ITEMS,
        item_vectors=unit_rows(encoder.encode(ITEMS), what="items"),
        queries=[Query(query_id=f"q{i}", text=text, split="train") for i, text in enumerate(QUERIES)],
        query_vectors=encoder.encode(QUERIES),
    )
    return SetReward(SetScorer(dataset, encoder, config or configuration()))


def prompt(row: int, style: Any = "compact") -> str:
    return build_prompt(QUERIES[row], style=style, task="oar", domain="food", k=K)


def answer(seed: int) -> str:
    """A valid answer of K sub-queries."""
    rng = np.random.default_rng(seed)
    words = [word for item in ITEMS for word in item.split()]
    return format_answer([" ".join(rng.choice(words, 2)) for _ in range(K)])
