"""What a language model is asked when it writes queries, and what it must answer (paper C.1 and C.2).

The paper describes these prompts; the words are ours. Every `read_*` raises `Unusable` for an answer of the wrong
shape; single entries that break a rule are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from r4t.catalog.answers import Unusable, excerpt, json_of, spoken

OAR_WORDS = (2, 6)
WSCR_WORDS = (2, 8)
MAX_CHARACTERS = 200  # of one query
MAX_NAME = 120  # characters of an item's name in a prompt
MAX_LISTED = 50  # items of one set in a prompt

ABSTRACTIONS = {
    "mood": "a mood or feeling, such as 'confident and bold'",
    "aesthetic": "an aesthetic theme, such as 'bohemian festival style'",
    "lifestyle": "a lifestyle or identity, such as 'sustainable living'",
    "trend": "a cultural trend, such as 'cottagecore aesthetic'",
    "season": "a season or time, such as 'summer vacation vibes'",
    "activity": "an activity or occasion, such as 'weekend brunch outfit'",
    "function": "a function or need, such as 'travel essentials'",
    "hybrid": "a meeting of two ideas, such as 'vintage meets modern'",
}
OAR_SYSTEM = "You are a creative query generator for a retrieval system."
_OAR = """Write {count} diverse broad queries that people might type to explore a {domain} catalogue.
Each query describes {abstraction}, in terms that fit {domain}.
- {low} to {high} words, in everyday language.
- About a theme, an aesthetic or a scenario, never about one concrete product; no brand names.
- Open-ended: several readings are possible, and many different items would fit.
- No two queries alike.
Answer with a JSON array of {count} strings and nothing else."""

WSCR_SYSTEM = "You write short queries for a {domain} retrieval system."
_TITLE = """These items of a {domain} catalogue form one set:
{items}
Write one broad query of {low} to {high} words that a person who looks for such a set would type: its style, aesthetic
or occasion, without details of single items. Answer with the query and nothing else."""
_SUBSETS = """Here is a numbered pool of items of a {domain} catalogue:
{items}
Choose {copies} different subsets of exactly {size} items each. The items of a subset form one coherent set, and each
subset has a style of its own. Write for each subset a broad query of {low} to {high} words: its style, aesthetic or
occasion, without details of single items.
Answer with a JSON array of {copies} objects and nothing else, each of the form
{{"items": [numbers of {size} items], "query": "the query"}}."""


def oar_prompt(family: str, count: int, domain: str) -> str:
    """Asks for `count` broad queries of one abstraction family (paper C.1)."""
    low, high = OAR_WORDS
    return _OAR.format(count=count, domain=domain, abstraction=ABSTRACTIONS[family], low=low, high=high)


def title_prompt(names: Sequence[str], domain: str) -> str:
    """Asks for one query to which a set of these items is the answer (paper C.2, base pairs)."""
    low, high = WSCR_WORDS
    listed = "\n".join(f"- {_short(name)}" for name in names[:MAX_LISTED])
    return _TITLE.format(items=listed, domain=domain, low=low, high=high)


def subsets_prompt(names: Sequence[str], copies: int, size: int, domain: str) -> str:
    """Asks for `copies` sets of `size` items out of a pool, each with its query (paper C.2, augmentation)."""
    low, high = WSCR_WORDS
    listed = "\n".join(f"{number}. {_short(name)}" for number, name in enumerate(names))
    return _SUBSETS.format(items=listed, copies=copies, size=size, domain=domain, low=low, high=high)


def read_queries(text: str) -> tuple[list[str], int]:
    """The fit queries of an answer to `oar_prompt`, and how many were left out.

    Raises `Unusable` unless it is a JSON list of strings, one of them fit.
    """
    entries = json_of(text)
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise Unusable(f"no JSON array of strings: {excerpt(text)}")
    fit = [_clean(entry) for entry in entries if _fits(entry, OAR_WORDS)]
    if not fit:
        raise Unusable(f"no query of {OAR_WORDS[0]} to {OAR_WORDS[1]} words: {excerpt(text)}")
    return fit, len(entries) - len(fit)


def read_title(text: str) -> str:
    """The query of an answer to `title_prompt`. Raises `Unusable` unless it is one line of two to eight words."""
    query = spoken(text).strip("\"'`*")
    if len(query.splitlines()) != 1 or not _fits(query, WSCR_WORDS):
        raise Unusable(f"no query of {WSCR_WORDS[0]} to {WSCR_WORDS[1]} words: {excerpt(text)}")
    return _clean(query)


def read_subsets(text: str, pool: int, copies: int, size: int) -> tuple[list[tuple[list[int], str]], int]:
    """Fit (numbers of `size` different items below `pool`, query) of an answer to `subsets_prompt`, at most `copies`,
    and how many of those were left out. Raises `Unusable` unless it is a JSON list of such objects, one of them fit.
    """
    entries = json_of(text)
    if not isinstance(entries, list) or not all(_is_subset(entry) for entry in entries):
        raise Unusable(f"no JSON array of objects with items and query: {excerpt(text)}")
    fit = [
        (entry["items"], _clean(entry["query"]))
        for entry in entries[:copies]
        if len(entry["items"]) == len(set(entry["items"])) == size
        and all(0 <= number < pool for number in entry["items"])
        and _fits(entry["query"], WSCR_WORDS)
    ]
    if not fit:
        raise Unusable(f"no subset of {size} different items of the pool with a fit query: {excerpt(text)}")
    return fit, len(entries[:copies]) - len(fit)


def _is_subset(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("query"), str)
        and isinstance(entry.get("items"), list)
        and all(type(number) is int for number in entry["items"])
    )


def _fits(query: str, words: tuple[int, int]) -> bool:
    return words[0] <= len(query.split()) <= words[1] and len(query) <= MAX_CHARACTERS and query.isprintable()


def _clean(query: str) -> str:
    return " ".join(query.split())


def _short(name: str) -> str:
    return " ".join(name.split())[:MAX_NAME]
