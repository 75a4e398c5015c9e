"""`mirror.json`: which files a mirrored run holds, by size and hash. It is written last, and it alone decides.

The objects are named by the hash of their content, so a push never writes over what an older index names.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from r4t.errors import UserError
from r4t.lineage import PROBES, SCRATCH, TEMPORARY
from r4t.verify import FLEETING

INDEX = "mirror.json"
OBJECTS = "objects"
LIMIT = 1 << 28  # bytes of an index: a million files
YEAR_5000 = 95617584000  # in seconds, as no clock says
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file's content."""

    sha256: str
    size: int

    @property
    def key(self) -> str:
        """Of its object."""
        return f"{OBJECTS}/{self.sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A state of a run, and which process wrote it when it took the mirror over."""

    files: dict[str, Entry]
    owner: str
    since: float
    """Unix time at which the owner took over."""

    @property
    def digest(self) -> str:
        """Names the state, whoever wrote it."""
        return hashlib.sha256(json.dumps(_plain(self.files), sort_keys=True).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        content = {"schema": 1, "owner": self.owner, "since": self.since, "files": _plain(self.files)}
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def parse_index(content: bytes, where: str) -> Index:
    """Reads an index that someone else may have written. Raises UserError that says why it is refused."""
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(where, f"it is no JSON ({error})") from None
    if not isinstance(raw, dict) or raw.get("schema") != 1:
        raise _refused(where, "it is of another version")
    files, owner, since = raw.get("files"), raw.get("owner"), raw.get("since")
    if not isinstance(since, int | float) or isinstance(since, bool) or not 0 <= since < YEAR_5000:
        raise _refused(where, "it lacks its time")
    if not isinstance(files, dict) or not isinstance(owner, str):
        raise _refused(where, "it lacks its files or its owner")
    for name, entry in files.items():
        if problem := name_problem(name) or _entry_problem(entry):
            raise _refused(where, f"{name!r} {problem}")
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    if both := folders & files.keys():
        raise _refused(where, f"{min(both)!r} is a file and a folder")
    entries = {name: Entry(entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    return Index(files=entries, owner=owner, since=float(since))


def is_mirrored(name: str) -> bool:
    """Whether a file of a run belongs into its mirror: no lock, nothing half written."""
    parts = PurePosixPath(name).parts
    return not any(part in FLEETING or part.startswith(TRANSIENT) for part in parts)


TRANSIENT = (TEMPORARY, PROBES, SCRATCH)


def name_problem(name: str) -> str | None:
    """Why a name of a store that anybody may have written is none for a file here."""
    pure = PurePosixPath(name)
    if not name or "\\" in name or not name.isprintable() or any(len(part.encode()) > 255 for part in pure.parts):
        return "is no file's name"
    if pure.is_absolute() or ".." in pure.parts or str(pure) != name:
        return "leaves the run's directory, or names it in a roundabout way"
    return None if is_mirrored(name) else "is a file that R4T never mirrors"


def _entry_problem(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str) or type(entry.get("bytes")) is not int:
        return "has no hash and size"
    return None if _HASH.fullmatch(entry["sha256"]) and entry["bytes"] >= 0 else "has no valid hash and size"


def _plain(files: dict[str, Entry]) -> dict[str, dict[str, str | int]]:
    return {name: {"sha256": entry.sha256, "bytes": entry.size} for name, entry in files.items()}


def _refused(where: str, why: str) -> UserError:
    return UserError(f"{where}/{INDEX} is no mirror that R4T wrote: {why}. Nothing was changed; give another address")
