"""A third test process, for tests that bear a low priority: they fill the time in which those of two others wait."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from support import ROOT
from xdist.scheduler import LoadFileScheduling

STEPS_BACK = 15  # as far as Ray's own workers: a time limit of the other two's tests is not to feel this one
LAST = 19  # the lowest there is: what starts nothing fills gaps alone
TIMED = ("timeout", "wait_for", "mark.service", "serving")  # in the text of files where tests await moments or answers


def step_back() -> None:
    """Puts this process, and the Ray workers it is to have, where the other processes' Ray workers are."""
    os.nice(STEPS_BACK)
    os.environ.update({"RAY_worker_niceness": "0"})  # counted from the process that starts Ray


def step_back_further() -> None:
    """For light files, which come last: they stretch to where the others end, and take no time from them."""
    os.nice(LAST)


def is_side_worker() -> bool:
    """Whether this process is the last of its `pytest -n`."""
    environ = os.environ
    return environ.get("PYTEST_XDIST_WORKER") == f"gw{int(environ.get('PYTEST_XDIST_WORKER_COUNT', '0')) - 1}"


@cache
def is_light(file: str) -> bool:
    """Whether a test file, named from the repository's root, starts no engine and may be slow without failing."""
    return file.startswith("tests/unit/") and not _has(file, "mark.slow", "monotonic", *TIMED)


@cache
def is_patient(file: str) -> bool:
    """Whether a test file may start engines, and waits for nothing but their end."""
    return file.startswith("tests/integration/") and not _has(file, *TIMED)


def _has(file: str, *words: str) -> bool:
    text = (ROOT / file).read_text()
    return any(word in text for word in words)


class SideWorkerScheduling(LoadFileScheduling):
    """Files in their order, as `--dist loadfile` has it; the last worker takes patient ones, then light ones alone."""

    def _assign_work_unit(self, node: Any) -> None:
        if self._is_side(node):
            bears = next((file for fits in (is_patient, is_light) for file in self.workqueue if fits(file)), None)
            if bears is None:
                node.shutdown()
                return
            self.workqueue.move_to_end(bears, last=False)
        super()._assign_work_unit(node)

    def _is_side(self, node: Any) -> bool:
        return bool(node.gateway.id == f"gw{self.numnodes - 1}")


def scheduling(config: pytest.Config, log: Any) -> SideWorkerScheduling | None:
    """The scheduler that `--side-worker` asks for, None where it does not."""
    return SideWorkerScheduling(config, log) if config.getoption("side_worker") else None
