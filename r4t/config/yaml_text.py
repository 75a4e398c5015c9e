"""YAML as a user writes it: read without tags, bounded, with one kind of error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from r4t.errors import UserError

BYTES = 1 << 20  # of a file
VALUES = 100_000  # of a document, aliases written out
DEPTH = 100  # of brackets in brackets: PyYAML takes seconds to give up on a thousand
# What PyYAML's scalar constructors raise beside YAMLError, for example on `!!bool x`, `!!int ""` and `2001-99-99`.
_UNREADABLE = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, RecursionError)


def read_yaml_file(path: Path) -> Any:
    """What a YAML file holds. FileNotFoundError is the caller's to explain; everything else wrong is a UserError."""
    try:
        if path.stat().st_size > BYTES:
            raise UserError(f"{path} is larger than {BYTES >> 20} MiB: a configuration is a few lines of YAML")
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: it is no UTF-8 text ({error.reason})") from None
    except (IsADirectoryError, PermissionError, NotADirectoryError) as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file") from None
    return read_yaml(text, str(path))


def read_yaml(text: str, what: str) -> Any:
    """What YAML text holds. Raises UserError, which begins with `what`, for text that is none or grows when read.

    Aliases are allowed while the document stays small with each of them written out; `&a [*a, *a]` nested thirty times
    would be a billion values.
    """
    depth = 0
    for bracket in re.findall(r"[][{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        if depth > DEPTH:
            raise UserError(f"{what} is not valid YAML here: brackets nest more than {DEPTH} deep")
    try:
        found = yaml.safe_load(text)
    except _UNREADABLE as error:
        raise UserError(f"{what} is not valid YAML: {error}") from None
    if _count(found, VALUES, ()) > VALUES:
        raise UserError(f"{what} is not valid YAML here: its aliases unfold to more than {VALUES} values, or forever")
    return found


def _count(value: Any, limit: int, around: tuple[int, ...]) -> int:
    """Values in `value`, aliases written out; more than `limit` as soon as that is sure."""
    if not isinstance(value, dict | list | set | tuple):
        return 1
    if id(value) in around or len(around) > DEPTH:
        return limit + 1
    total = 1
    for child in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
        total += _count(child, limit - total, (*around, id(value)))
        if total > limit:
            break
    return total
