"""Files are whole or absent, and manifests notice every change."""

from __future__ import annotations

import errno
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from r4t import lineage
from r4t.errors import UserError
from r4t.verify import verify


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fail_halfway(path: Path, error: Exception) -> None:
    with lineage.atomic_path(path) as temporary:
        temporary.write_text("half of it")
        raise error


def _finish(folder: Path, content: str, inputs: dict[str, Path] | None = None) -> dict:
    lineage.write_json(folder / "data.json", {"content": content})
    return lineage.write_manifest(
        folder, stage="stage", config={"a": 1}, inputs=inputs or {}, files=["data.json"], metrics={"n": 1}
    )


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    lineage.write_json(path, {"version": 1})
    with pytest.raises(RuntimeError, match="stop"):
        _fail_halfway(path, RuntimeError("stop"))
    assert lineage.read_json(path) == {"version": 1}
    assert _names(tmp_path) == ["value.json"]


def _write_and_hang(path: Path) -> None:
    with lineage.atomic_path(path) as temporary:
        temporary.write_text("half of it")
        time.sleep(60)


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    lineage.write_json(path, {"version": 1})
    process = multiprocessing.get_context("fork").Process(target=_write_and_hang, args=(path,))
    process.start()
    deadline = time.monotonic() + 20
    while not any(p.read_text() == "half of it" for p in tmp_path.glob(f"{lineage.TEMPORARY}*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert lineage.read_json(path) == {"version": 1}
    lineage.clear_partial(tmp_path)
    assert _names(tmp_path) == ["value.json"]


def _check_full_disk_message(folder: Path, error: pytest.ExceptionInfo[UserError]) -> None:
    assert "the disk is full" in str(error.value)
    assert "big" in str(error.value)
    assert f"by host {platform.node()} " in str(error.value)
    assert _names(folder) == ["kept.json"]
    assert lineage.read_json(folder / "kept.json") == {"version": 1}


@pytest.mark.parametrize(
    ("write", "name", "value"),
    [
        (lineage.write_json, "big.json", "x" * 200_000),
        (lineage.write_tensors, "big.safetensors", {"x": np.zeros(100_000, np.float32)}),
    ],
)
def test_a_full_disk_is_one_clear_error(small_disk: Path, write: Callable, name: str, value: object) -> None:
    lineage.write_json(small_disk / "kept.json", {"version": 1})
    with pytest.raises(UserError) as error:
        write(small_disk / name, value)
    _check_full_disk_message(small_disk, error)


def test_out_of_space_raised_by_the_system_is_one_clear_error(tmp_path: Path) -> None:
    lineage.write_json(tmp_path / "kept.json", {"version": 1})
    with pytest.raises(UserError) as error:
        _fail_halfway(tmp_path / "big.bin", OSError(errno.ENOSPC, "No space left on device"))
    _check_full_disk_message(tmp_path, error)


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        _fail_halfway(tmp_path / "x", PermissionError(errno.EACCES, "no"))


def test_json_refuses_nan_and_takes_arrays_and_paths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        lineage.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    lineage.write_json(tmp_path / "a.json", {"x": np.arange(3), "y": np.float32(0.5), "z": Path("p")})
    assert lineage.read_json(tmp_path / "a.json") == {"x": [0, 1, 2], "y": 0.5, "z": "p"}


def test_tensors_round_trip_also_when_strided(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(6, 4)).astype(np.float32)
    lineage.write_tensors(tmp_path / "t.safetensors", {"a": array.T, "b": array[::2]}, {"note": "x"})
    back = lineage.read_tensors(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(back["a"], array.T)
    np.testing.assert_array_equal(back["b"], array[::2])


def test_damaged_files_name_the_fix(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "t.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="run the stage again"):
        lineage.read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="run the stage again"):
        lineage.read_tensors(tmp_path / "t.safetensors")


def test_c59_manifest_records_config_code_files_and_inputs(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert not lineage.is_finished(first)
    assert lineage.read_manifest(first) is None
    _finish(first, "a")
    manifest = _finish(second, "b", {"first": first})
    assert lineage.is_finished(second)
    assert lineage.read_manifest(second) == manifest
    assert manifest["config"] == {"a": 1}
    assert manifest["code"] == lineage.code_version()
    assert manifest["files"]["data.json"]["sha256"] == lineage.file_hash(second / "data.json")
    assert manifest["inputs"]["first"]["manifest"] == lineage.file_hash(first / "manifest.json")
    assert verify(tmp_path) == []
    assert verify(second) == []


def test_verify_finds_one_changed_byte(tmp_path: Path) -> None:
    _finish(tmp_path / "s", "abc")
    path = tmp_path / "s" / "data.json"
    path.write_text(path.read_text().replace("abc", "abd"))
    (problem,) = verify(tmp_path)
    assert "data.json" in problem
    assert "changed" in problem


def test_verify_finds_missing_and_cut_files(tmp_path: Path) -> None:
    _finish(tmp_path / "s", "abc")
    path = tmp_path / "s" / "data.json"
    path.write_text(path.read_text()[:-3])
    assert "bytes" in verify(tmp_path)[0]
    path.unlink()
    assert "missing" in verify(tmp_path)[0]


def test_verify_finds_a_broken_input_chain(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    _finish(first, "a")
    _finish(second, "b", {"first": first})
    _finish(first, "other")
    (problem,) = verify(tmp_path)
    assert "not the one it was made from" in problem
    (first / "manifest.json").unlink()
    (problem,) = verify(second)
    assert "has no manifest.json" in problem


def test_a_moved_run_directory_still_verifies(tmp_path: Path) -> None:
    _finish(tmp_path / "run" / "first", "a")
    _finish(tmp_path / "run" / "second", "b", {"first": tmp_path / "run" / "first"})
    (tmp_path / "run").rename(tmp_path / "moved")
    assert verify(tmp_path / "moved") == []


def test_verify_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json"):
        verify(tmp_path)


def test_manifest_of_a_missing_output_or_input_is_not_written(tmp_path: Path) -> None:
    for files, inputs in ((["absent"], {}), ([], {"first": tmp_path / "absent"})):
        with pytest.raises(FileNotFoundError):
            lineage.write_manifest(tmp_path, stage="s", config={}, inputs=inputs, files=files, metrics={})
    assert not lineage.is_finished(tmp_path)


def _fail_halfway_in_folder(path: Path) -> None:
    with lineage.atomic_folder(path) as temporary:
        (temporary / "new").write_text("2")
        raise RuntimeError("stop")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with lineage.atomic_folder(target) as temporary:
        (temporary / "old").write_text("1")
    with pytest.raises(RuntimeError, match="stop"):
        _fail_halfway_in_folder(target)
    assert _names(target) == ["old"]
    with lineage.atomic_folder(target) as temporary:
        (temporary / "new").write_text("2")
    assert _names(target) == ["new"]
    assert _names(tmp_path) == ["checkpoint"]
