"""The sets that an evaluation showed, on disk, for judges that come later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from r4t.errors import UserError
from r4t.lineage import atomic_path
from r4t.types import Ints, RetrievedSets

FILE = "shown.parquet"
SCHEMA = pa.schema(
    {
        "method": pa.string(),
        "query": pa.int64(),
        "items": pa.list_(pa.int64()),
        "subqueries": pa.list_(pa.string()),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One method's set for one query: rows of the dataset, and the text that found each item, if any did."""

    method: str
    query: int
    items: tuple[int, ...]
    subqueries: tuple[str, ...] = ()


def write_shown(folder: Path, query_rows: Ints, sets: Mapping[str, RetrievedSets]) -> None:
    """Writes the shown items of every method's sets, whole or not at all."""
    rows = [
        {
            "method": method,
            "query": int(row),
            "items": found.items[b, :, 0].tolist(),
            "subqueries": list(found.subqueries[b]) if found.subqueries is not None else [],
        }
        for method, found in sets.items()
        for b, row in enumerate(query_rows)
    ]
    with atomic_path(folder / FILE) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary, compression="zstd")


def read_shown(folder: Path) -> Sequence[Shown]:
    """What `write_shown` wrote. Raises UserError where an evaluation left no such file."""
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} has no {FILE}: evaluate the run first, with `r4t evaluate {folder.parent}`")
    return [
        Shown(
            method=row["method"],
            query=row["query"],
            items=tuple(row["items"]),
            subqueries=tuple(row["subqueries"]),
        )
        for row in pq.read_table(folder / FILE).to_pylist()
    ]
