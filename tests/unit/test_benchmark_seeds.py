"""The table over runs that differ in their seed alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from support import ROOT


def run(folder: Path, seed: int, reward: float, **config: object) -> Path:
    cells = {"reward": {"mean": reward, "std": 0.1}, "latency_ms": {"1": {"p50": 10.0 * reward, "p95": 9.0}}}
    metrics = {"dataset": "toy", "task": "oar", "split": "test", "n_queries": 2, "k": 10, "n": 1, "database_items": 5}
    check = {"name": "better", "value": reward, "threshold": 0.5, "holds": reward > 0.5, "detail": f"seed {seed}"}
    (folder / "evaluate").mkdir(parents=True)
    (folder / "evaluate" / "metrics.json").write_text(
        json.dumps(metrics | {"methods": {"r4t_folm": cells}, "checks": [check]})
    )
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "name": "toy", **config}))
    return folder


def seeds(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.seeds", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_runs_become_a_mean_a_spread_and_a_count_of_checks(tmp_path: Path) -> None:
    folders = [run(tmp_path / str(seed), seed, reward) for seed, reward in enumerate((0.4, 0.6, 0.8))]
    found = json.loads(seeds(*folders).stdout)
    assert found["seeds"] == [0, 1, 2]
    reward = next(r for r in found["results"] if r.get("metric") == "reward")
    assert (round(reward["mean"], 6), round(reward["std"], 6)) == (0.6, 0.2)
    check = next(r for r in found["results"] if r.get("check") == "better")
    assert check["holds"] == [False, True, True]
    table = seeds(*folders, "--markdown").stdout
    assert "| r4t_folm | 0.600 ± 0.200 |" in table
    assert "| 6 ± 2 |" in table
    assert "| better | 2 of 3 |" in table
    assert "seed 0" not in table
    assert seeds(*folders, "--markdown", "--details").stdout.splitlines()[-1] == "| | | seed 2 |"


def test_runs_of_two_configurations_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    first, other = run(tmp_path / "a", 0, 0.5), run(tmp_path / "b", 1, 0.5, name="another")
    refused = seeds(first, other)
    assert refused.returncode == 2
    assert "they differ in name" in refused.stderr
    (other / "evaluate" / "metrics.json").unlink()
    assert "finish it with `r4t run`" in seeds(first, other).stderr
