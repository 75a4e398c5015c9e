"""From a mirror to a run directory: everything is fetched and held against its hash before anything is put in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from r4t.errors import UserError
from r4t.lineage import MANIFEST, TEMPORARY, atomic_path, file_hash
from r4t.storage.index import OBJECTS, Entry, Index
from r4t.storage.push import Progress, in_parallel, read_index
from r4t.storage.record import Record, read_record, write_record
from r4t.storage.snapshot import listing
from r4t.storage.store import Store

STAGING = f"{TEMPORARY}pull"


def pull(
    run: Path, store: Store, *, begin: Callable[[int], None] = lambda _: None, moved: Progress = lambda _: None
) -> Index | None:
    """Makes `run` what its mirror holds, where it is empty or behind; an older state's leftovers go.

    Returns the mirror's index, or None where it has none or `run` is as new. Nothing of `run` changes until all is
    here and whole; what an interrupted pull has fetched is used by the next. Raises UserError where both have changed
    since they were last the same, and for objects that are missing, cut or damaged.
    """
    there = read_index(store)
    if there is None:
        return None
    record = read_record(run, store.url)
    if record.knows(there) and not record.pulling and listing(run):
        return None
    mine = _content(run)
    if mine == there.files:
        write_record(run, record.same(there))
        return None
    if mine and not record.pulling:
        _check_unchanged(run, store, record, mine)
    wanted = {name: entry for name, entry in there.files.items() if mine.get(name) != entry}
    _check_targets(run, there)
    _fetch(run, store, wanted, begin, moved)
    write_record(run, replace(record, pulling=True))
    _place(run, wanted, mine.keys() - there.files.keys())
    write_record(run, record.same(there))
    return there


def _content(run: Path) -> dict[str, Entry]:
    return {name: Entry(file_hash(run / name), stamp[1]) for name, stamp in listing(run).items()}


def _check_unchanged(run: Path, store: Store, record: Record, mine: dict[str, Entry]) -> None:
    if record.state != mine:
        raise UserError(
            f"{run} and {store.url} hold different states of a run, and neither is known to follow the other: pull into"
            f" a new directory, or make the mirror what is here with `r4t push {run} {store.url} --replace`"
        )


def _check_targets(run: Path, index: Index) -> None:
    """Nothing is written through a link: a directory that someone prepared must not redirect it."""
    for name in index.files:
        for part in (run / name, *(run / name).parents):
            if part == run:
                break
            if part.is_symlink():
                raise UserError(f"{part} is a link and would be written through: remove it")


def _fetch(run: Path, store: Store, wanted: dict[str, Entry], begin: Callable[[int], None], moved: Progress) -> None:
    """Fetches every object that is not in the staging folder yet."""
    run.mkdir(parents=True, exist_ok=True)
    names = {entry: name for name, entry in wanted.items()}
    total, free = sum(entry.size for entry in names), shutil.disk_usage(run).free
    if total > free:
        raise UserError(f"{store.url} has {total:,} bytes to fetch, and {run} has room for {free:,}: free some there")
    present = store.sizes(OBJECTS) if names else {}
    for entry, name in names.items():
        if present.get(entry.sha256) != entry.size:
            found = present.get(entry.sha256, "no")
            raise _damaged(store, name, entry, f"has {found} bytes where {entry.size} were written")
    begin(total)

    def fetch(part: tuple[Entry, str]) -> None:
        entry, name = part
        path = run / STAGING / entry.sha256
        if not path.is_file() or file_hash(path) != entry.sha256:
            with atomic_path(path) as temporary:
                whole = store.download(entry.key, temporary) and file_hash(temporary) == entry.sha256
                if not whole:
                    raise _damaged(store, name, entry, "is not what was written (its hash differs)")
        moved(entry.size)

    in_parallel(fetch, names.items())


def _place(run: Path, wanted: dict[str, Entry], leftovers: set[str]) -> None:
    """Renames what was fetched into place; manifests last, as they say that the rest is there."""
    for name in leftovers:
        (run / name).unlink(missing_ok=True)
        _remove_empty((run / name).parent, run)
    ordered = sorted(wanted.items(), key=lambda one: (one[0].endswith(MANIFEST), one[0]))
    last = {entry.sha256: name for name, entry in ordered}
    for name, entry in ordered:
        staged, target = run / STAGING / entry.sha256, run / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == last[entry.sha256]:
            staged.replace(target)
        else:
            with atomic_path(target) as temporary:
                shutil.copyfile(staged, temporary)
    shutil.rmtree(run / STAGING, ignore_errors=True)


def _remove_empty(folder: Path, run: Path) -> None:
    """An empty checkpoint's folder would be taken for a checkpoint."""
    while folder != run and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _damaged(store: Store, name: str, entry: Entry, why: str) -> UserError:
    return UserError(
        f"{name} of {store.url} is damaged: its object {entry.key} {why}. Nothing here was changed. Remove that object"
        " and push again from where the run is whole"
    )
