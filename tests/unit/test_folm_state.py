"""A checkpoint is resumed only where the query stream gives the queries that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.folm_state import _check_queries
from r4t.catalog.dataset import Dataset
from r4t.config import parse_config
from r4t.errors import UserError
from r4t.stream import QueryStream
from r4t.types import Query


def dataset(names: list[str]) -> Dataset:
    return Dataset(
        item_ids=[],
        item_texts=[],
        item_names=[],
        item_vectors=np.zeros((0, 4), "f4"),
        queries=[Query(query_id=name, text=name, split="train") for name in names],
        query_vectors=np.zeros((len(names), 4), "f4"),
    )


HERE = dataset([f"q{i}" for i in range(10)])


def state(consumed: int, in_flight: int, seed: int = 0) -> dict[str, Any]:
    stream = QueryStream(HERE.split("train"), seed)
    names = [HERE.queries[stream.row(p)].query_id for p in range(consumed + in_flight)]
    last = names[consumed - 1] if consumed else None
    return {"consumed": consumed, "last_consumed": last, "in_flight": names[consumed:]}


@pytest.mark.parametrize(("consumed", "in_flight"), [(0, 0), (0, 3), (7, 0), (8, 4), (25, 9)])
def test_its_own_stream_is_accepted_across_epochs(consumed: int, in_flight: int) -> None:
    _check_queries(parse_config({}), HERE, state(consumed, in_flight), Path("step"))


def test_another_seed_or_dataset_is_refused() -> None:
    with pytest.raises(UserError, match="step-3 drew other queries"):
        _check_queries(parse_config({"seed": 1}), HERE, state(8, 4), Path("step-3"))
    with pytest.raises(UserError, match="other queries"):
        _check_queries(parse_config({}), dataset([f"other{i}" for i in range(10)]), state(8, 0), Path("step-3"))
