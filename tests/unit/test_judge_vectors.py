"""The judge reads a catalogue once: its vectors are kept for every run over the same names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import load_encoder
from r4t.evaluation.judge import Judge
from r4t.types import Query

NAMES = ["red hat", "blue scarf", "red hat"]


def test_a_second_run_over_the_same_names_encodes_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R4T_CACHE", str(tmp_path / "cache"))
    encoder = load_encoder("wordllama", 32)
    vectors = encoder.encode(NAMES)
    dataset = Dataset(
        item_ids=["a", "b", "c"],
        item_texts=NAMES,
        item_names=NAMES,
        item_vectors=vectors,
        queries=[Query(query_id="q", text="hats", split="test")],
        query_vectors=encoder.encode(["hats"]),
    )
    first = Judge(encoder, dataset, tmp_path / "one" / "judge.safetensors")
    np.testing.assert_array_equal(first.items, vectors)

    def refuse(texts: object) -> None:
        raise AssertionError(f"encoded again: {texts}")

    monkeypatch.setattr(encoder, "encode", refuse)
    np.testing.assert_array_equal(Judge(encoder, dataset, tmp_path / "two" / "judge.safetensors").items, vectors)
