"""Answers of language models on disk, one JSON file per request, shared by every run of this user."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from r4t.cache import cache_folder
from r4t.errors import UserError
from r4t.lineage import write_json


def cached_answer(request: dict[str, Any]) -> str | None:
    """The text that answered this very request (model, prompt, parameters), or None. A damaged file counts as none."""
    try:
        answer = json.loads(_path(request).read_text(encoding="utf-8"))["answer"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return answer if isinstance(answer, str) else None


def store_answer(request: dict[str, Any], answer: str) -> None:
    """Keeps an answer beside its request. Raises UserError when the folder cannot be written."""
    try:
        write_json(_path(request), {"request": request, "answer": answer})
    except OSError as error:
        raise UserError(
            f"cannot write to {cache_folder('answers')} ({error.strerror}): set R4T_CACHE to a folder that you own"
        ) from None


def _path(request: dict[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return cache_folder("answers") / f"{key}.json"
