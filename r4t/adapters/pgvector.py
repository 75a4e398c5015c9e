"""PostgreSQL with pgvector: the SQL that makes a table of the items and searches it, as text. Nothing connects here.

psql -f items.sql        # what `table_sql` wrote
SELECT ...               # what `search_sql` gives: every row of a set searched, the set chosen in SQL
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from r4t.adapters.items import ENCODER, StoredItems
from r4t.errors import UserError
from r4t.types import Floats

BATCH = 200  # items of one INSERT


def table_sql(items: StoredItems, table: str = "r4t_items") -> Iterator[str]:
    """Statements that make `table` (item_id, name, fields, embedding), fill it and index it; run again, they replace
    items that are there. The table's comment names the encoder. Raises UserError for texts that PostgreSQL cannot hold.
    """
    name, dim = _identifier(table), items.vectors.shape[1]
    yield "CREATE EXTENSION IF NOT EXISTS vector;\n"
    yield (
        f"CREATE TABLE IF NOT EXISTS {name} (item_id text PRIMARY KEY, name text NOT NULL, fields jsonb NOT NULL,"
        f" embedding vector({dim}) NOT NULL);\n"
    )
    yield f"COMMENT ON TABLE {name} IS {_text(f'{ENCODER}: {items.encoder}')};\n"
    for start in range(0, len(items.item_ids), BATCH):
        rows = range(start, min(start + BATCH, len(items.item_ids)))
        values = ",\n".join(f"({_values(items, row)})" for row in rows)
        yield (
            f"INSERT INTO {name} (item_id, name, fields, embedding) VALUES\n{values}\nON CONFLICT (item_id) DO UPDATE"
            " SET name = EXCLUDED.name, fields = EXCLUDED.fields, embedding = EXCLUDED.embedding;\n"
        )
    index = _identifier(f"{table}_embedding")
    yield f"CREATE INDEX IF NOT EXISTS {index} ON {name} USING hnsw (embedding vector_ip_ops);\n"


def search_sql(rows: Floats, k: int, table: str = "r4t_items", where: str = "") -> str:
    """One query that returns the set of `rows` [L, d]: at most k of (item_id, name, row, score), chosen as
    `r4t.retriever.choose` does: every row gives its nearest, then its second nearest, each item once.

    where: a condition on the items, as SQL that you vouch for.
    """
    if k < 1:
        raise UserError(f"k is {k}: a set has at least one item")
    name = _identifier(table)
    values = ", ".join(f"({place}, {_vector(row)})" for place, row in enumerate(rows))
    condition = f" WHERE {where}" if where else ""
    return (
        f"WITH rows (row, direction) AS (VALUES {values}),\n"  # noqa: S608  quoted above
        "found AS (\n"
        "  SELECT rows.row, near.*, row_number() OVER (PARTITION BY rows.row ORDER BY near.score DESC) AS rank\n"
        "  FROM rows CROSS JOIN LATERAL (\n"
        f"    SELECT item_id, name, -(embedding <#> rows.direction) AS score FROM {name}{condition}\n"
        f"    ORDER BY embedding <#> rows.direction LIMIT {int(k)}\n"
        "  ) AS near\n"
        "),\n"
        "once AS (\n"
        "  SELECT DISTINCT ON (item_id) item_id, name, row, score, rank FROM found ORDER BY item_id, rank, row\n"
        ")\n"
        f"SELECT item_id, name, row, score FROM once ORDER BY rank, row LIMIT {int(k)};\n"
    )


def _values(items: StoredItems, row: int) -> str:
    fields = {name: values[row] for name, values in items.columns.items()}
    parts = (items.item_ids[row], items.names[row], json.dumps(fields, ensure_ascii=False, default=str))
    return ", ".join([*map(_text, parts), _vector(items.vectors[row])])


def _vector(values: Any) -> str:
    return "'[" + ",".join(f"{float(value):.8g}" for value in values) + "]'::vector"


def _text(value: str) -> str:
    """A string constant. Backslashes mean nothing in it whatever the server's settings, as it says E'' where one is."""
    if "\x00" in value:
        raise UserError(f"PostgreSQL holds no texts with a zero byte, as in {value[:40]!r}: remove it")
    quoted = value.replace("'", "''")
    return f"E'{quoted}'".replace("\\", "\\\\") if "\\" in quoted else f"'{quoted}'"


def _identifier(name: str) -> str:
    """A quoted name. Raises UserError for one that PostgreSQL would cut or refuse."""
    if not name or "\x00" in name or len(name.encode()) > 63:
        raise UserError(f"table {name[:80]!r}: give a name of 1 to 53 bytes")
    return '"' + name.replace('"', '""') + '"'
