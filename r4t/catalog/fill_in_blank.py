"""Fill-in-the-blank questions in the layout of Polyvore's `fill_in_blank_test.json` (Han et al., ACM MM 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r4t.catalog.files import read_json_text
from r4t.errors import UserError

CHOICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankQuestion:
    """An outfit with one item taken out, and four items of which the first is the one."""

    items: tuple[str, ...]
    """Ids of the items that stayed."""
    choices: tuple[str, ...]


def read_blanks(path: Path) -> list[BlankQuestion]:
    """Questions of a JSON list, or of a Parquet table with the same columns `question` and `answers`.

    Raises UserError for a missing or damaged file, or a question without items and four answers.
    """
    if path.suffix == ".parquet":
        if not path.is_file():
            raise UserError(f"no file at {path}: evaluate.fill_in_blank must name the questions")
        rows: Any = pq.read_table(path).to_pylist()
    else:
        rows = read_json_text(path, "evaluate.fill_in_blank")
    if not isinstance(rows, list):
        raise UserError(f"{path} must hold a list of questions, not a {type(rows).__name__}")
    return [_question(path, number, row) for number, row in enumerate(rows)]


def _question(path: Path, number: int, row: Any) -> BlankQuestion:
    items, choices = (_ids(row, key) for key in ("question", "answers"))
    if not items or len(set(choices)) != CHOICES or len(choices) != CHOICES:
        raise UserError(
            f"{path}: question {number} needs a list 'question' of item ids and {CHOICES} different 'answers',"
            " the right one first: fix or remove it"
        )
    return BlankQuestion(items=items, choices=choices)


def _ids(row: Any, key: str) -> tuple[str, ...]:
    cell = row.get(key) if isinstance(row, Mapping) else None
    return tuple(map(str, cell)) if isinstance(cell, list) else ()
