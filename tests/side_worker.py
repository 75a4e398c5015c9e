"""A third test process, for the tests that start no engine: they fill the time in which those of two others wait."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support import ROOT
from xdist.scheduler import LoadFileScheduling

STEPS_BACK = 15  # as far as Ray's own workers: a time limit of the other two's tests is not to feel this one


def is_side_worker() -> bool:
    """Whether this process is the last of its `pytest -n`."""
    environ = os.environ
    return environ.get("PYTEST_XDIST_WORKER") == f"gw{int(environ.get('PYTEST_XDIST_WORKER_COUNT', '0')) - 1}"


def is_light(file: str) -> bool:
    """Whether a test file, named from the repository's root, starts neither engine nor server nor browser."""
    text = (ROOT / file).read_text()
    return file.startswith("tests/unit/") and "mark.slow" not in text and "mark.service" not in text


class SideWorkerScheduling(LoadFileScheduling):
    """Files in their order, as `--dist loadfile` has it; the last worker takes the light ones alone."""

    def _assign_work_unit(self, node: Any) -> None:
        if self._is_side(node):
            light = next((file for file in self.workqueue if is_light(file)), None)
            if light is None:
                node.shutdown()
                return
            self.workqueue.move_to_end(light, last=False)
        super()._assign_work_unit(node)

    def _is_side(self, node: Any) -> bool:
        return bool(node.gateway.id == f"gw{self.numnodes - 1}")


def scheduling(config: pytest.Config, log: Any) -> SideWorkerScheduling | None:
    """The scheduler that `--side-worker` asks for, None where it does not."""
    return SideWorkerScheduling(config, log) if config.getoption("side_worker") else None
