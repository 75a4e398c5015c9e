"""Addresses of stores: `s3://bucket/folder`, `gs://bucket/folder`, `file:///folder` or a plain path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from r4t.errors import did_you_mean

SCHEMES = ("s3", "gs", "file", "memory")  # memory: of this process, for tests
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FLATTENED = re.compile(rf"({'|'.join(SCHEMES)}):/([^/].*)")  # what pathlib makes of an address


def url_problem(text: str) -> str | None:
    """What is wrong with an address, and the fix; None for one that a store can be opened at. Repeats no part of it."""
    found = _SCHEME.match(text)
    if found is None:
        return None if text and "\0" not in text else "give an address such as s3://bucket/folder, or a path"
    scheme, rest = found[1], text[found.end() :]
    if scheme not in SCHEMES:
        return f"unknown kind of store '{scheme}'{did_you_mean(scheme, SCHEMES)}: give s3://, gs://, file:// or a path"
    if "@" in rest or "?" in rest or "#" in rest:
        return (
            "leave credentials, query and fragment out of the address: credentials come from the environment alone"
            " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if any(part in ("", ".", "..") for part in rest.strip("/").split("/")) or not rest.isprintable():
        return f"after {scheme}:// come a bucket and folders, with one '/' between: {scheme}://bucket/folder"
    return None


def split_url(text: str) -> tuple[str, str]:
    """Scheme and root of an address without problem: `("s3", "bucket/folder")`; a plain path is a `file`."""
    found = _SCHEME.match(text)
    if found is None:
        return "file", str(Path(text).absolute())
    root = text[found.end() :].strip("/")
    return found[1], f"/{root}" if found[1] == "file" else root


def below(url: str, name: str) -> str:
    """The address of a folder in that of another."""
    return f"{url.rstrip('/')}/{name}"


def is_url(text: str) -> bool:
    """Whether a text is an address with a scheme, and no plain path."""
    return _SCHEME.match(text) is not None


def may_hold_secrets(value: object) -> bool:
    """Whether a text is an address in which someone may have put a key."""
    return isinstance(value, str) and "://" in value and any(mark in value for mark in "@?#")


def url_of(path: Path) -> str | None:
    """The address that a path of the configuration stands for, or None for one of the file system."""
    found = _FLATTENED.fullmatch(str(path))
    return None if found is None else f"{found[1]}://{'/' if found[1] == 'file' else ''}{found[2]}"


def _checked(value: object) -> object:
    if isinstance(value, str) and is_url(value) and (problem := url_problem(value)):
        raise ValueError(problem)
    return value


def _written(path: Path) -> str:
    return url_of(path) or str(path)


PathOrUrl = Annotated[Path, BeforeValidator(_checked), PlainSerializer(_written, return_type=str)]
"""A path of the file system, or the address of an object or a folder of a store: then `url_of` gives it back."""


def check_mirror(url: str | None) -> str | None:
    """A validator: the address without a slash at its end. Raises ValueError for one that no store has."""
    if url is None:
        return None
    if problem := url_problem(url):
        raise ValueError(problem)
    return url if is_url(url) and split_url(url)[0] != "file" else f"file://{split_url(url)[1]}"
