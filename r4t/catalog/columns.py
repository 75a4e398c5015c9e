"""Columns of a table: found by name, checked for type, and read cell by cell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from r4t.catalog.source import SPLITS
from r4t.errors import UserError, did_you_mean

Kind = tuple[str, Callable[[pa.DataType], bool]]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_integer(kind)


def _is_list_of(kind: pa.DataType, accepts: Callable[[pa.DataType], bool]) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return listed and (accepts(kind.value_type) or pa.types.is_null(kind.value_type))


TEXT: Kind = ("text", _is_text)
TEXTS: Kind = ("text or a list of texts", lambda kind: _is_text(kind) or _is_list_of(kind, _is_text))
ID: Kind = ("text or whole numbers", _is_id)
IDS: Kind = ("a list of item ids, or text that holds one", lambda kind: _is_text(kind) or _is_list_of(kind, _is_id))
FLAG: Kind = ("true or false", pa.types.is_boolean)
NUMBERS: Kind = (
    "a list of numbers (in Parquet or JSON lines)",
    lambda kind: _is_list_of(kind, lambda value: pa.types.is_floating(value) or pa.types.is_integer(value)),
)


def find(table: pa.Table, path: Path, given: str | None, usual: str, kind: Kind) -> str | None:
    """The column that the user named, or the one of the usual name where there is one. Raises UserError as `check`."""
    name = given or (usual if usual in table.column_names else None)
    if name is not None:
        check(table, path, name, kind, key=f"data.columns.{usual}")
    return name


def check(table: pa.Table, path: Path, name: str, kind: Kind, *, key: str) -> None:
    """Raises UserError, which names the config key, where the table has no column `name` or one of another kind."""
    if name not in table.column_names:
        hint = did_you_mean(name, table.column_names)
        raise UserError(
            f"{path} has no column '{name}'{hint}, see {key}: its columns are {', '.join(table.column_names)}"
        )
    found = table.schema.field(name).type
    if not kind[1](found) and not pa.types.is_null(found):
        raise UserError(f"{path}: column '{name}' has type {found}, it must be {kind[0]}")


def require_filled(path: Path, rows: Iterable[dict[str, Any]], names: Sequence[str]) -> None:
    """Raises UserError for the first row where one of the columns is null or blank."""
    for number, row in enumerate(rows):
        for name in names:
            if row[name] is None or (isinstance(row[name], str) and not row[name].strip()):
                raise UserError(f"{path}: row {number} has no '{name}': fill it in or remove the row")


def require_unique(path: Path, ids: Iterable[Any], name: str) -> None:
    """Raises UserError when a value comes twice."""
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} duplicate values of '{name}' (first: {twice[0]!r}): make them unique")


def require_split(path: Path, row: str, split: str) -> str:
    """`split`, when it is one. Raises UserError that names the row otherwise."""
    if split not in SPLITS:
        raise UserError(f"{path}: {row} has split '{split}': use one of {', '.join(SPLITS)}")
    return split


def texts_of(cell: str | list[str | None] | None) -> list[str | None]:
    """The texts of a cell that holds one or a list of them."""
    return cell if isinstance(cell, list) else [cell]


def ids_of(cell: str | list[Any], separator: str) -> tuple[str, ...]:
    """The ids of a cell, each once: a list, or text that is a JSON list or has `separator` between the ids.

    Raises ValueError for text that starts like a JSON list and is none, and for an id that is neither text nor whole.
    """
    if isinstance(cell, str):
        text = cell.strip()
        cell = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(separator)]
    for value in cell:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{value!r} is no id: ids are text or whole numbers")
    return tuple(dict.fromkeys(str(value) for value in cell if value != ""))
