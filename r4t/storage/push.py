"""From a run directory to its mirror: objects first, the index last, and only then what nothing names any more."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from r4t.errors import UserError
from r4t.storage.index import INDEX, LIMIT, OBJECTS, Index, parse_index
from r4t.storage.record import read_record, write_record
from r4t.storage.snapshot import Hashes, Held, snapshot
from r4t.storage.store import Store

THREADS = 8

T = TypeVar("T")

Progress = Callable[[int], None]
"""Is told of bytes that were moved."""


@dataclass(slots=True, kw_only=True)
class Claim:
    """Who pushes. Of two processes that push to one place, the one that began later owns it."""

    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    since: float = field(default_factory=time.time)

    def check(self, there: Index | None, url: str) -> None:
        """Raises UserError once a younger process has taken the mirror over."""
        if there is not None and there.owner != self.owner and there.since > self.since:
            raise UserError(
                f"{url} belongs to another process now, which began to push there later: stop one of the two, or give"
                " each run a place of its own"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did."""

    files: int
    uploaded: int
    bytes: int


def read_index(store: Store) -> Index | None:
    """The mirror's index, or None where no push has ended."""
    content = store.read(INDEX, LIMIT)
    return None if content is None else parse_index(content, store.url)


def push(
    run: Path,
    store: Store,
    claim: Claim,
    hashes: Hashes,
    *,
    begin: Callable[[int], None] = lambda _: None,
    moved: Progress = lambda _: None,
) -> Pushed:
    """Makes the mirror the state that `run` has now. Until its last write, the mirror is what it was before.

    `begin` is told how many bytes are to be moved, and `moved` of each part. Raises StoreError, and UserError when
    another process owns the mirror.
    """
    there = read_index(store)
    claim.check(there, store.url)
    with snapshot(run, hashes) as held:
        index = Index(files={name: one.entry for name, one in held.items()}, owner=claim.owner, since=claim.since)
        present = store.sizes(OBJECTS)
        missing = {
            one.entry.key: (name, one) for name, one in held.items() if present.get(one.entry.sha256) != one.entry.size
        }
        begin(sum(one.entry.size for _, one in missing.values()))

        def send(part: tuple[str, Held]) -> None:
            name, one = part
            one.check(name)
            try:
                store.upload(one.entry.key, one.path)
            finally:
                one.check(name)  # also where the upload failed for want of the file
            moved(one.entry.size)

        in_parallel(send, missing.values())
    if there is None or missing or there.files != index.files or there.owner != index.owner:
        claim.check(read_index(store), store.url)  # uploading took a while
        record = read_record(run, store.url)
        write_record(run, record.sending(index))
        store.write(INDEX, index.to_bytes())
        write_record(run, record.same(index))
    named = {entry.sha256 for entry in index.files.values()}
    in_parallel(lambda name: store.remove(f"{OBJECTS}/{name}"), present.keys() - named)
    return Pushed(files=len(held), uploaded=len(missing), bytes=sum(one.entry.size for _, one in missing.values()))


def check_same_run(run: Path, store: Store, hashes: Hashes) -> None:
    """Raises UserError where the mirror has a state that `run` never had: a push would lose it."""
    there = read_index(store)
    if there is None or read_record(run, store.url).knows(there):
        return
    with snapshot(run, hashes) as held:
        mine = {name: one.entry for name, one in held.items()}
    if lost := [name for name, entry in there.files.items() if mine.get(name) != entry]:
        raise UserError(
            f"{store.url} holds what {run} does not, for example {lost[0]}: push to another address, or give --replace"
            " to drop it"
        )


def in_parallel(work: Callable[[T], None], parts: Iterable[T]) -> None:
    """Does `work` for every part, a few at a time. The first failure is raised, and no further part is begun."""
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        try:
            for done in [pool.submit(work, part) for part in parts]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
