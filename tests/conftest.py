"""Every test process: one thread per library (two cores are shared by many actors) and no calls home."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# OpenRLHF's wheel installs a top-level package `tests`, which would hide this folder from `from tests.x import y`.
_ours = types.ModuleType("tests")
_ours.__path__ = [str(Path(__file__).parent)]
sys.modules["tests"] = _ours

for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_name, _value)

hypothesis.settings.register_profile("r4t", deadline=None)  # an example's pause on a busy machine is no failure
hypothesis.settings.load_profile("r4t")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["R4T_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 64 KiB and no more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
