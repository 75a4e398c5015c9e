"""A process that leaves at once: its code, what it said and what it promised to do at its end are all there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import ROOT

PROGRAM = """
import atexit, sys
from jobs.leaving import leaving_at_once

class Grave:
    def __del__(self):
        sys.stdout.write("destroyed")

kept = Grave()
with leaving_at_once():
    atexit.register(print, 'promised')
    sys.stdout.write("said ")
    {end}
"""


def run(end: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(end=end)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("end", "code"), [("sys.exit()", 0), ("sys.exit(0)", 0), ("sys.exit(2)", 2)])
def test_an_exit_keeps_its_code_and_what_was_to_be_done_and_destroys_nothing(end: str, code: int) -> None:
    done = run(end)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said promised\n", "")


@pytest.mark.parametrize(("end", "said"), [("1 / 0", "ZeroDivisionError"), ("sys.exit('why')", "why"), ("pass", "")])
def test_any_other_end_is_left_to_python(end: str, said: str) -> None:
    done = run(end)
    assert done.returncode == (1 if said else 0)
    assert done.stdout == "said promised\ndestroyed"
    assert said in done.stderr


def test_where_nobody_reads_what_was_said_python_ends_as_it_does_then() -> None:
    program = PROGRAM.replace("print, 'promised'", "len, ''").format(end="sys.exit(3)")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 120
    assert "BrokenPipeError" in said
