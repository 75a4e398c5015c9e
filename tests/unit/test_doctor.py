"""`r4t doctor`: each check passes here, sees what it is for, and says what to do."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.node_checks import NodeReport, differences
from jobs import checks
from jobs.doctor import show

ALIKE = NodeReport(node="10.0.0.1", versions={"ray": "2.55.0"}, code="abc", sees=True, writes="", free_gib=50.0)


def test_this_machine_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    found = checks.machine_checks(tmp_path / "runs")
    names = {check.name for check in found}
    assert {"python", "instruction sets", "storage", "free disk", "shared memory", "ports"} <= names
    assert [check for check in found if not check.ok and check.name in ("python", "storage", "ports")] == []
    assert all(check.fix for check in found)
    assert list((tmp_path / "runs").iterdir()) == []


def test_storage_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = checks.check_storage(tmp_path / "file" / "runs")
    assert not found.ok
    assert "NotADirectoryError" in found.found
    assert "--run-dir" in found.fix


def test_storage_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # as some network file systems answer
    found = checks.check_storage(tmp_path)
    assert not found.ok
    assert "flock" in found.found


def test_a_disk_without_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ROOM_GIB", 1e9)
    found = checks.check_room(tmp_path / "not" / "yet")
    assert not found.ok
    assert "r4t plan" in found.fix


def test_versions_are_compared_with_the_lock_that_was_installed(tmp_path: Path) -> None:
    import importlib.metadata as metadata

    torch, ray = metadata.version("torch"), metadata.version("ray")
    (tmp_path / "cpu.txt").write_text("torch==0.0.1\nray==0.0.1\n")  # another kind of machine's: not looked at
    (tmp_path / "gpu.txt").write_text(f"torch=={torch}\nray=={ray}\n")
    (found,) = checks.check_versions(tmp_path)
    assert found.ok
    assert "gpu.txt" in found.found
    (tmp_path / "gpu.txt").write_text(f"torch=={torch}\nray==0.0.1\n")
    (found,) = checks.check_versions(tmp_path)
    assert not found.ok
    assert f"ray {ray} (0.0.1)" in found.found
    assert checks.check_versions(tmp_path / "absent") == []


def test_a_processor_that_vllm_cannot_use_is_said(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu sse4_2 avx\n")
    assert not checks.check_instructions(tmp_path / "cpuinfo").ok
    (tmp_path / "cpuinfo").write_text("flags : fpu sse2 avx2 avx512f avx512bw\n")
    assert checks.check_instructions(tmp_path / "cpuinfo").found == "avx2 avx512f"
    (tmp_path / "cpuinfo").write_text("flags : fpu sse2 avx2\n")
    slow = checks.check_instructions(tmp_path / "cpuinfo")
    assert slow.ok
    assert slow.found.startswith("avx2, slow in bfloat16: leave learner.dtype")


def test_a_small_dev_shm_is_said(tmp_path: Path) -> None:
    assert not checks.check_shared_memory(tmp_path / "absent").ok


def test_a_cluster_that_does_not_answer_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert checks.check_reachable("127.0.0.1", port, "cluster").ok
    found = checks.check_reachable("127.0.0.1", port, "cluster")
    assert not found.ok
    assert f"port {port}" in found.fix


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"versions": {"ray": "2.54.0"}}, "node 10.0.0.1 has {'ray': '2.54.0'}, the driver {'ray': '2.55.0'}"),
        ({"versions": {}}, "the driver {'ray': '2.55.0'}"),
        ({"code": "other"}, "other code of R4T"),
        ({"sees": False}, "does not see /runs"),
        ({"writes": "Read-only file system"}, "cannot write to /runs: Read-only file system"),
        ({"free_gib": 0.1}, "has 0.10 GiB free"),
    ],
)
def test_a_node_that_differs_is_named_with_its_fix(changes: dict[str, Any], fragment: str) -> None:
    ((problem, fix),) = differences(ALIKE, [replace(ALIKE, **changes)], [], Path("/runs"))
    assert problem.startswith("node 10.0.0.1 ")
    assert fragment in problem
    assert fix


def test_nodes_that_are_alike_pass_and_a_silent_one_is_named() -> None:
    assert differences(ALIKE, [ALIKE, ALIKE], [], Path("/runs")) == []
    ((problem, _),) = differences(ALIKE, [ALIKE], ["10.0.0.9"], Path("/runs"))
    assert "10.0.0.9 did not answer" in problem


def test_a_failure_is_shown_with_what_to_do() -> None:
    machine = {"system": "s", "python": "3", "cpus": 1, "memory_gib": 1, "shared_memory_gib": 1, "free_disk_gib": 1}
    check: Callable[..., dict[str, Any]] = lambda ok: {"name": "ports", "ok": ok, "found": "seen", "fix": "do it"}  # noqa: E731
    good, bad = (
        show({"healthy": ok, "machine": machine | {"gpus": []}, "packages": {}, "checks": [check(ok)]})
        for ok in (True, False)
    )
    assert "do it" not in good
    assert "FAILS: seen" in bad
    assert "do it" in bad
