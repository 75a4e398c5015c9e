"""What a run directory knows of its mirror: the state in which both were last the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r4t.errors import UserError
from r4t.lineage import read_json, write_json
from r4t.storage.index import Entry, Index, parse_index

RECORD = ".mirror.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`state`: the files that were the same on both sides. `sent`: digests of states that a push began to write.

    `pulling`: a pull had begun to put files into place, so that the directory may hold parts of two states.
    """

    url: str
    state: dict[str, Entry] | None = None
    sent: tuple[str, ...] = ()
    pulling: bool = False

    def knows(self, index: Index) -> bool:
        """Whether a mirror's state is one that this directory has had."""
        return index.digest in self.sent

    def sending(self, index: Index) -> Record:
        return replace(self, sent=tuple(dict.fromkeys([*self.sent[-1:], index.digest])))

    def same(self, index: Index) -> Record:
        return Record(url=self.url, state=index.files, sent=(index.digest,))


def read_record(run: Path, url: str) -> Record:
    """The record of this mirror; an empty one where there is none, or that of another."""
    path = run / RECORD
    raw: Any = {}
    if path.is_file():
        try:
            raw = read_json(path)
            if isinstance(raw, dict) and raw.get("url") == url:
                index = parse_index(_bytes(raw.get("index")), str(run)) if raw.get("index") else None
                state = None if index is None else index.files
                return Record(url=url, state=state, sent=tuple(map(str, raw["sent"])), pulling=bool(raw["pulling"]))
        except (UserError, KeyError, TypeError):
            return Record(url=url)  # what is not known is compared file by file
    return Record(url=url)


def write_record(run: Path, record: Record) -> None:
    """Keeps it, atomically."""
    index = None
    if record.state is not None:
        index = Index(files=record.state, owner="", since=0.0).to_bytes().decode()
    content = {"url": record.url, "sent": list(record.sent), "pulling": record.pulling, "index": index}
    write_json(run / RECORD, content)


def _bytes(text: object) -> bytes:
    return str(text).encode()


def check_whole(run: Path) -> None:
    """Raises UserError where a pull ended while it put files into place: they may be of two states."""
    path = run / RECORD
    raw = read_json(path) if path.is_file() else {}
    if isinstance(raw, dict) and raw.get("pulling"):
        raise UserError(f"a pull into {run} was interrupted: do it again with `r4t pull {raw.get('url')} {run}`")
