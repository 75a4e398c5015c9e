"""What breaks runs, and what compares them afterwards: a judge that sees nothing would make every fault harmless."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import wait_for

from benchmarks.chaos import compare, report
from benchmarks.chaos.attempt import BEFORE, MARK, Attempt
from benchmarks.chaos.clock import Clock
from benchmarks.chaos.faults import Scene, _flip, faults_of, terminate
from benchmarks.chaos.volume import Volume, can_mount
from r4t.lineage import write_manifest

WAITS = r"""
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#define TIMED(name, wait) \
    clock_gettime(CLOCK_MONOTONIC, &begun); \
    clock_gettime(CLOCK_REALTIME, &until); \
    until.tv_nsec += 200000000; \
    if (until.tv_nsec >= 1000000000) { until.tv_sec++; until.tv_nsec -= 1000000000; } \
    wait; \
    clock_gettime(CLOCK_MONOTONIC, &ended); \
    printf("%s %.3f\n", name, ended.tv_sec - begun.tv_sec + (ended.tv_nsec - begun.tv_nsec) / 1e9);
int main(void) {
    struct timespec begun, until, ended;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    sem_t semaphore;
    int word = 0;
    sem_init(&semaphore, 0, 0);
    pthread_mutex_lock(&mutex);
    TIMED("condition", pthread_cond_timedwait(&cond, &mutex, &until))
    TIMED("semaphore", sem_timedwait(&semaphore, &until))
    TIMED("mutex", pthread_mutex_timedlock(&mutex, &until))
    TIMED("futex", syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &until, NULL, ~0u))
}
"""
SHOWS = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_clock_jumps_in_processes_that_have_it_and_nowhere_else(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    shown = subprocess.Popen(
        [sys.executable, "-c", SHOWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | clock.environment,
    )  # fmt: skip
    assert shown.stdin is not None
    assert shown.stdout is not None

    def ahead() -> tuple[float, float]:
        print(file=shown.stdin, flush=True)
        wall, monotonic = map(float, shown.stdout.readline().split())  # type: ignore[union-attr]
        return wall - time.time(), monotonic - time.monotonic()

    with shown:
        assert ahead() == pytest.approx((0, 0), abs=30)
        clock.jump(3600)
        assert ahead() == pytest.approx((3600, 0), abs=30), "timeouts are measured by the other clock"
        clock.jump(-7200)
        assert ahead() == pytest.approx((-3600, 0), abs=30)
        shown.stdin.close()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_wait_until_a_time_is_as_long_as_it_was_after_a_jump(tmp_path: Path, hours: int) -> None:
    """Else every timed wait of a process whose clock is back spins, and of one whose clock is ahead hangs."""
    clock = Clock(tmp_path)
    clock.jump(hours * 3600)
    (tmp_path / "waits.c").write_text(WAITS)
    subprocess.run(["cc", "-o", str(tmp_path / "waits"), str(tmp_path / "waits.c"), "-lpthread"], check=True)
    done = subprocess.run(
        [str(tmp_path / "waits")], env=os.environ | clock.environment, capture_output=True, text=True, timeout=60
    )
    waited = {name: float(seconds) for name, seconds in map(str.split, done.stdout.splitlines())}
    assert set(waited) == {"condition", "semaphore", "mutex", "futex"}
    assert all(0.15 < seconds < 30 for seconds in waited.values()), waited  # a busy machine may wake them late


@pytest.mark.skipif(not can_mount(), reason="needs root and a loop device")
def test_a_volume_is_filled_freed_and_stalled(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "image", tmp_path / "disk", 16)
    try:
        volume.fill()
        with pytest.raises(OSError, match="No space left"):
            (volume.folder / "more").write_bytes(bytes(100_000))
        volume.free()
        (volume.folder / "more").write_bytes(bytes(100_000))
        code = "import sys; sys.stdin.read(); open(sys.argv[1], 'w').write('x')"
        writer = subprocess.Popen([sys.executable, "-c", code, volume.folder / "late"], stdin=subprocess.PIPE)
        assert writer.stdin is not None
        start = time.monotonic()
        writer.stdin.close()
        volume.stall(1.0)
        assert writer.wait(20) == 0
        assert time.monotonic() - start >= 0.9
        assert (volume.folder / "late").read_text() == "x"
    finally:
        volume.close()
    assert not (tmp_path / "disk" / "more").exists()


def a_run(folder: Path, **more: Any) -> Path:
    (folder / "folm" / "policy").mkdir(parents=True)
    (folder / "folm" / "policy" / "model.safetensors").write_bytes(b"weights" * 9)
    write_manifest(folder / "folm", stage="folm", config={}, inputs={}, files=["policy/model.safetensors"], metrics={})
    lines = [
        {"stage": "folm", "step": n, "time": 1.0, "values": {"reward": n / 7, "step/seconds": 1.5}} for n in (1, 2)
    ]
    lines[1]["values"] |= more  # type: ignore[operator]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_that_differs_in_time_alone_has_no_problem(tmp_path: Path) -> None:
    base, run = a_run(tmp_path / "base"), a_run(tmp_path / "run", **{"step/seconds": 99.0})
    assert compare.problems(base, run, "folm") == []


def test_what_the_judge_says_may_differ_by_rounding_alone(tmp_path: Path) -> None:
    base, near, far = (
        a_run(tmp_path / name, **{"judge/alignment": 0.3 + more}) for name, more in (("a", 0), ("b", 1e-7), ("c", 1e-3))
    )
    assert compare.problems(base, near, "folm") == []
    assert compare.problems(base, far, "folm") == ["step 2 of folm: other judge/alignment"]


@pytest.mark.parametrize("kind", ["bytes", "number", "missing step", "extra step", "left over", "damaged"])
def test_every_difference_is_a_problem(tmp_path: Path, kind: str) -> None:
    base, run = a_run(tmp_path / "base"), a_run(tmp_path / "run", **({"reward": 0.1} if kind == "number" else {}))
    weights, metrics = run / "folm" / "policy" / "model.safetensors", run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    if kind == "bytes":
        weights.write_bytes(b"WEIGHTS" * 9)
        files = ["policy/model.safetensors"]
        write_manifest(run / "folm", stage="folm", config={}, inputs={}, files=files, metrics={})
    elif kind == "missing step":
        metrics.write_text(lines[0])
    elif kind == "extra step":
        metrics.write_text("".join([*lines, lines[1].replace('"step": 2', '"step": 3')]))
    elif kind == "left over":
        (run / "folm" / ".partial-x").touch()
    elif kind == "damaged":
        _flip(weights, random.Random(0))
    assert compare.problems(base, run, "folm")


def test_what_a_lost_driver_left_running_is_found_wherever_it_is(tmp_path: Path) -> None:
    attempt = object.__new__(Attempt)
    attempt.folder = tmp_path
    orphan = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!"], env=os.environ | {MARK: str(tmp_path)}, stdout=subprocess.PIPE, text=True
    )
    assert orphan.stdout is not None
    pid = int(orphan.stdout.readline())
    orphan.wait()
    assert [process.pid for process in attempt.left()] == [pid]
    os.kill(pid, signal.SIGKILL)
    wait_for("its end", lambda: not attempt.left(), timeout=10)


def test_a_flipped_bit_is_flipped_back(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdefgh")
    undo = _flip(tmp_path / "x", random.Random(3))
    changed = (tmp_path / "x").read_bytes()
    assert sum(bin(a ^ b).count("1") for a, b in zip(changed, b"abcdefgh", strict=True)) == 1
    undo()
    assert (tmp_path / "x").read_bytes() == b"abcdefgh"


def test_every_role_of_every_stage_is_killed_stopped_and_stalled() -> None:
    for stage in BEFORE:
        known = faults_of(stage)
        assert len(known) == len(set(known))
        assert {role for kind, role in known if kind == "kill"} >= {"driver", "raylet", "gcs"}
        assert {role for kind, role in known if kind == "stop"} < {role for kind, role in known if kind == "stall"}
    assert ("flip-progress", "disk") not in faults_of("evaluate")


def test_the_table_counts_ended_attempts_alone_and_names_problems(tmp_path: Path) -> None:
    fault = {"record": "fault", "stage": "folm", "kind": "kill", "role": "driver", "recovery_s": 4.0, "restarted": True}
    end = {"record": "end", "stage": "folm", "starts": 2, "seconds": 60.0, "problems": []}
    lines = [
        fault | {"attempt": 0}, fault | {"attempt": 0, "recovery_s": 8.0, "restarted": False}, end | {"attempt": 0},
        fault | {"attempt": 1}, end | {"attempt": 1, "problems": ["step 3 of folm: missing"]},
        fault | {"attempt": 2},
    ]  # fmt: skip
    source, page = tmp_path / "chaos.jsonl", tmp_path / "page.md"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"record": "fau')
    page.write_text("Before.\n<!-- chaos -->\nold\n<!-- /chaos -->\nAfter.\n")
    report.write(source, page)
    text = page.read_text()
    assert "| folm | kill | driver | 3 | 2 | 4, 8 | 1 |" in text
    assert "3 faults in 2 attempts, 2 minutes." in text
    assert "- attempt 1, folm: step 3 of folm: missing" in text
    assert text.startswith("Before.\n<!-- chaos -->\n")
    assert text.endswith("<!-- /chaos -->\nAfter.\n")
    assert "old" not in text


@pytest.mark.parametrize(
    ("answer", "finished", "problems"),
    [
        ("sys.exit(143)", False, []),
        ("sys.exit(1)", False, ["SIGTERM ended in exit 1"]),
        (None, False, ["SIGTERM ended in exit -15"]),
        (None, True, []),  # the driver was on its way out
    ],
)
def test_what_a_driver_leaves_with_after_sigterm_is_judged(
    answer: str | None, finished: bool, problems: list[str], tmp_path: Path
) -> None:
    handler = f"signal.signal(signal.SIGTERM, lambda *_: {answer}); " if answer else ""

    class Driver(Attempt):
        @property
        def command(self) -> list[str]:
            code = f"import signal, sys, time; {handler}print('up', flush=True); time.sleep(60)"
            return [sys.executable, "-c", code]

    for part in BEFORE["sets"]:
        (tmp_path / "base" / part).mkdir(parents=True)
    (tmp_path / "base" / "config.yaml").write_text("task: oar\n")
    attempt = Driver(tmp_path / "base", tmp_path / "run", "sets", [], {}, tmp_path / "log")
    if finished:
        (tmp_path / "run" / "sets").mkdir()
        write_manifest(tmp_path / "run" / "sets", stage="sets", config={}, inputs={}, files=[], metrics={})
    scene = Scene(attempt=attempt, rng=random.Random(0))
    try:
        wait_for("the driver", lambda: "up" in attempt.said(), timeout=60)
        assert terminate(scene, "driver")
        assert scene.problems == problems
        assert not terminate(scene, "driver"), "it is gone"
    finally:
        scene.end()
