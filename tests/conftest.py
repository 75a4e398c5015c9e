"""Every test process: one thread per library (two cores are shared by many actors) and no calls home."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

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


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["R4T_CACHE"] = str(tmp_path_factory.mktemp("cache"))
