"""A run's files as they stood at one moment, while the run goes on."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from r4t.lineage import TEMPORARY, file_hash
from r4t.storage.failures import StoreError
from r4t.storage.index import Entry, is_mirrored

GROWING = ("log.txt", "metrics.jsonl", "wandb")  # written in place; everything else is renamed into its place
TRIES = 50
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)

Stamp = tuple[int, int, int]
"""Inode, bytes and time of change: the same as long as the content is."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file of the snapshot: what it holds, and where that can be read until the snapshot ends."""

    entry: Entry
    path: Path
    stamp: Stamp

    def check(self, name: str) -> None:
        """Raises StoreError, a passing one, where the content is no longer what was hashed."""
        if not self.path.exists() or _stamp(self.path.stat()) != self.stamp:
            raise StoreError(f"{name} is being written: it is mirrored next time", passing=True)


class Hashes:
    """What files hold, read once for each version of a file."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, Entry]] = {}

    def known(self, name: str, stamp: Stamp) -> Entry | None:
        found = self._known.get(name)
        return found[1] if found is not None and found[0] == stamp else None

    def keep(self, name: str, stamp: Stamp, entry: Entry) -> None:
        self._known[name] = (stamp, entry)


def listing(run: Path) -> dict[str, Stamp]:
    """Every file of a run that its mirror holds, by its name below `run`. Links are left out."""
    found: dict[str, Stamp] = {}
    for folder, folders, files in os.walk(run):
        base = Path(folder).relative_to(run)
        folders[:] = [name for name in folders if is_mirrored(name)]
        for name in files:
            relative = (base / name).as_posix()
            try:
                info = (run / relative).lstat()
            except FileNotFoundError:
                continue
            if is_mirrored(relative) and stat.S_ISREG(info.st_mode):
                found[relative] = _stamp(info)
    return found


@contextmanager
def snapshot(run: Path, hashes: Hashes) -> Iterator[dict[str, Held]]:
    """The files of one moment. Those that `hashes` does not know are held by links, so that the run may remove them.

    A run that is killed at that moment has just these files, and goes on from them. Raises StoreError, a passing one,
    where a file is written in place meanwhile.
    """
    held = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}mirror-", dir=run))
    try:
        stamps, places = _still(run, hashes, held)
        found = {}
        for name, stamp in stamps.items():
            entry = hashes.known(name, stamp)
            if entry is not None:
                found[name] = Held(entry, run / name, stamp)
                continue
            found[name] = _hashed(name, places[name])
            hashes.keep(name, stamp, found[name].entry)
        yield found
    finally:
        shutil.rmtree(held, ignore_errors=True)


def _still(run: Path, hashes: Hashes, held: Path) -> tuple[dict[str, Stamp], dict[str, Path]]:
    """A listing that stood still while its files were linked, and the places of the links."""
    for _ in range(TRIES):
        stamps, places = listing(run), {}
        try:
            for number, (name, stamp) in enumerate(stamps.items()):
                if hashes.known(name, stamp) is None:
                    places[name] = _hold(run, name, held / str(number))
        except FileNotFoundError:
            _empty(held)
            continue
        if _settled(listing(run)) == _settled(stamps):
            return stamps, places
        _empty(held)
    raise StoreError(f"{run} changes too fast to be mirrored: it is tried again", passing=True)


def _settled(stamps: dict[str, Stamp]) -> dict[str, Stamp | None]:
    return {name: None if _grows(name) else stamp for name, stamp in stamps.items()}


def _grows(name: str) -> bool:
    return name.partition("/")[0] in GROWING


def _hold(run: Path, name: str, place: Path) -> Path:
    if not _grows(name):
        try:
            os.link(run / name, place, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            return place
    shutil.copyfile(run / name, place)
    return place


def _hashed(name: str, path: Path) -> Held:
    info = path.stat()
    held = Held(Entry(file_hash(path), info.st_size), path, _stamp(info))
    held.check(name)
    return held


def _stamp(info: os.stat_result) -> Stamp:
    return info.st_ino, info.st_size, info.st_mtime_ns


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
