"""The one exception a user's mistake raises: its message says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))  # turn text around


class UserError(Exception):
    """A mistake in the input, the configuration or the machine. The command line prints it and exits with code 2."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the nearest of `choices`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def printable(text: str) -> str:
    """`text` with control characters other than line breaks written out (`\\x1b`): a name from a catalogue or a model
    must not move a terminal's cursor, nor forge a colour or a title."""
    return "".join(c if c == "\n" or not _controls(c) else c.encode("unicode_escape").decode() for c in text)


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTIONS
