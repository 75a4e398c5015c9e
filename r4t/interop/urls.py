"""Reward servers' URLs, which may hold a key. Imports nothing heavy: `openrlhf_patch` needs it in every worker."""

from __future__ import annotations

from urllib.parse import quote


def with_key(url: str, key: str | None) -> str:
    """The URL through which OpenRLHF's client sends a key: it adds no header, but sends what stands before an @."""
    scheme, mark, rest = url.partition("://")
    return url if key is None else f"{scheme}{mark}r4t:{quote(key, safe='')}@{rest}"


def shown(url: str) -> str:
    """The URL as it may be shown."""
    scheme, mark, rest = url.rpartition("://")
    return scheme + mark + rest.rpartition("@")[2]
