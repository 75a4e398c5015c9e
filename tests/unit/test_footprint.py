"""Peak memory of a process tree, with real processes that take real memory."""

import subprocess
import sys
import threading
import time

import pytest

from jobs import footprint
from jobs.footprint import PeakMemory

MIB = 1 << 20
TAKE = "import sys, time; held = bytearray(b'1') * (int(sys.argv[1]) << 20); print('taken', flush=True); time.sleep(60)"
LOOK = """
import subprocess, sys, time
from jobs.footprint import PeakMemory
with PeakMemory(every=0.02) as without:
    time.sleep(0.3)
with PeakMemory(every=0.02) as memory:
    with subprocess.Popen([sys.executable, "-c", sys.argv[1], "200"], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"taken\\n"
        time.sleep(0.5)
        child.kill()
    time.sleep(0.1)
print(without.bytes, memory.bytes)
"""


def test_memory_of_a_child_counts_also_after_it_has_ended():
    """In a process of its own: what a long test run holds comes and goes meanwhile."""
    done = subprocess.run([sys.executable, "-c", LOOK, TAKE], capture_output=True, text=True, check=True, timeout=120)
    without, with_child = map(int, done.stdout.split())
    assert 200 * MIB <= with_child - without < 300 * MIB


def test_a_passing_estimate_hides_no_growth_after_it(monkeypatch: pytest.MonkeyPatch):
    """A process that starts another has its memory counted twice until the new one runs its own program."""
    estimates = iter([100, 100, 100, 200, 100, 150, 150])
    last, looked = [0], threading.Event()

    def estimate(_: list[int]) -> int:
        following = next(estimates, None)
        if following is None:
            looked.set()
        last.append(following or 150)
        return last[-1]

    monkeypatch.setattr(footprint, "_estimate", estimate)
    monkeypatch.setattr(footprint, "_tree", lambda: [0])
    monkeypatch.setattr(footprint, "_proportional", lambda _: last[-1] - 10)
    with PeakMemory(every=0.01) as memory:
        assert looked.wait(30)
    assert memory.bytes == 140


def test_proportional_sizes_are_read_only_when_memory_grows(monkeypatch: pytest.MonkeyPatch):
    read, proportional = [], footprint._proportional
    monkeypatch.setattr(footprint, "_proportional", lambda pid: read.append(pid) or proportional(pid))
    with PeakMemory(every=0.01) as memory:
        time.sleep(0.3)
        before = len(read)
        held = bytearray(b"1") * (100 * MIB)
        time.sleep(0.3)
        assert len(read) > before
        after = len(read)
        time.sleep(0.3)
        assert len(read) == after
    assert memory.bytes > len(held)
