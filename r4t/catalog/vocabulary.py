"""The words of generated broad queries: a shipped vocabulary, or a user's YAML file of the same form.

Eight abstraction families (paper C.1): aesthetic theme, activity, season, lifestyle identity, mood, cultural trend,
function, hybrid. A file holds `nouns: [...]` and `families: {mood: [...], ...}`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from r4t.catalog.source import normalise
from r4t.config.data import SHIPPED_FAMILIES
from r4t.config.yaml_text import read_yaml
from r4t.errors import UserError, did_you_mean

FAMILIES = ("mood", "aesthetic", "lifestyle", "trend", "season", "activity", "function", "hybrid")
MAX_WORDS = 6  # of a query (paper C.1)
MAX_BYTES = 1 << 20
MAX_QUERIES = 1_000_000  # all of them are laid out in memory before some are drawn


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`modifiers` per family, families in the order in which their words stand before the noun."""

    modifiers: dict[str, tuple[str, ...]]
    nouns: tuple[str, ...]


def load_vocabulary(families: str) -> Vocabulary:
    """The vocabulary that ships under that name, or that of the YAML file at that path.

    Raises UserError for a missing, oversized or malformed file, a missing or unknown family, an empty list, an entry
    that is no text or too long for a query, or more queries than `MAX_QUERIES`.
    """
    shipped = families in SHIPPED_FAMILIES
    path = Path(__file__).parent / f"families_{families}.yaml" if shipped else Path(families)
    raw = _read(path)
    _check_keys(path, raw, ("nouns", "families"), "key")
    if not isinstance(raw["families"], dict):
        raise UserError(f"{path}: 'families' must map each family to a list of words, as families_food.yaml does")
    _check_keys(path, raw["families"], FAMILIES, "family")
    vocabulary = Vocabulary(
        modifiers={family: _words(path, f"families.{family}", raw["families"][family]) for family in FAMILIES},
        nouns=_words(path, "nouns", raw["nouns"]),
    )
    sizes = {family: len(words) for family, words in vocabulary.modifiers.items()}
    pairs = sum(sizes[a] * sizes[b] for a, b in combinations([f for f in FAMILIES if f != "hybrid"], 2))
    if (pairs + sum(sizes.values())) * len(vocabulary.nouns) > MAX_QUERIES:
        raise UserError(f"{path} combines to more than {MAX_QUERIES:,} queries: shorten its lists")
    return vocabulary


def _read(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        hint = did_you_mean(path.name, SHIPPED_FAMILIES)
        raise UserError(
            f"no vocabulary at {path}{hint}: data.families is {', '.join(SHIPPED_FAMILIES)} or the path of a YAML file"
        )
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} (data.families) is larger than {MAX_BYTES >> 20} MiB: shorten its lists")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} (data.families) is not valid YAML: {error}") from None
    raw = read_yaml(text, f"{path} (data.families)")
    if not isinstance(raw, dict):
        raise UserError(f"{path} (data.families) must hold 'nouns' and 'families', not a {type(raw).__name__}")
    return raw


def _check_keys(path: Path, raw: dict[Any, Any], known: Iterable[str], what: str) -> None:
    known = list(known)
    for key in raw:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise UserError(f"{path}: unknown {what} {reprlib.repr(key)}{hint}: use {', '.join(known)}")
    missing = [key for key in known if key not in raw]
    if missing:
        raise UserError(f"{path} has no {what} {', '.join(missing)}: add a list of words under each")


def _words(path: Path, key: str, raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw:
        raise UserError(f"{path}: '{key}' must be a list of one or more texts")
    for entry in raw:
        if not isinstance(entry, str) or not entry.strip():
            # A nested list is not printed: by aliases, a short file can spell one of any size.
            shown = f"a {type(entry).__name__}" if isinstance(entry, list | dict) else reprlib.repr(entry)
            raise UserError(f"{path}: '{key}' holds {shown}, which is no text: write it in quotes or remove it")
        if len(entry.split()) >= MAX_WORDS:
            raise UserError(
                f"{path}: '{key}' holds {reprlib.repr(entry)}: a query has {MAX_WORDS} words at most, so shorten it"
            )
    return tuple(dict.fromkeys(normalise(entry) for entry in raw))
