"""A third test process, for the tests that start no engine: they fill the time in which those of two others wait."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from support import ROOT
from xdist.scheduler import LoadFileScheduling

STEPS_BACK = 19  # all there are: it takes no time that another process wants
HEAVY = ("mark.slow", "mark.service", "timeout", "wait_for", "monotonic")  # in the text of what starts or times much


def is_side_worker() -> bool:
    """Whether this process is the last of its `pytest -n`."""
    environ = os.environ
    return environ.get("PYTEST_XDIST_WORKER") == f"gw{int(environ.get('PYTEST_XDIST_WORKER_COUNT', '0')) - 1}"


@cache
def is_light(file: str) -> bool:
    """Whether a test file, named from the repository's root, starts no engine and may be slow without failing."""
    text = (ROOT / file).read_text()
    return file.startswith("tests/unit/") and not any(word in text for word in HEAVY)


class SideWorkerScheduling(LoadFileScheduling):
    """Whole files, as `--dist loadfile` has it; the last worker takes the light ones alone, and the others these last.

    Of the others every second one begins at the back, so that tests that await servers run beside those that train.
    """

    def _assign_work_unit(self, node: Any) -> None:
        file = self._next_of(int(node.gateway.id.removeprefix("gw")))
        if file is None:
            node.shutdown()
            return
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _next_of(self, worker: int) -> str | None:
        light = [file for file in self.workqueue if is_light(file)]
        if worker == self.numnodes - 1:
            return next(iter(light), None)
        heavy = [file for file in self.workqueue if not is_light(file)]
        return (heavy or light)[-(worker % 2)]


def scheduling(config: pytest.Config, log: Any) -> SideWorkerScheduling | None:
    """The scheduler that `--side-worker` asks for, None where it does not."""
    return SideWorkerScheduling(config, log) if config.getoption("side_worker") else None
