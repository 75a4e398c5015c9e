"""Data that lies in a store: fetched once into the cache, anew when the object has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r4t.cache import cache_folder
from r4t.config import Data
from r4t.errors import UserError
from r4t.lineage import atomic_path, file_hash
from r4t.storage.index import name_problem
from r4t.storage.store import Store
from r4t.storage.urls import url_of

KEYS = ("items", "sets", "item_vectors", "queries")
VERSIONS = ("ETag", "etag", "generation", "md5Hash", "crc32c", "mtime", "created")  # by kind of store


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """`data` with paths of this machine alone, and of each URL what was fetched: for the lineage."""

    data: Data
    records: dict[str, dict[str, Any]]


def fetch_sources(data: Data) -> Sources:
    """Fetches what the configuration names by URL. Raises UserError as `fetch`."""
    records: dict[str, dict[str, Any]] = {}

    def local(path: Path | None, key: str) -> Path | None:
        url = None if path is None else url_of(path)
        if url is None:
            return path
        place, records[key] = fetch(url, key)
        return place

    changes: dict[str, Any] = {key: local(getattr(data, key), f"data.{key}") for key in KEYS}
    changes["sources"] = {
        name: table.model_copy(
            update={key: local(getattr(table, key), f"data.sources.{name}.{key}") for key in ("items", "sets")}
        )
        for name, table in data.sources.items()
    }
    return Sources(data=data.model_copy(update=changes) if records else data, records=records)


def fetch(url: str, key: str) -> tuple[Path, dict[str, Any]]:
    """A copy of an object, or of all objects of a folder, in the cache, and its lineage. `key` is the one to blame.

    Raises UserError where there is nothing, and for names that are no files' here.
    """
    store = Store(url)
    info = store.describe("")
    parts = {"": info} if info is not None and info["type"] == "file" else store.listing()
    if not parts:
        raise UserError(f"there is nothing at {url}: {key} must be the address of an object or of a folder of objects")
    for name in parts:
        if name and (problem := name_problem(name)):
            raise UserError(f"{url} ({key}) holds {name!r}, which {problem}: rename or remove it")
    version = hashlib.sha256(json.dumps([url, _versions(parts)]).encode()).hexdigest()
    place = cache_folder("objects") / version[:32] / url.rsplit("/", 1)[1]
    hashes = {name: _fetched(store, name, info, place / name if name else place) for name, info in parts.items()}
    record = {"url": url, "bytes": sum(int(info["size"]) for info in parts.values()), "version": version}
    return place, record | {"sha256": hashes.get("", hashes)}


def _versions(parts: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [
        [name, str(info["size"]), *(str(info[kind]) for kind in VERSIONS if kind in info)]
        for name, info in sorted(parts.items())
    ]


def _fetched(store: Store, name: str, info: Mapping[str, Any], path: Path) -> str:
    """Fetches one object, where it is not there yet. Returns its hash."""
    if path.is_file() and path.stat().st_size == int(info["size"]):
        return file_hash(path)
    with atomic_path(path) as temporary:
        if not store.download(name, temporary) or temporary.stat().st_size != int(info["size"]):
            raise UserError(f"{store.url}/{name} changed while it was fetched: run again")
    return file_hash(path)
