"""Peak memory of a process tree, with real processes that take real memory."""

import subprocess
import sys
import time

import pytest

from jobs import footprint
from jobs.footprint import PeakMemory

MIB = 1 << 20
TAKE = "import sys, time; held = bytearray(b'1') * (int(sys.argv[1]) << 20); print('taken', flush=True); time.sleep(60)"


def test_memory_of_a_child_counts_also_after_it_has_ended():
    with PeakMemory(every=0.02) as empty:
        time.sleep(0.2)
    with PeakMemory(every=0.02) as memory:
        child = subprocess.Popen([sys.executable, "-c", TAKE, "200"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"taken\n"
        time.sleep(0.5)
        child.kill()
        child.wait()
        child.stdout.close()
        time.sleep(0.1)
    assert 200 * MIB <= memory.bytes - empty.bytes < 300 * MIB


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
