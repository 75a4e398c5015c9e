"""Any catalogue as two Parquet files: items(item_id, text, ...) and sets(set_id, title, item_ids, split)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r4t.catalog.source import SPLITS, Item, ItemSet
from r4t.config import Data
from r4t.errors import UserError, did_you_mean


def load_items(data: Data) -> list[Item]:
    """The items of `data.items`, in file order. A column `name` is shown if there is one, else `text`.

    Raises UserError for a missing file or column, a wrong type, no rows, a null or blank value, a repeated id.
    """
    if data.items is None:
        raise UserError("data.kind 'parquet' needs data.items, the path of a Parquet file with item_id and text")
    table = _read(data.items, "data.items", texts=["item_id", "text"])
    if table.num_rows == 0:
        raise UserError(f"{data.items} has no rows: data.items must name at least one item")
    rows = table.to_pylist()
    _require_filled(data.items, rows, ["item_id", "text"])
    _require_unique(data.items, [row["item_id"] for row in rows], "item_id")
    extra = [name for name in table.column_names if name not in ("item_id", "text", "name")]
    return [
        Item(
            item_id=str(row["item_id"]),
            text=row["text"],
            name=row.get("name") or row["text"],
            extra={name: row[name] for name in extra},
        )
        for row in rows
    ]


def load_sets(data: Data, known: Collection[str]) -> tuple[list[ItemSet], Counter[str]]:
    """The titled sets of `data.sets` and a count of those left out; `known` are the ids of all items.

    Raises UserError for a missing file or column, a wrong type, a repeated id, an unknown split, an unknown item.
    """
    if data.sets is None:
        raise UserError("task 'wscr' needs data.sets, the path of a Parquet file with set_id, title, item_ids, split")
    flags = [data.clean_column] if data.clean_column else []
    table = _read(data.sets, "data.sets", texts=["set_id", "title", "split"], lists=["item_ids"], flags=flags)
    rows = table.to_pylist()
    _require_filled(data.sets, rows, ["set_id", "split", "item_ids", *flags])
    _require_unique(data.sets, [row["set_id"] for row in rows], "set_id")
    dropped: Counter[str] = Counter()
    sets = []
    for row in rows:
        _check_set(data.sets, row, known)
        if data.clean_column and not row[data.clean_column]:
            dropped[f"sets whose column {data.clean_column} is false (data.clean_column)"] += 1
        elif not (row["title"] or "").strip():
            dropped["sets without a title"] += 1
        else:
            ids = tuple(dict.fromkeys(str(item_id) for item_id in row["item_ids"]))
            sets.append(ItemSet(title=row["title"], split=row["split"], item_ids=ids))
    return sets, dropped


def _read(
    path: Path, key: str, *, texts: Sequence[str], lists: Sequence[str] = (), flags: Sequence[str] = ()
) -> pa.Table:
    if not path.is_file():
        raise UserError(f"no file at {path}: {key} must be the path of a Parquet file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} ({key}) is not a Parquet file: {error}") from None
    for name in [*texts, *lists, *flags]:
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names)
            raise UserError(f"{path} has no column '{name}'{hint}: its columns are {', '.join(table.column_names)}")
    for name, kind, accepts in (
        *((name, "text", _is_text if name in ("text", "title", "split") else _is_id) for name in texts),
        *((name, "a list of item ids", _is_id_list) for name in lists),
        *((name, "true or false", pa.types.is_boolean) for name in flags),
    ):
        found = table.schema.field(name).type
        if not accepts(found) and not pa.types.is_null(found):
            raise UserError(f"{path}: column '{name}' has type {found}, it must be {kind}")
    return table


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_integer(kind)


def _is_id_list(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_id(kind.value_type)


def _require_filled(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    for number, row in enumerate(rows):
        for name in columns:
            if row[name] is None or (isinstance(row[name], str) and not row[name].strip()):
                raise UserError(f"{path}: row {number} has no '{name}': fill it in or remove the row")


def _require_unique(path: Path, ids: Sequence[Any], column: str) -> None:
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} duplicate values of '{column}' (first: {twice[0]!r}): make them unique")


def _check_set(path: Path, row: dict[str, Any], known: Collection[str]) -> None:
    if row["split"] not in SPLITS:
        raise UserError(f"{path}: set {row['set_id']} has split '{row['split']}': use one of {', '.join(SPLITS)}")
    unknown = [item_id for item_id in row["item_ids"] if str(item_id) not in known]
    if unknown:
        raise UserError(f"{path}: set {row['set_id']} names item {unknown[0]!r}, which data.items does not have")
