"""Any catalogue as two tables: items (item_id, text, ...) and sets (set_id, title, item_ids, split)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from r4t.catalog.columns import (
    FLAG,
    ID,
    IDS,
    NUMBERS,
    TEXT,
    TEXTS,
    check,
    find,
    ids_of,
    require_filled,
    require_split,
    require_unique,
    texts_of,
)
from r4t.catalog.files import read_table
from r4t.catalog.source import Item, ItemSet, Source, joined, normalise, split_of
from r4t.catalog.vectors import column_vectors
from r4t.config import Data
from r4t.errors import UserError
from r4t.types import Floats

OWN = ("item_id", "text", "name")  # columns that the prepared items have anyway


def load_table(data: Data, *, with_sets: bool) -> Source:
    """The items of `data.items` and, `with_sets`, the titled sets of `data.sets`. Raises UserError as the two below.

    With `data.sources`, those of every source one after another; an item's id is then `<source>/<its own>`.
    """
    if data.sources:
        return _joined_sources(data, with_sets=with_sets)
    items = load_items(data)
    if not with_sets:
        return Source(items=items)
    sets, dropped = load_sets(data, {item.item_id for item in items})
    return Source(items=items, sets=sets, dropped=dropped)


def _joined_sources(data: Data, *, with_sets: bool) -> Source:
    items: list[Item] = []
    sets: list[ItemSet] = []
    dropped: Counter[str] = Counter()
    for name, table in data.sources.items():
        own = data.model_copy(update={"sources": {}, **{key: getattr(table, key) for key in type(table).model_fields}})
        source = load_table(own, with_sets=with_sets and table.sets is not None)
        items += [replace(item, item_id=f"{name}/{item.item_id}") for item in source.items]
        sets += [replace(s, item_ids=tuple(f"{name}/{item_id}" for item_id in s.item_ids)) for s in source.sets]
        dropped += source.dropped
    if len({item.vector is None for item in items}) > 1:
        raise UserError("some of data.sources bring vectors and some do not: give columns.vector to all or to none")
    return Source(items=items, sets=sets, dropped=dropped)


def load_items(data: Data) -> list[Item]:
    """One item per row of `data.items`, in file order; a row without a text has an empty one.

    `data.columns` names the columns; those that it does not name are kept as extras, unless their name is one of OWN.
    Raises UserError for a missing file or column, a wrong type, no rows, a null or repeated id, unusable vectors.
    """
    path, columns = _path(data.items, "data.items"), data.columns
    texts = [columns.item_id, *columns.text, columns.name or "name"]
    table = read_table(path, "data.items", texts=texts)
    check(table, path, columns.item_id, ID, key="data.columns.item_id")
    for column in columns.text:
        check(table, path, column, TEXTS, key="data.columns.text")
    name = find(table, path, columns.name, "name", TEXT)
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: data.items must name at least one item")
    vectors: Sequence[Floats | None] = [None] * table.num_rows
    if columns.vector:
        check(table, path, columns.vector, NUMBERS, key="data.columns.vector")
        vectors = list(column_vectors(table.column(columns.vector), f"{path}: column '{columns.vector}'"))
        table = table.drop_columns([columns.vector])
    rows = table.to_pylist()
    require_filled(path, rows, [columns.item_id])
    require_unique(path, (row[columns.item_id] for row in rows), columns.item_id)
    extra = _extra(table, [columns.item_id, name, *(columns.text if len(columns.text) == 1 else ())])
    items = []
    for row, vector in zip(rows, vectors, strict=True):
        text = joined(part for column in columns.text for part in texts_of(row[column]))
        shown = joined([row[name]]) if name else ""
        extras = {column: row[column] for column in extra}
        items.append(
            Item(item_id=str(row[columns.item_id]), text=text, name=shown or text, extra=extras, vector=vector)
        )
    return items


def load_sets(data: Data, known: Collection[str]) -> tuple[list[ItemSet], Counter[str]]:
    """The sets of `data.sets` and a count of those left out; `known` are the ids of all items.

    A set without a title is left out, unless data.writer 'endpoint' will write one: it then comes with a blank title.
    Raises UserError for a missing file or column, a wrong type, a repeated id, an unknown split, an unknown item.
    """
    path, columns = _path(data.sets, "data.sets"), data.columns
    texts = [columns.set_id or "set_id", columns.title, columns.item_ids, columns.split or "split"]
    table = read_table(path, "data.sets", texts=texts)
    check(table, path, columns.title, TEXT, key="data.columns.title")
    check(table, path, columns.item_ids, IDS, key="data.columns.item_ids")
    set_id = find(table, path, columns.set_id, "set_id", ID)
    split = find(table, path, columns.split, "split", TEXT)
    flag = data.clean_column
    if flag:
        check(table, path, flag, FLAG, key="data.clean_column")
    rows = table.to_pylist()
    require_filled(path, rows, [name for name in (set_id, split, columns.item_ids, flag) if name])
    if set_id:
        require_unique(path, (row[set_id] for row in rows), set_id)

    dropped: Counter[str] = Counter()
    sets = []
    for number, row in enumerate(rows):
        label = f"set {row[set_id]}" if set_id else f"the set in row {number}"
        item_ids = _item_ids(path, label, row[columns.item_ids], data, known)
        given = require_split(path, label, row[split]) if split else None
        title = joined([row[columns.title]])
        if flag and not row[flag]:
            dropped[f"sets whose column {flag} is false (data.clean_column)"] += 1
        elif not title and data.writer == "vocabulary":
            dropped["sets without a title"] += 1
        else:
            home = given or split_of(normalise(title) or label, data.seed)
            sets.append(ItemSet(title=title, split=home, item_ids=item_ids))
    return sets, dropped


def _path(path: Path | None, key: str) -> Path:
    if path is None:
        raise UserError(f"task 'wscr' needs {key}, the path of a table with title and item_ids")
    return path


def _extra(table: pa.Table, used: Collection[str | None]) -> list[str]:
    return [name for name in table.column_names if name not in used and name not in OWN]


def _item_ids(path: Path, label: str, cell: Any, data: Data, known: Collection[str]) -> tuple[str, ...]:
    try:
        item_ids = ids_of(cell, data.id_separator)
    except ValueError as error:
        raise UserError(f"{path}: the item ids of {label} cannot be read ({error}): {cell!r}") from None
    unknown = next((item_id for item_id in item_ids if item_id not in known), None)
    if unknown is not None:
        hint = "" if isinstance(cell, list) else f" (ids are split at {data.id_separator!r}, data.id_separator)"
        raise UserError(f"{path}: {label} names item {unknown!r}, which data.items does not have{hint}")
    return item_ids
