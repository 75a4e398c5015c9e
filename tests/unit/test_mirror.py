"""Push and pull of run directories: round trips, interruptions at every step, damage, and two sides that differ."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.errors import UserError
from r4t.lineage import atomic_folder, write_json
from r4t.storage.failures import StoreError
from r4t.storage.index import INDEX, OBJECTS
from r4t.storage.pull import STAGING, pull
from r4t.storage.push import Claim, check_same_run, push, read_index
from r4t.storage.record import RECORD, check_whole, read_record, write_record
from r4t.storage.snapshot import Hashes
from r4t.storage.store import Store

Tree = dict[str, bytes]
NUMBERS = itertools.count()


def new_store() -> Store:
    return Store(f"memory://bucket/run-{next(NUMBERS)}")


def write(folder: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def content(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (RECORD, ".lock", ".attempt") and STAGING not in path.parts
    }


def send(folder: Path, store: Store) -> int:
    return push(folder, store, Claim(), Hashes()).uploaded


part = st.text(st.characters(codec="utf-8", categories=("L", "N", "P"), exclude_characters="/\\"), min_size=1)
plain = part.filter(lambda text: not text.startswith("."))
names = st.lists(plain, min_size=1, max_size=3).map(lambda parts: "x/" + "/y".join(parts))
trees = st.dictionaries(names, st.binary(max_size=40), max_size=6).filter(
    lambda tree: not any(a != b and b.startswith(a + "/") for a in tree for b in tree)
)


@settings(max_examples=25)
@given(first=trees, second=trees)
def test_what_was_pushed_is_what_is_pulled_and_nothing_is_sent_twice(
    first: Tree, second: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base, store = tmp_path_factory.mktemp("mirror"), new_store()
    assert send(write(base / "a", {"config.yaml": b"x"} | first), store) == len({b"x", *first.values()})
    assert send(base / "a", store) == 0
    pull(base / "b", store)
    assert content(base / "b") == content(base / "a")
    shutil.rmtree(base / "a" / "x", ignore_errors=True)
    send(write(base / "a", second), store)
    pull(base / "b", store)
    assert content(base / "b") == content(base / "a")
    assert pull(base / "b", store) is None
    index = read_index(store)
    assert index is not None
    assert store.sizes(OBJECTS).keys() == {one.sha256 for one in index.files.values()}, "nothing is left behind"


class Breaking(Store):
    """Does so many operations of one kind, and then the process is gone."""

    left = 0

    def __init__(self, url: str, left: int, *kinds: str) -> None:
        super().__init__(url)
        self.left, self.kinds = left, kinds

    def _spend(self, kind: str) -> None:
        if kind in self.kinds:
            if not self.left:
                raise RuntimeError("killed")
            self.left -= 1

    def upload(self, key: str, path: Path) -> None:
        self._spend("write")
        super().upload(key, path)

    def write(self, key: str, content: bytes) -> None:
        self._spend("write")
        super().write(key, content)

    def remove(self, key: str) -> None:
        self._spend("write")
        super().remove(key)

    def download(self, key: str, path: Path) -> bool:
        self._spend("read")
        return super().download(key, path)


OLD = {"config.yaml": b"c", "folm/checkpoints/step-1/a": b"1a", "folm/checkpoints/step-1/b": b"1b", "log.txt": b"one"}
NEW = {"config.yaml": b"c", "folm/checkpoints/step-2/a": b"2a", "folm/checkpoints/step-2/b": b"2b", "log.txt": b"1 2"}


def grown(folder: Path) -> Path:
    shutil.rmtree(folder / "folm")
    return write(folder, NEW)


def test_a_push_that_ends_anywhere_leaves_the_former_state_or_the_new_one(tmp_path: Path) -> None:
    seen = []
    for number in range(20):
        store, run = new_store(), write(tmp_path / f"run{number}", OLD)
        send(run, store)
        grown(run)
        try:
            push(run, Breaking(store.url, number, "write"), Claim(), Hashes())
        except RuntimeError:
            done = False
        else:
            done = True
        pull(tmp_path / f"other{number}", store)
        seen.append(content(tmp_path / f"other{number}"))
        assert seen[-1] in (OLD, NEW)
        assert pull(run, store) is None, "the local state is never taken back"
        assert content(run) == NEW
        send(run, store)
        assert pull(tmp_path / f"third{number}", store) is not None
        assert content(tmp_path / f"third{number}") == NEW
        if done:
            break
    assert done
    assert OLD in seen
    assert NEW in seen[:-1], "the index stands before what is old goes"


def test_a_pull_that_ends_anywhere_leaves_the_directory_as_it_was_and_goes_on(tmp_path: Path) -> None:
    store, run, other = new_store(), write(tmp_path / "run", OLD), tmp_path / "other"
    send(run, store)
    pull(other, store)
    send(grown(run), store)
    for _ in NEW:
        if content(other) == NEW:
            break
        assert content(other) == OLD
        try:
            pull(other, Breaking(store.url, 1, "read"))
        except RuntimeError:
            continue
    assert content(other) == NEW
    assert not (other / STAGING).exists()
    assert not (other / "folm/checkpoints/step-1").exists(), "an empty folder would be taken for a checkpoint"


def test_a_pull_that_ends_while_files_are_put_in_place_is_noticed(tmp_path: Path) -> None:
    store, run = new_store(), write(tmp_path / "run", OLD)
    send(run, store)
    (run / "log.txt").unlink()
    write_record(run, replace(read_record(run, store.url), pulling=True))
    with pytest.raises(UserError, match=f"r4t pull {store.url} {run}"):
        check_whole(run)
    pull(run, store)
    check_whole(run)
    assert content(run) == OLD


@pytest.mark.parametrize("damage", [b"", b"1x", b"1a more", None])
def test_a_damaged_object_is_named_and_nothing_is_changed(tmp_path: Path, damage: bytes | None) -> None:
    store, run, other = new_store(), write(tmp_path / "run", OLD), tmp_path / "other"
    send(run, store)
    key = read_index(store).files["folm/checkpoints/step-1/a"].key  # type: ignore[union-attr]
    store.remove(key)
    if damage is not None:
        store.write(key, damage)
    with pytest.raises(UserError, match=rf"folm/checkpoints/step-1/a of .* is damaged: its object {key}"):
        pull(other, store)
    assert content(other) == {}
    if damage != b"1x":  # of the same size: only its hash tells, and that is read on the way back
        assert send(run, store) == 1, "a push sends what is missing or cut"
        pull(other, store)
        assert content(other) == OLD


def test_two_sides_that_both_changed_are_left_alone(tmp_path: Path) -> None:
    store, run, other = new_store(), write(tmp_path / "run", OLD), tmp_path / "other"
    send(run, store)
    pull(other, store)
    write(other, {"log.txt": b"mine"})
    send(grown(run), store)
    with pytest.raises(UserError, match=r"different states of a run.*--replace"):
        pull(other, store)
    with pytest.raises(UserError, match=r"holds what .* does not, for example folm/checkpoints/step-2/a"):
        check_same_run(other, store, Hashes())
    assert content(other) == OLD | {"log.txt": b"mine"}
    check_same_run(run, store, Hashes())


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    store = new_store()
    send(write(tmp_path / "run", OLD), store)
    with pytest.raises(UserError, match="pull into a new directory"):
        pull(write(tmp_path / "thesis", {"chapter.tex": b"x"}), store)
    assert content(tmp_path / "thesis") == {"chapter.tex": b"x"}


def test_the_process_that_began_later_owns_the_mirror(tmp_path: Path) -> None:
    store, run = new_store(), write(tmp_path / "run", OLD)
    old, new = Claim(since=1.0), Claim(since=2.0)
    push(run, store, old, Hashes())
    push(run, store, new, Hashes())
    with pytest.raises(UserError, match="belongs to another process now"):
        push(run, store, old, Hashes())
    push(run, store, new, Hashes())


def test_nothing_that_is_being_written_is_sent(tmp_path: Path) -> None:
    fleeting = {".lock": b"", ".attempt": b"", "folm/.partial-x/a": b"", ".partial-y": b"", "folm/r4t-weights-1/w": b""}
    store, run = new_store(), write(tmp_path / "run", OLD | fleeting)
    (run / "link").symlink_to(tmp_path)
    (run / "link.txt").symlink_to("/etc/passwd")
    send(run, store)
    assert set(read_index(store).files) == set(OLD)  # type: ignore[union-attr]
    assert not list(run.glob(".partial-mirror*"))


def test_a_link_in_the_directory_is_not_written_through(tmp_path: Path) -> None:
    store = new_store()
    send(write(tmp_path / "run", OLD), store)
    other, outside = tmp_path / "other", tmp_path / "outside"
    other.mkdir()
    outside.mkdir()
    (other / "folm").symlink_to(outside)
    with pytest.raises(UserError, match=r"other/folm is a link"):
        pull(other, store)
    assert not list(outside.iterdir())


def test_every_state_that_is_sent_while_a_run_works_is_one_it_could_resume_from(tmp_path: Path) -> None:
    """A checkpoint is whole or absent, the newest is there, and what is said after it is no older than it."""
    run, store, ended = write(tmp_path / "run", {"config.yaml": b"c"}), new_store(), threading.Event()

    def work() -> None:
        for step in itertools.count(1):
            with atomic_folder(run / "checkpoints" / f"step-{step:06d}") as temporary:
                for name in "abc":
                    (temporary / name).write_text(str(step))
            for old in sorted((run / "checkpoints").glob("step-*"))[:-1]:
                shutil.rmtree(old)
            write_json(run / "best.json", {"step": step})
            with (run / "metrics.jsonl").open("a") as file:
                file.write(f"{step}\n")
            if ended.is_set():
                return

    worker, hashes, claim = threading.Thread(target=work), Hashes(), Claim()
    worker.start()
    try:
        for number in range(15):
            push(run, store, claim, hashes)
            pull(tmp_path / str(number), store)
            got = content(tmp_path / str(number))
            _check_resumable(got)
    finally:
        ended.set()
        worker.join()


def _check_resumable(got: dict[str, Any]) -> None:
    if "best.json" not in got:
        return
    steps = sorted({name.split("/")[1] for name in got if name.startswith("checkpoints/")})
    newest = steps[-1]
    assert {name: got[f"checkpoints/{newest}/{name}"] for name in "abc"} == dict.fromkeys(
        "abc", str(int(newest[5:])).encode()
    )
    told = int("".join(filter(str.isdigit, got["best.json"].decode())))
    assert told in (int(newest[5:]), int(newest[5:]) - 1)


def test_a_file_system_without_links_is_mirrored_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store = new_store()
    send(write(tmp_path / "run", OLD), store)
    pull(tmp_path / "other", store)
    assert content(tmp_path / "other") == OLD


def test_a_folder_is_a_store_too(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "share" / "run"))
    send(write(tmp_path / "run", OLD), store)
    grown(tmp_path / "run")
    with pytest.raises(RuntimeError):
        push(tmp_path / "run", Breaking(store.url, 2, "write"), Claim(), Hashes())
    pull(tmp_path / "other", Store(store.url))
    assert content(tmp_path / "other") == OLD
    assert (tmp_path / "share" / "run" / INDEX).is_file()


def test_a_store_without_room_or_rights_is_an_explained_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises((UserError, StoreError)):
        send(write(tmp_path / "run", OLD), Store(str(blocked / "run")))
