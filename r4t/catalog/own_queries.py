"""The user's own queries for open-ended retrieval: a table with text and, if need be, split and query_id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from r4t.catalog.columns import ID, TEXT, check, require_filled, require_split, require_unique
from r4t.catalog.files import read_table
from r4t.catalog.source import joined, normalise, require_every_split, split_of
from r4t.types import Query


def load_queries(path: Path, seed: int, dropped: Counter[str]) -> list[Query]:
    """The queries of a table, in file order; blank ones and repetitions of a text are left out and counted.

    Without a column `split`, a hash of the text decides. Raises UserError for a missing file or column, a wrong type,
    an unknown split, a repeated query_id, or a split that ends up without queries.
    """
    table = read_table(path, "data.queries", texts=["text", "split", "query_id"])
    kinds = {"text": TEXT, "split": TEXT, "query_id": ID}
    given = [name for name in kinds if name == "text" or name in table.column_names]
    for name in given:
        check(table, path, name, kinds[name], key="data.queries")
    rows = table.select(given).to_pylist()
    require_filled(path, rows, given[1:])
    if "query_id" in given:
        require_unique(path, (row["query_id"] for row in rows), "query_id")
    queries: dict[str, Query] = {}
    for number, row in enumerate(rows):
        text = joined([row["text"]])
        key = normalise(text)
        split = require_split(path, f"row {number}", row["split"]) if "split" in given else split_of(key, seed)
        if not text:
            dropped["queries without a text"] += 1
        elif key in queries:
            dropped["queries whose text repeats another's"] += 1
        else:
            query_id = str(row.get("query_id", f"query-{number:05d}"))
            queries[key] = Query(query_id=query_id, text=text, split=split)
    require_every_split(list(queries.values()), "add queries there, or a column split to data.queries")
    return list(queries.values())
