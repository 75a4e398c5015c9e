"""Breaks real runs at random moments, and compares what stands in the end with a run that was left alone.

    python -m benchmarks.chaos BASE --out chaos.jsonl [--faults 200] [--minutes 60] [--seed 0] [--stages folm sets]
        [--kinds kill stop] [--set A.B=C]
    python -m benchmarks.chaos --report chaos.jsonl [--page docs/reliability.md]

BASE is a finished run directory, such as `r4t bench configs/quickstart.yaml` leaves. Its stages run again in copies
beside it, and its retriever is served to clients, several faults each, until `--faults` have been injected; a line of
`--out` is a fault or the end of a copy, and the same command goes on after the last one. Fails where anything was lost,
doubled, changed or hung. Faults of the disk need root and a loop device, those of the clock a C compiler.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.chaos import report
from benchmarks.chaos.attempt import BEFORE, Attempt, HungError
from benchmarks.chaos.clock import Clock
from benchmarks.chaos.faults import KINDS, Scene, check_kinds, faults_of
from benchmarks.chaos.served import Served
from benchmarks.chaos.volume import Volume, can_mount
from r4t.errors import UserError
from r4t.lineage import is_finished

TOGETHER = 8  # faults in one attempt
PAUSE = 3.0  # seconds at most between progress and the next fault
KEYS = ("cluster.max_restarts=99", "cluster.call_timeout=60", "rl.checkpoint_every=2", "rl.keep_last=9")
VOLUME = 400  # MiB beside what the earlier stages take


def one_attempt(
    base: Path, stage: str, faults: Sequence[tuple[str, str]], rng: random.Random, overrides: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Breaks one stage with each of `faults` in turn. Yields a record of each, and one of the end."""
    with tempfile.TemporaryDirectory(prefix=".chaos-", dir=base.resolve().parent) as temporary, ExitStack() as stack:
        place = Path(temporary)
        clock = Clock(place) if shutil.which("cc") else None
        volume = Volume(place / "image", place / "disk", VOLUME + _mib(base)) if can_mount() else None
        if volume:
            stack.callback(volume.close)
        begun = time.monotonic()
        attempt = (Served if stage == "serve" else Attempt)(
            base, place / "disk" / "run" if volume else place / "run", stage, [*KEYS, *overrides],
            clock.environment if clock else {}, place / "log",  # beside the disk, which is going to be full
        )  # fmt: skip
        scene = Scene(attempt=attempt, rng=rng, clock=clock, volume=volume)
        stack.callback(scene.end)
        try:
            for kind, role in faults:
                if record := one_fault(scene, kind, role):
                    yield {"record": "fault", "stage": stage, "kind": kind, "role": role, **record}
            found = attempt.finish()
        except HungError as error:
            found = [f"hang: {error}; it said {attempt.said()[-1500:]!r}"]
        yield {
            "record": "end",
            "stage": stage,
            "starts": attempt.starts,
            "seconds": round(time.monotonic() - begun, 1),
            "problems": scene.problems + found,
        }


def one_fault(scene: Scene, kind: str, role: str) -> dict[str, Any] | None:
    """Strikes some seconds after the next progress, and waits for the progress after that. None: it came too late."""
    attempt = scene.attempt
    stood, starts = attempt.progress(), attempt.starts
    attempt.wait("progress", lambda: attempt.progress() != stood or attempt.over)
    time.sleep(scene.rng.uniform(0.0, PAUSE))
    if attempt.over:
        return None
    strike, _ = KINDS[kind]
    stood = attempt.progress()
    at = time.monotonic()
    while not strike(scene, role):
        if attempt.over or time.monotonic() - at > PAUSE:
            return None
        time.sleep(0.1)
    attempt.wait("progress", lambda: attempt.went_on(stood) or attempt.over)
    return {"recovery_s": round(time.monotonic() - at, 1), "restarted": attempt.starts > starts}


def run(base: Path, out: Path, given: argparse.Namespace) -> int:
    """Attempt after attempt. Returns how many problems all of `out` holds."""
    if missing := [name for name in (*BEFORE["serve"], "evaluate") if not is_finished(base / name)]:
        raise UserError(f"{base} has no finished {missing[0]}: give a whole run, as `r4t bench CONFIG` leaves it")
    deadline = time.monotonic() + 60 * given.minutes
    records = report.read(out)
    out.write_text("".join(json.dumps(record) + "\n" for record in records))  # without an attempt that was cut short
    while True:
        number = 1 + max((record["attempt"] for record in records), default=-1)
        if sum(record["record"] == "fault" for record in records) >= given.faults or time.monotonic() > deadline:
            return sum(len(record["problems"]) for record in records if record["record"] == "end")
        rng = random.Random(f"{given.seed}-{number}")
        stage = given.stages[number % len(given.stages)]
        known = [(kind, role) for kind, role in faults_of(stage) if kind in given.kinds]
        for record in one_attempt(base, stage, rng.sample(known, min(TOGETHER, len(known))), rng, given.overrides):
            records.append(record | {"attempt": number})
            with out.open("a") as file:
                file.write(json.dumps(records[-1]) + "\n")
            print(json.dumps(records[-1]), flush=True)


def _mib(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) >> 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("chaos.jsonl"))
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=list(BEFORE), default=list(BEFORE))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--report", type=Path, metavar="CHAOS.jsonl", help="only write the table of what was done")
    parser.add_argument("--page", type=Path, help="where the table goes; default: standard output")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is mounted is unmounted
    try:
        if given.report:
            report.write(given.report, given.page)
            return 0
        if given.base is None:
            parser.error("give a finished run, or --report")
        check_kinds(given.kinds)
        return 1 if run(given.base, given.out, given) else 0
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
