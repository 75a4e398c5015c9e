"""Where the tests find OpenRLHF: installed (`make install`), or a wheel or folder of it in R4T_OPENRLHF.

Its agents, its loss, its prompt dataset and its command line run on a CPU. The package as a whole imports flash-attn,
which needs a CUDA compiler; `write_flash_attn` stands in for that alone.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import sys
import types
import zipfile
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

ABSENT = "openrlhf is not installed (`make install`), and R4T_OPENRLHF names no wheel or folder of it"


def package(folder: Path) -> Path:
    """The package's folder, unpacked into `folder` where it lies in a wheel. Skips the test where there is none."""
    if place := os.environ.get("R4T_OPENRLHF"):
        path = Path(place)
        for wheel in [path] if path.suffix == ".whl" else sorted(path.glob("openrlhf-*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            path = folder
        found = sorted(path.rglob("openrlhf/models/loss.py"))
        if not found:
            pytest.skip(ABSENT)
        return found[0].parents[1]
    try:
        return Path(str(distribution("openrlhf").locate_file("openrlhf")))
    except PackageNotFoundError:
        pytest.skip(ABSENT)


def loss_module(root: Path) -> Any:
    """`openrlhf.models.loss` by itself."""
    utils: Any = types.ModuleType("oracle.utils")
    utils.masked_mean = lambda tensor, mask, dim=None: (tensor * mask).sum(dim=dim) / mask.sum(dim=dim)
    return _load(
        "oracle.loss", root / "models" / "loss.py", {"oracle": types.ModuleType("oracle"), "oracle.utils": utils}
    )


def agents() -> Any:
    """`openrlhf.utils.agent`, really imported. Skips the test where the package is not installed."""
    return pytest.importorskip("openrlhf.utils.agent", reason=ABSENT)


def parse_command(root: Path, arguments: list[str]) -> Any:
    """The settings that `train_ppo_ray ARGUMENTS` would train with: its own parser and its own checks, run from source.

    The command builds its parser under `__main__`, below imports that need a GPU; only that block runs here.
    """
    tree = ast.parse((root / "cli" / "train_ppo_ray.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    config = _load("openrlhf_config", root / "utils" / "config.py", {})
    trained: list[Any] = []
    names = {"argparse": argparse, "datetime": datetime, "train": trained.append}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_ppo_ray", *arguments])
        for name in ("openrlhf", "openrlhf.utils"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, "openrlhf.utils.config", config)
        exec(compile(ast.Module(block.body, []), "train_ppo_ray", "exec"), names)  # noqa: S102  their own source
    return trained[0]


def write_flash_attn(folder: Path) -> Path:
    """Writes an empty flash-attn into `folder`: on PYTHONPATH, all the rest of OpenRLHF can be imported on a CPU."""
    files = {
        "__init__.py": "",
        "bert_padding.py": "index_first_axis = pad_input = rearrange = unpad_input = None\n",
        "utils/__init__.py": "",
        "utils/distributed.py": "all_gather = None\n",
    }
    for name, text in files.items():
        path = folder / "flash_attn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _load(name: str, path: Path, beside: dict[str, Any]) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for other, value in {**beside, name: module}.items():
            patch.setitem(sys.modules, other, value)
        spec.loader.exec_module(module)
    return module
