"""The faults: what each does to an attempt, and how it is undone."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.chaos.attempt import BEFORE, ROLES, Attempt, HungError
from benchmarks.chaos.clock import Clock
from benchmarks.chaos.volume import Volume
from r4t.errors import UserError
from r4t.lineage import read_manifest

STALL = (3.0, 12.0)  # seconds that a process or the storage stands still
HOUR = 3600
FULL = 20.0  # seconds for a run to notice that its disk is full


@dataclass(slots=True)
class Scene:
    """An attempt with what faults need beside it."""

    attempt: Attempt
    rng: random.Random
    clock: Clock | None = None
    volume: Volume | None = None
    frozen: list[psutil.Process] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def end(self) -> None:
        """Ends the attempt, and what was stopped for good."""
        self.attempt.close()
        for process in self.frozen:
            if process.is_running():
                process.kill()


Strike = Callable[[Scene, str], bool]
"""Does it to a role. False where there is nothing of the kind at this moment."""


def kill(scene: Scene, role: str) -> bool:
    """SIGKILL."""
    if role == "driver":
        if scene.attempt.ended:
            return False
        scene.attempt.kill()
        scene.attempt.start()
        return True
    return _signal(scene, role, signal.SIGKILL) is not None


def stop(scene: Scene, role: str) -> bool:
    """SIGSTOP for good: the run has to notice by itself that someone is missing."""
    struck = _signal(scene, role, signal.SIGSTOP)
    if struck is not None:
        scene.frozen.append(struck)
    return struck is not None


def stall(scene: Scene, role: str) -> bool:
    """SIGSTOP, and SIGCONT after some seconds: nothing may come of it."""
    struck = _signal(scene, role, signal.SIGSTOP)
    if struck is None:
        return False
    time.sleep(scene.rng.uniform(*STALL))
    with contextlib.suppress(psutil.NoSuchProcess):
        struck.send_signal(signal.SIGCONT)
    return True


def terminate(scene: Scene, _: str) -> bool:
    """SIGTERM to the driver, which stops cleanly; the same command then goes on."""
    attempt = scene.attempt
    if attempt.ended:
        return False
    attempt.driver.send_signal(signal.SIGTERM)
    attempt.wait("the driver to stop", lambda: attempt.ended, restart=False)
    late = -signal.SIGTERM if attempt.finished else 0  # on its way out Python puts the system's handler back
    if attempt.driver.returncode not in (0, late, 128 + signal.SIGTERM):
        scene.problems.append(f"SIGTERM ended in exit {attempt.driver.returncode}")
    return True


def fill(scene: Scene, _: str) -> bool:
    """The disk is full for 20 seconds, or until the run has ended of it."""
    attempt, volume = scene.attempt, scene.volume
    if volume is None or attempt.ended:
        return False
    volume.fill()
    deadline = time.monotonic() + FULL
    while time.monotonic() < deadline and not attempt.ended:
        time.sleep(0.1)
    if attempt.ended and attempt.driver.returncode != 0 and "the disk is full" not in attempt.said():
        scene.problems.append(f"a full disk was not named: {attempt.said()[-300:]!r}")
    volume.free()
    return True


def slow(scene: Scene, _: str) -> bool:
    """Every write to the storage waits for some seconds."""
    if scene.volume is None:
        return False
    scene.volume.stall(scene.rng.uniform(*STALL))
    return True


def jump(scene: Scene, _: str) -> bool:
    """The wall clock goes an hour on, or back."""
    if scene.clock is None:
        return False
    seconds = scene.rng.choice((HOUR, -HOUR))
    scene.clock.jump(seconds)
    return True


def flip_input(scene: Scene, _: str) -> bool:
    """A byte of an earlier stage's file changes and the driver is killed: the next one must refuse it by name."""
    attempt = scene.attempt
    files = _recorded(attempt)
    if attempt.ended or not files:
        return False
    attempt.kill()
    if attempt.finished:  # there is no next one
        return False
    path = scene.rng.choice(files)
    undo = _flip(path, scene.rng)
    attempt.start()
    with contextlib.suppress(HungError):  # that it goes on is told below
        attempt.wait("the damage to be refused", lambda: attempt.ended, restart=False)
    if not attempt.ended or attempt.driver.returncode == 0 or path.name not in attempt.said():
        scene.problems.append(f"a changed byte in {path.relative_to(attempt.folder)} was not refused")
        attempt.kill()
    undo()
    return True


def flip_progress(scene: Scene, _: str) -> bool:
    """A byte of the newest checkpoint or shard changes and the driver is killed: the next one must make it again."""
    attempt = scene.attempt
    files = sorted(_unfinished(attempt), key=lambda path: path.stat().st_mtime)
    if attempt.ended or not files:
        return False
    attempt.kill()
    if files[-1].is_file() and not attempt.finished:
        _flip(files[-1], scene.rng)
    attempt.start()
    return True


KINDS: dict[str, tuple[Strike, tuple[str, ...]]] = {
    "kill": (kill, ("driver", "raylet", "gcs", "ACTORS")),
    "stop": (stop, ("ACTORS",)),
    "stall": (stall, ("driver", "raylet", "gcs", "ACTORS")),
    "terminate": (terminate, ("driver",)),
    "full": (fill, ("disk",)),
    "slow": (slow, ("disk",)),
    "jump": (jump, ("clock",)),
    "flip-input": (flip_input, ("disk",)),
    "flip-progress": (flip_progress, ("disk",)),
}
"""What each fault is, and to whom it can be done; ACTORS: every role of the stage."""


ABSENT = {
    ("flip-progress", "evaluate", "disk"),  # which keeps nothing until it ends
    ("flip-progress", "serve", "disk"),
    ("flip-input", "serve", "disk"),  # read once, at the start
    ("stop", "serve", "controller"),  # which no request needs: the endpoint answers, but mends nothing any more
}


def faults_of(stage: str) -> list[tuple[str, str]]:
    """Every (kind, role) that there is in a stage."""
    return [
        (kind, role)
        for kind, (_, roles) in KINDS.items()
        for name in roles
        for role in (ROLES[stage] if name == "ACTORS" else [name])
        if (kind, stage, role) not in ABSENT
    ]


def _signal(scene: Scene, role: str, number: signal.Signals) -> psutil.Process | None:
    for process in scene.rng.sample(found := scene.attempt.processes(role), len(found)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            return process
    return None


def _recorded(attempt: Attempt) -> list[Path]:
    found = []
    for name in BEFORE["serve"]:
        manifest = read_manifest(attempt.folder / name) if name != attempt.stage else None
        found += [attempt.folder / name / file for file in (manifest or {"files": {}})["files"]]
    return sorted(path for path in found if path.is_file() and path.stat().st_size)


def _unfinished(attempt: Attempt) -> list[Path]:
    folder = attempt.folder / attempt.stage
    return [
        path for pattern in ("checkpoints/step-*/*.safetensors", "shard-*.parquet") for path in folder.glob(pattern)
    ]


def _flip(path: Path, rng: random.Random) -> Callable[[], None]:
    """Changes one bit of a file; what it returns changes it back."""
    place, bit = rng.randrange(path.stat().st_size), 1 << rng.randrange(8)

    def change() -> None:
        with path.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ bit]))

    change()
    return change


def check_kinds(kinds: list[str]) -> None:
    """Raises UserError for an unknown kind."""
    if unknown := set(kinds) - KINDS.keys():
        raise UserError(f"no fault '{min(unknown)}': there are {', '.join(KINDS)}")
