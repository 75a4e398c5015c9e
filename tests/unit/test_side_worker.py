"""The third test process: light files alone, and never one twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from side_worker import SideWorkerScheduling, is_light
from support import ROOT

HEAVY, LIGHT = "tests/faults/test_kill.py", "tests/unit/test_slots.py"
FILES = [HEAVY, "tests/faults/test_folm.py", LIGHT, "tests/integration/test_session.py", "tests/unit/test_ports.py"]


class Worker:
    """Runs what it is sent at once, in the scheduler's eyes."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, tests: list[int]) -> None:
        assert not self.shutting_down
        self.sent += tests

    def shutdown(self) -> None:
        self.shutting_down = True


def distribute(files: list[str]) -> dict[str, list[str]]:
    """The files that each of three workers gets, where all take as long."""
    tests = [f"{file}::test_{i}" for file in files for i in range(4)]
    option: Any = SimpleNamespace(loadscopereorder=False)
    config: Any = SimpleNamespace(option=option, getvalue=lambda _: ["popen"] * 3)
    scheduler = SideWorkerScheduling(config)
    workers: list[Any] = [Worker(f"gw{i}") for i in range(3)]
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()
    done = {worker.gateway.id: 0 for worker in workers}
    while not all(worker.shutting_down for worker in workers):
        for worker in workers:
            for test in worker.sent[done[worker.gateway.id] :]:
                done[worker.gateway.id] += 1
                scheduler.mark_test_complete(worker, test)
    assert sorted(test for worker in workers for test in worker.sent) == list(range(len(tests))), "each test once"
    return {
        worker.gateway.id: list(dict.fromkeys(tests[i].partition(":")[0] for i in worker.sent)) for worker in workers
    }


def test_the_side_worker_takes_light_files_and_the_others_all_else() -> None:
    got = distribute(FILES)
    assert got["gw2"], "it had something to do"
    assert all(is_light(file) for file in got["gw2"])
    assert {file for file in FILES if not is_light(file)} <= {*got["gw0"], *got["gw1"]}


def test_nothing_light_leaves_the_side_worker_without_work() -> None:
    got = distribute([file for file in FILES if not is_light(file)])
    assert got["gw2"] == []


def test_what_starts_an_engine_is_not_light() -> None:
    assert is_light(LIGHT)
    assert not is_light(HEAVY)
    marked = [path for path in (ROOT / "tests" / "unit").glob("test_*.py") if "mark.slow" in Path(path).read_text()]
    assert marked, "there is one to look at"
    assert not any(is_light(str(path.relative_to(ROOT))) for path in marked)
