"""Running the real command line, and waiting for it."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
CI, WITHOUT = "R4T_CI", "R4T_WITHOUT"  # set: nothing may be missing but what the second names, by commas
R4T = str(Path(sys.executable).with_name("r4t"))


def absent(what: str, reason: str) -> NoReturn:
    """Skips a test whose machine has no `what`; fails it in continuous integration, where nobody reads what skipped."""
    if os.environ.get(CI) and what not in os.environ.get(WITHOUT, "").split(","):
        pytest.fail(f"{what} is missing, and {CI} is set: {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def needed(module: str) -> Any:
    """A module that the locks install. As `absent` where there is none."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent(module.partition(".")[0], f"could not import {module} ({error}): make install")


def r4t(*args: str | Path, timeout: float = 600, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `r4t ARGS` to its end, as a user would, and captures what it says."""
    return subprocess.run(
        [R4T, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(env),
    )


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without a cluster to join, plus `extra`."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | (extra or {})


def wait_for(what: str, condition: Callable[[], bool], timeout: float, every: float = 0.05) -> None:
    """Polls until `condition()`; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s for {what}"
        time.sleep(every)


def assert_user_error(done: subprocess.CompletedProcess[str], *fragments: str) -> None:
    """Exit code 2 and exactly one message, without a traceback, that holds every fragment."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    for fragment in fragments:
        assert fragment in done.stderr, done.stderr


def flip(path: Path, place: int, bit: int = 0) -> Callable[[], None]:
    """Changes one bit of a file; what it returns changes it back."""

    def change() -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1 << bit
        path.write_bytes(content)

    change()
    return change


def descendants(pid: int) -> list[psutil.Process]:
    """The processes that a run started."""
    return psutil.Process(pid).children(recursive=True)


def raylets(pid: int) -> list[psutil.Process]:
    """Of the Ray nodes that a process started."""
    found = []
    for process in descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # others come and go
            if process.name() == "raylet":
                found.append(process)
    return found


def _is_agent(process: psutil.Process) -> bool:
    """Whether this is one of Ray's two small agents, before or after it renames itself.

    When a driver is killed, those agents try for a minute or two to report it to the dead session before they end.
    """
    command = process.cmdline()
    renamed = " ".join(command).startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))
    return renamed or any(part.endswith(("dashboard/agent.py", "runtime_env/agent/main.py")) for part in command)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE and not _is_agent(process)
    except psutil.NoSuchProcess:
        return False


def assert_all_end(processes: list[psutil.Process], timeout: float = 60) -> None:
    """Waits until every process but Ray's agents has ended; fails with those that have not."""
    wait_for(f"{processes} to end", lambda: not any(map(_lives, processes)), timeout)
