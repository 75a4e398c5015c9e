"""What `pip install` of the wheel gives: everything that is read at run time, and a pipeline outside any checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from support import ROOT

from r4t.lineage import read_manifest

pytestmark = pytest.mark.service

PACKAGES = ("r4t", "cluster", "jobs")
SMALL = [
    "data.n_queries=40", "policy={vocab_size: 512, hidden: 64, layers: 1, heads: 2}", "fanout.k=4",
    "warm_start={steps: 20, batch: 8, fanouts_per_query: 1}",
    "rl={steps: 1, queries_per_step: 2, group_size: 2, updates_per_batch: 1, max_tokens: 24, validate_queries: 2,"
    " judge_queries: 0, validate_every: 1, checkpoint_every: 1}",
    "sets={samples_per_query: 1, shard_queries: 16}",
    "learner={ranks: 1, threads: 1}", "rollout={workers: 1, threads: 1}", "scorer={threads: 1}",
    "retriever={rows: 4, hidden: 32, mlp: 32, layers: 1, heads: 2, noise_dim: 16, steps: 4, batch: 8, warmup_steps: 1,"
    " validate_every: 2, checkpoint_every: 2}",
    "distill={steps: 4, batch: 8, warmup_steps: 1, validate_every: 2, checkpoint_every: 2}",
    "evaluate={queries: 2, best_of: 2, latency_batches: [1], latency_repeats: 1}",
]  # fmt: skip


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=560, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "configs", "benchmarks", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-a", ROOT / name, source / name], check=True)
    build = ("wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, source)
    done = run(sys.executable, "-m", "pip", *build, cwd=folder)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("r4t-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies are those of this interpreter, without this checkout."""
    folder = tmp_path_factory.mktemp("venv")
    assert run(sys.executable, "-m", "venv", folder / "venv", cwd=folder).returncode == 0
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # whose own .pth are not followed
    done = run(folder / "venv/bin/pip", "install", "-q", "--no-deps", "--force-reinstall", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "venv" / "bin"


def test_the_wheel_holds_every_file_of_the_packages_and_the_configurations(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"jobs/shipped/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert expected - held == set()
    assert "jobs/shipped/rates.json" in held
    assert not [name for name in held if name.startswith(("tests/", "benchmarks/"))]


def test_commands_work_outside_a_checkout(installed: Path, tmp_path: Path) -> None:
    listed = run(installed / "r4t", "quickstart", "--list", cwd=tmp_path)
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == {
        line.split()[0] for line in listed.stdout.splitlines()
    }
    shown = run(installed / "r4t", "quickstart", "--show", cwd=tmp_path)
    assert shown.stdout == (ROOT / "configs" / "quickstart.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    for command in (["plan", "mine.yaml", "--json"], ["manifest", "mine.yaml"]):
        done = run(installed / "r4t", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert list(yaml.safe_load_all(done.stdout))
    needs = run(installed / "r4t", "quickstart", "--config", "paper", cwd=tmp_path)
    assert needs.returncode == 2
    assert "--config paper --show > paper.yaml" in needs.stderr
    where = run(installed / "python", "-c", "import jobs, r4t, cluster; print(jobs.__file__)", cwd=tmp_path)
    assert str(installed.parent) in where.stdout


@pytest.mark.slow
def test_the_quickstart_reaches_a_report_where_vllm_cannot_be_imported(installed: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text("import sys\n\nsys.modules['vllm'] = None\n")
    overrides = [word for override in SMALL for word in ("--set", override)]
    command = (installed / "r4t", "quickstart", "--run-dir", tmp_path / "run", *overrides)
    done = run(*command, cwd=tmp_path, PYTHONPATH=str(blocker))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "transformers samples instead (rollout.engine: hf)" in done.stdout + done.stderr
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    made = read_manifest(tmp_path / "run" / "evaluate") or {}
    assert made["stage"] == "evaluate"
    assert "distill" in made["inputs"], "its student is among what is compared"
    verified = run(installed / "r4t", "verify", tmp_path / "run", cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout
