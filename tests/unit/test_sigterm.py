"""SIGTERM reaches the driver wherever it finds it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import signal, time
from jobs.sigterm import stopping_cleanly

class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)  # what the handler raises here, Python drops

with stopping_cleanly():
    try:
        Finalised()
        time.sleep(30)
    finally:
        print("closed")
"""


def test_a_signal_in_a_finaliser_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=25)
    assert done.returncode == 143, done.stderr
    assert done.stdout == "closed\n"


def test_other_exceptions_of_finalisers_are_told_as_ever() -> None:
    code = CODE.replace("signal.raise_signal(signal.SIGTERM)", "1 / 0").replace("sleep(30)", "sleep(0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout == "closed\n"
