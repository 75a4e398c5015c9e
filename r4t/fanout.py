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
    asked = f"{QUERY_OPEN}{query}{QUERY_CLOSE}"
    if style == "compact":
        return asked
    return f"{_INSTRUCTIONS[task].format(domain=domain)}\n{_FORMAT.format(k=k)}\n{asked}"


def format_answer(subqueries: Sequence[str]) -> str:
    """The answer that `parse` reads back; what the warm start teaches."""
    return f"{OPEN}{json.dumps(list(subqueries), ensure_ascii=False)}{CLOSE}"


def parse(text: str, k: int) -> Fanout:
    """Reads the *last* `<queries>` block of an answer.

    Strips strings and drops empty ones; keeps the first k; pads fewer than k by cycling those written (which costs
    diversity, so that one perfect query is no shortcut). Exact duplicates stay. Anything else is invalid: no closed
    block, no JSON list, an element that is not a string, or no query left.
    """
    start = text.rfind(OPEN)
    end = text.find(CLOSE, start)
    if start < 0 or end < 0:
        return INVALID
    start += len(OPEN)
    body = text[start:end]
    try:
        values = json.loads(body)
    except (json.JSONDecodeError, RecursionError):
        return INVALID
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return INVALID
    ranges = [(start + match.start(), start + match.end()) for match in _STRING.finditer(body)]
    written = [(value.strip(), span) for value, span in zip(values, ranges, strict=True) if value.strip()]
    if not written:
        return INVALID
    kept = written[:k]
    subqueries = tuple(kept[i % len(kept)][0] for i in range(k))
    return Fanout(subqueries=subqueries, valid=True, n_written=len(written), spans=tuple(span for _, span in kept))
