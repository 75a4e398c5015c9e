"""Scratch folders: a living owner keeps its own, a killed one's goes with the next that is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cluster.scratch import Scratch

HOLD = """
import sys, time
from pathlib import Path
from cluster.scratch import Scratch

made = Scratch(Path(sys.argv[1]), "x-")
(made.path / "weights").touch()
print(made.path, flush=True)
time.sleep(60)
"""


def owner(root: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_the_folder_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    (killed, left), (alive, kept) = owner(tmp_path), owner(tmp_path)
    try:
        (tmp_path / "x-unlocked").mkdir()
        killed.kill()
        killed.wait()
        assert left.is_dir()
        mine = Scratch(tmp_path, "x-")
        assert not left.exists()
        assert (kept / "weights").is_file()
        assert (tmp_path / "x-unlocked").is_dir()
        mine.close()
        assert not mine.path.exists()
    finally:
        alive.kill()
        alive.wait()
