"""Prompts of the fan-out language model (FOLM) and the strict parser of its answers (paper App. D).

The answer is a JSON list of strings inside `<queries>...</queries>`. Two prompt styles exist: `paper` instructs an
instruction-tuned model, `compact` is the bare query for a small policy that learns the format in its warm start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Literal

from r4t.types import Fanout

OPEN, CLOSE = "<queries>", "</queries>"
QUERY_OPEN, QUERY_CLOSE = "<broad_query>", "</broad_query>"

INVALID = Fanout(subqueries=(), valid=False)
ANSWERS = ("ok", "no_block", "not_json", "not_strings", "empty")
"""What an answer can be: a list to search with, or no closed block, no JSON in it, no list of strings, none written."""
_ESCAPED = "\\u003c"  # "<" inside a JSON string
_MARK = re.compile("|".join(map(re.escape, (OPEN, CLOSE, QUERY_OPEN, QUERY_CLOSE, "<think>", "</think>"))))
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')

_INSTRUCTIONS = {
    "oar": (
        "You are a query writer. For the broad query below, write a list of queries that differ from one another and"
        " stay on its topic, preferably by adding or changing one to three words. They will search a {domain} dataset."
    ),
    "wscr": (
        "You are a query writer. For the broad query below, write queries that together retrieve a set of items from a"
        " {domain} dataset, so that the items form one complete set."
    ),
}
_FORMAT = (
    "Reason inside <think> </think>. Then give the final answer as JSON inside <queries> </queries>: a list of up to"
    ' {k} strings, for example <queries>["first query", "second query"]</queries>.'
)


def build_prompt(
    query: str, *, style: Literal["compact", "paper"], task: Literal["oar", "wscr"], domain: str, k: int
) -> str:
    """The user message for one broad query. OAR and WSCR instruct differently (paper App. D)."""
    asked = f"{QUERY_OPEN}{unmarked(query)}{QUERY_CLOSE}"
    if style == "compact":
        return asked
    return f"{_INSTRUCTIONS[task].format(domain=domain)}\n{_FORMAT.format(k=k)}\n{asked}"


def unmarked(text: str) -> str:
    """`text` without the format's own marks, which in a query would end it early or pose as an answer."""
    while (found := _MARK.sub(" ", text)) != text:  # what is left of two marks may be a third
        text = found
    return text


def format_answer(subqueries: Sequence[str]) -> str:
    """The answer that `parse` reads back, whatever the sub-queries hold; what the warm start teaches."""
    written = json.dumps(list(subqueries), ensure_ascii=False)
    return f"{OPEN}{written.replace(OPEN, _ESCAPED + OPEN[1:]).replace(CLOSE, _ESCAPED + CLOSE[1:])}{CLOSE}"


def parse(text: str, k: int) -> Fanout:
    """Reads the *last* `<queries>` block of an answer.

    Strips strings and drops empty ones; keeps the first k; pads fewer than k by cycling those written (which costs
    diversity, so that one perfect query is no shortcut). Exact duplicates stay. Anything else is invalid (`ANSWERS`).
    """
    status, values, start, body = _block(text)
    if status != "ok":
        return INVALID
    ranges = [(start + match.start(), start + match.end()) for match in _STRING.finditer(body)]
    written = [(value.strip(), span) for value, span in zip(values, ranges, strict=True) if value.strip()]
    kept = written[:k]
    subqueries = tuple(kept[i % len(kept)][0] for i in range(k))
    return Fanout(subqueries=subqueries, valid=True, n_written=len(written), spans=tuple(span for _, span in kept))


def read_list(text: str, k: int) -> tuple[str, list[str]]:
    """One of `ANSWERS`, and the k sub-queries that `parse` finds (none when the answer is invalid).

    Leaves out where they stand in the text, which only training asks for.
    """
    status, values, _, _ = _block(text)
    if status != "ok":
        return status, []
    kept = [stripped for value in values if (stripped := value.strip())][:k]
    return status, kept if len(kept) == k else [kept[i % len(kept)] for i in range(k)]


def _block(text: str) -> tuple[str, list[str], int, str]:
    """What the answer is, the strings of its list, and the list's text with its place."""
    start = text.rfind(OPEN)
    end = text.find(CLOSE, start)
    if start < 0 or end < 0:
        return "no_block", [], 0, ""
    start += len(OPEN)
    body = text[start:end]
    try:
        values = json.loads(body)
    except (json.JSONDecodeError, RecursionError):
        return "not_json", [], start, body
    if not isinstance(values, list) or set(map(type, values)) - {str}:
        return "not_strings", [], start, body
    if "\\u" in body:  # an escape may leave half a character, which no text file and no encoder takes
        values = [value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values]
    if not any(map(str.strip, values)):
        return "empty", [], start, body
    return "ok", values, start, body
