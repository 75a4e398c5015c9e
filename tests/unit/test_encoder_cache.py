"""The vectors' cache: the same content is found again, other or damaged content never is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import flip

from r4t.catalog.encoders.cache import cache_folder, cache_key, read_cached, write_cached
from r4t.lineage import write_tensors

VECTORS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("R4T_CACHE", str(tmp_path))
    return tmp_path


def entry(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


def test_what_was_kept_is_read_again() -> None:
    assert read_cached("k", 5, 8) is None
    assert write_cached("k", VECTORS) is None
    np.testing.assert_array_equal(read_cached("k", 5, 8), VECTORS)
    assert read_cached("other", 5, 8) is None
    assert read_cached("k", 4, 8) is None
    assert read_cached("k", 5, 9) is None


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_cut_entry_counts_as_none_and_is_replaced(folder: Path, keep: int) -> None:
    write_cached("k", VECTORS)
    whole = entry(folder).read_bytes()
    entry(folder).write_bytes(whole[:keep])
    assert read_cached("k", 5, 8) is None
    write_cached("k", VECTORS)
    np.testing.assert_array_equal(read_cached("k", 5, 8), VECTORS)


def test_a_flipped_bit_is_noticed(folder: Path) -> None:
    write_cached("k", VECTORS)
    flip(entry(folder), -9)
    assert read_cached("k", 5, 8) is None
    write_tensors(entry(folder), {"vectors": VECTORS})
    assert read_cached("k", 5, 8) is None


def test_a_cache_that_cannot_be_written_says_why_and_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("R4T_CACHE", str(folder / "file"))
    assert "file" in str(write_cached("k", VECTORS))
    assert read_cached("k", 5, 8) is None


def test_the_folder_is_the_variables_or_the_homes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder("vectors") == tmp_path / "vectors"
    monkeypatch.delenv("R4T_CACHE")
    assert cache_folder("vectors") == Path.home() / ".cache" / "r4t" / "vectors"


@given(one=st.lists(st.text(), max_size=4), two=st.lists(st.text(), max_size=4))
def test_keys_are_equal_for_equal_lists_only(one: list[str], two: list[str]) -> None:
    assert (cache_key("f", one) == cache_key("f", two)) == (one == two)


def test_keys_tell_encoders_and_kinds_and_joins_apart() -> None:
    keys = {cache_key("f", ["ab"]), cache_key("g", ["ab"]), cache_key("f", ["a", "b"]), cache_key("f", ["ab"], "image")}
    assert len(keys) == 4
