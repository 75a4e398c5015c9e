"""Dependencies point one way, r4t <- cluster <- jobs, and heavy engines stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {"ray", "vllm", "deepspeed", "wandb"}
LIGHT = ("r4t.config", "r4t.errors", "jobs.cli")
HEAVY = {"torch", "transformers", "ray", "vllm", "deepspeed", "wandb", "numpy", "pyarrow", "faiss"}
VLLM_USERS = {
    ROOT / "cluster" / "rollout.py",  # the engine
    ROOT / "cluster" / "weight_receiver.py",  # runs inside its worker processes
    ROOT / "cluster" / "weights_device.py",  # the learner's end of a GPU weight transfer, which must match the engine's
}
MODULES = sorted(path for layer in ("r4t", "cluster", "jobs") for path in (ROOT / layer).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, also inside functions and through importlib."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in {"import_module", "__import__"}:
                found.add(str(node.args[0].value).split(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    forbidden = {"r4t": ENGINES | {"cluster", "jobs"}, "cluster": {"jobs", "wandb"}, "jobs": {"deepspeed"}}[layer]
    if path not in VLLM_USERS:
        forbidden = forbidden | {"vllm"}
    assert not imported(path) & forbidden


def test_the_check_sees_imports_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text("def f():\n    import ray.data\n    from vllm import LLM\n    import_module('wandb.sdk')\n")
    assert imported(source) == {"ray", "vllm", "wandb"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_importing_the_library_loads_no_engine() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES]
    library = [name.removesuffix(".__init__") for name in modules if name.startswith("r4t.")]
    code = f"import sys, {', '.join(library)}; print(*sorted({ENGINES!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_device_is_decided_in_one_file(path: Path) -> None:
    if path != ROOT / "cluster" / "devices.py":
        code = ast.unparse(ast.parse(path.read_text()))
        assert "cuda.is_available" not in code
        assert "== 'cuda'" not in code


def test_no_pickle_and_numpy_files_of_plain_numbers_alone() -> None:
    for path in MODULES:
        assert not imported(path) & {"pickle", "joblib", "dill"}, path
        text = path.read_text()
        assert text.count("np.load(") == len(re.findall(r"np\.load\([^()]*allow_pickle=False\)", text)), path
        assert "allow_pickle=True" not in text, path
        assert ".npy" not in text, path


def test_files_stay_short() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}
    assert sorted(lengths.values())[len(lengths) // 2] < 200
