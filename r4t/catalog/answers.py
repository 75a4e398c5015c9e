"""Reading what a language model answered: text from outside, parsed strictly and never run."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_BYTES = 1 << 20  # of one response
SHOWN = 200  # characters of an unusable answer that a message repeats

_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)


class Unusable(Exception):
    """An answer that says nothing usable. Its message quotes a piece of the answer."""


def text_of(response: bytes) -> str:
    """The model's text in the body of a chat completion. Raises `Unusable` for a body of any other shape."""
    body = _load(response.decode(errors="replace"))
    try:
        text = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise Unusable(f"no chat completion: {excerpt(response.decode(errors='replace'))}") from None
    if not isinstance(text, str):
        raise Unusable("a chat completion without text")
    return text.encode(errors="replace").decode()  # JSON can spell half a character, which no file could hold


def json_of(text: str) -> Any:
    """The answer as JSON, without a leading `<think>` block or a code fence around it. Raises `Unusable`."""
    bare = spoken(text)
    fence = _FENCE.match(bare)
    return _load(fence.group(1) if fence else bare)


def spoken(text: str) -> str:
    """The answer without the model's thoughts and outer space."""
    return _THOUGHT.sub("", text, count=1).strip()


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= SHOWN else line[:SHOWN] + "...")


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable(f"not JSON: {excerpt(text)}") from None
