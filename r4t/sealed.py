"""Folders that hold the hashes of their own files: whoever goes on from one knows that it is as it was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from r4t.lineage import atomic_folder, file_hash, is_sealed, read_json, write_sealed

RECORD = "files.json"
STEPS = "step-*"


@contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """`atomic_folder`, which ends with the hash of every file in it."""
    with atomic_folder(path) as temporary:
        yield temporary
        write_sealed(temporary / RECORD, {"files": _hashes(temporary)})


def damage(folder: Path) -> str:
    """What is not as `sealed_folder` wrote it, empty for nothing. A folder without a record is not judged."""
    record = folder / RECORD
    if not record.is_file():
        return ""
    if not is_sealed(record):
        return RECORD
    written, found = read_json(record)["files"], _hashes(folder)
    return ", ".join(sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name)))


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest `step-*` folder that is as it was written. Newer ones are told of and removed."""
    for found in sorted(folder.glob(STEPS), reverse=True):
        if not (problem := damage(found)):
            return found
        say(f"{found} is damaged ({problem}): going on from the one before, or else from the start")
        shutil.rmtree(found)
    return None


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
