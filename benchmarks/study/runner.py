"""Does what is missing of a study, one stage after another, each by the command line in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import jobs.status
from benchmarks.study import state
from benchmarks.study.plan import Job
from jobs.pipeline import locked
from r4t.lineage import atomic_folder, is_finished, write_json

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds that a stopped stage may take to write its checkpoint


class Stopped(Exception):
    """SIGTERM or SIGINT arrived, or the time is up; what was running has stopped cleanly."""


class Runner:
    """Runs the jobs of the study in the file `study` inside `directory`, until they are done or `deadline` passes."""

    def __init__(self, study: Path, directory: Path, deadline: float | None = None, out: IO[str] = sys.stdout) -> None:
        self.study, self.directory, self.deadline, self.out = study, directory, deadline, out
        self.started = time.monotonic()
        self.signal = 0

    def run(self, jobs: Sequence[Job]) -> int:
        """Runs every missing stage; returns how many runs failed. 128 + n is raised as SystemExit after signal n."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        failed = 0
        try:
            with locked(self.directory):
                for place, job in enumerate(jobs):
                    failed += not self._job(job, jobs[place:])
        except Stopped:
            self.say("stopped; the same command goes on from here")
            if self.signal:
                raise SystemExit(128 + self.signal) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return failed

    def say(self, text: str) -> None:
        passed = time.monotonic() - self.started
        print(f"[{passed / 60:6.1f} min] {text}", file=self.out, flush=True)

    def _job(self, job: Job, ahead: Sequence[Job]) -> bool:
        """Whether the run is whole in the end."""
        run = self.directory / job.name
        left = state.missing(job, self.directory)
        if not left:
            return True
        run.mkdir(parents=True, exist_ok=True)
        if not self._begin(job, run):
            self._fail(job, left[0], f"its start {job.start} has no warm-started policy")
            return False
        for stage in left:
            if stage not in state.missing(job, self.directory):
                continue
            work = [(other, s) for other in ahead for s in state.missing(other, self.directory)]
            self.say(f"{job.name}: {stage}  ({_estimate(*state.seconds_left(work, self.directory))})")
            begun = time.monotonic()
            code = self._execute(self._command(job, run, stage), run)
            if code:
                self._fail(job, stage, _last_words(run / "study.log", code))
                return False
            state.note_time(self.directory, job, stage, time.monotonic() - begun)
        (run / state.FAILED).unlink(missing_ok=True)
        return True

    def _begin(self, job: Job, run: Path) -> bool:
        """Puts the start's prepared data and warm start in place, once. False where the start has not been trained.

        Of an archived start there is nothing to put: the run makes the same one itself.
        """
        if job.start is None or is_finished(run / "folm"):
            return True
        source = self.directory / job.start
        if not is_finished(source / "folm"):
            return False
        for part in ("prepare", "folm/initial", "folm/warm_start") if (source / "folm/warm_start").is_dir() else ():
            if (source / part).is_dir() and not (run / part).is_dir():
                with atomic_folder(run / part) as temporary:
                    shutil.copytree(source / part, temporary, dirs_exist_ok=True)
        return True

    def _command(self, job: Job, run: Path, stage: str) -> list[str]:
        r4t = str(Path(sys.executable).with_name("r4t"))
        if stage == "probe":
            return [sys.executable, "-m", "benchmarks.study.probe", str(run), "--study", str(self.study.resolve())]
        if stage == "evaluate" and (job.cell.methods or is_finished(run / stage)):
            return [r4t, "evaluate", str(run), *(["--methods", ",".join(job.cell.methods)] if job.cell.methods else [])]
        settings = [part for setting in job.settings() for part in ("--set", setting)]
        return [r4t, "run", str(job.config), "--run-dir", str(run), "--stage", stage, *settings]

    def _execute(self, command: list[str], run: Path) -> int:
        """Runs a command with its output in `study.log`; returns its exit status. Raises Stopped."""
        self._wait_for_orphan(run)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (run / "study.log").open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip
            while process.poll() is None:
                if self._over():
                    self._end(process)
                    raise Stopped
                time.sleep(0.2)
        if self._over() and process.returncode:
            raise Stopped
        return process.returncode

    def _wait_for_orphan(self, run: Path) -> None:
        """A runner that was killed outright leaves its stage running: that one is let finish."""
        spoken = False
        while jobs.status.describe(run)["running"]:
            if not spoken:
                self.say(f"{run.name}: waiting for the process that still works in it")
            spoken = True
            if self._over():
                raise Stopped
            time.sleep(1)

    def _over(self) -> bool:
        return bool(self.signal) or (self.deadline is not None and time.monotonic() > self.deadline)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.signal = number

    def _fail(self, job: Job, stage: str, says: str) -> None:
        write_json(self.directory / job.name / state.FAILED, {"stage": stage, "says": says})
        self.say(f"{job.name}: {stage} FAILED: {says}")


def _estimate(seconds: float, unknown: int) -> str:
    if not seconds:
        return "no estimate yet"
    more = f", {unknown} stages unknown" if unknown else ""
    return f"about {seconds / 60:.0f} min left{more}"


def _last_words(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines[-40:] if line.startswith("error:") or "Error" in line] or lines
    return f"exit {code}: {said[-1][:300] if said else 'no output'}"
