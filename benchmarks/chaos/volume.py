"""A small file system of a run's own, which can be filled and stalled. Needs root and a loop device."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

FILLER = "filler"


def can_mount() -> bool:
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None


class Volume:
    """An ext4 image of `size` MiB, mounted at `folder`."""

    def __init__(self, image: Path, folder: Path, size: int) -> None:
        self.image, self.folder = image, folder
        with image.open("wb") as file:
            file.truncate(size << 20)
        _do("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        folder.mkdir(parents=True, exist_ok=True)
        _do("mount", "-o", "loop", str(image), str(folder))

    def fill(self) -> None:
        """Takes every free byte."""
        with (self.folder / FILLER).open("wb", buffering=0) as file:
            block = bytes(1 << 20)
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]

    def free(self) -> None:
        (self.folder / FILLER).unlink(missing_ok=True)

    def stall(self, seconds: float) -> None:
        """Every write waits so long, as on storage that has stopped answering."""
        _do("fsfreeze", "-f", str(self.folder))
        try:
            time.sleep(seconds)
        finally:
            _do("fsfreeze", "-u", str(self.folder))

    def close(self) -> None:
        _do("umount", "-l", str(self.folder))
        self.image.unlink()


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
