"""Folders with the hashes of their files: any change is seen, and who goes on takes the newest whole one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import flip

from r4t.sealed import RECORD, damage, newest_whole, sealed_folder

FILES = {"weights": b"\x00\x7f" * 40, "state.json": b'{"step": 3}', "part/empty": b""}


def written(folder: Path) -> Path:
    with sealed_folder(folder) as temporary:
        for name, content in FILES.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sealed") / "step-1")


def test_what_was_written_is_whole_and_a_folder_without_a_record_is_not_judged(whole: Path, tmp_path: Path) -> None:
    assert damage(whole) == ""
    assert damage(tmp_path) == damage(tmp_path / "absent") == ""
    (tmp_path / "x").write_bytes(b"x")
    assert damage(tmp_path) == ""


@given(st.data())
def test_every_changed_bit_is_seen(whole: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["weights", "state.json", RECORD]))
    place = data.draw(st.integers(0, (whole / name).stat().st_size - 1))
    undo = flip(whole / name, place, data.draw(st.integers(0, 7)))
    assert damage(whole) == name
    undo()
    assert damage(whole) == ""


def test_a_file_that_is_gone_cut_or_new_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "step-1")
    (folder / "part" / "empty").unlink()
    (folder / "weights").write_bytes(FILES["weights"][:-1])
    (folder / "new").write_bytes(b"")
    assert damage(folder) == "new, part/empty, weights"


def test_a_record_that_came_with_a_copy_is_replaced(tmp_path: Path) -> None:
    first = written(tmp_path / "first")
    with sealed_folder(tmp_path / "second") as temporary:
        shutil.copytree(first, temporary, dirs_exist_ok=True)
        (temporary / "weights").write_bytes(b"others")
    assert damage(tmp_path / "second") == ""


def test_the_newest_whole_one_is_taken_and_damaged_ones_go(tmp_path: Path) -> None:
    said: list[str] = []
    assert newest_whole(tmp_path / "absent", said.append) is None
    one, two, three = (written(tmp_path / f"step-{n:03d}") for n in (1, 2, 10))
    assert newest_whole(tmp_path, said.append) == three
    assert said == []
    flip(two / "weights", 5)
    flip(three / "state.json", 0)
    assert newest_whole(tmp_path, said.append) == one
    assert [path.exists() for path in (one, two, three)] == [True, False, False]
    assert [line.split(":")[0] for line in said] == [f"{three} is damaged (state.json)", f"{two} is damaged (weights)"]
    flip(one / RECORD, 7)
    assert newest_whole(tmp_path, said.append) is None
