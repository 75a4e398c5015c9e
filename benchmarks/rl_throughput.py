"""Completions trained per second: R4T's loop, synchronous and one step off, and TRL's GRPOTrainer.

    python -m benchmarks.rl_throughput RUN [--trl PYTHON] [--repeats 5] [--batches 8] [--set A.B=C]

RUN is a run directory whose warm start is done; its policy, prompts and configuration serve every side. Sides take
turns, each `repeats` times in a process of its own. A side's number is the median over the repetitions of its median
batch, the first `WARM` batches left out. PYTHON is an environment with trl, a CPU torch, faiss-cpu, pydantic, PyYAML
and wordllama. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.environment import environment
from r4t.config import Config, load_config

ROOT = Path(__file__).resolve().parents[1]
WARM = 2  # batches before the clock counts
SHARES = ("share/rollout", "share/score", "share/train", "share/sync", "idle/rollout", "idle/learner")


def r4t_side(run: Path, config: Config, staleness: int, batches: int) -> dict[str, Any]:
    """Seconds of every step after the first `WARM`, and where they went, of a fresh stage 1 from RUN's warm start."""
    never = 10**6
    rl = {"steps": batches, "staleness": staleness, "validate_every": never, "checkpoint_every": never}
    settings = config.model_dump(mode="json")
    settings["rl"] |= rl | {"validate_queries": 1}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "run"
        for part in ("prepare", "folm/initial", "folm/warm_start"):
            if (run / part).is_dir():
                shutil.copytree(run / part, target / part)
        written = Path(folder) / "config.yaml"
        written.write_text(yaml.safe_dump(settings))
        command = [
            str(Path(sys.executable).with_name("r4t")),
            "run",
            str(written),
            "--run-dir",
            str(target),
            "--stage",
            "folm",
        ]
        finish(command)
        lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    steps = [line["values"] for line in lines if line["stage"] == "folm" and line["step"] > WARM]
    return {
        "seconds": [step["step/seconds"] for step in steps],
        "tokens": statistics.mean(step["tokens/answer"] for step in steps),
        **{name: statistics.mean(step[name] for step in steps) for name in SHARES},
    }


def trl_side(run: Path, config: Config, python: str, batches: int) -> dict[str, Any]:
    """The same from TRL."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(config.model_dump_json())
        file.flush()
        out = finish([python, "-m", "benchmarks.rl_trl_side", str(run), file.name, str(batches)])
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    found["seconds"] = found["seconds"][WARM - 1 :]  # differences of ends: the first batch has none
    return found


def finish(command: list[str]) -> str:
    """Standard output of a command. Raises RuntimeError with the end of its errors when it fails."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def summary(repeats: list[dict[str, Any]], completions: int) -> dict[str, Any]:
    """Medians over the repetitions, with their spread."""
    seconds = [statistics.median(one["seconds"]) for one in repeats]
    rates = [completions / s for s in seconds]
    keys = [key for key in repeats[0] if key != "seconds"]
    return {
        "completions_per_second": statistics.median(rates),
        "least": min(rates),
        "most": max(rates),
        "seconds_per_batch": statistics.median(seconds),
        **{key: statistics.median(one[key] for one in repeats) for key in keys},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trl", metavar="PYTHON", help="interpreter of an environment with trl")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    a = parser.parse_args()
    config = load_config(a.run / "config.yaml", a.overrides)
    sides = {
        "r4t_synchronous": lambda: r4t_side(a.run, config, 0, a.batches),
        "r4t_one_step_off": lambda: r4t_side(a.run, config, 1, a.batches),
    }
    if a.trl:
        sides["trl"] = lambda: trl_side(a.run, config, a.trl, a.batches)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for repeat in range(a.repeats):
        for name, measure in sides.items():
            found[name].append(measure())
            rate = statistics.median(found[name][-1]["seconds"])
            print(f"repeat {repeat + 1}/{a.repeats} {name}: {rate:.2f} s a batch", file=sys.stderr)
    completions = config.rl.queries_per_step * config.rl.group_size
    result: dict[str, Any] = {name: summary(repeats, completions) for name, repeats in found.items()}
    speed = {name: side["completions_per_second"] for name, side in result.items()}
    result["one_step_off_over_synchronous"] = speed["r4t_one_step_off"] / speed["r4t_synchronous"]
    if a.trl:
        result["synchronous_over_trl"] = speed["r4t_synchronous"] / speed["trl"]
        result["one_step_off_over_trl"] = speed["r4t_one_step_off"] / speed["trl"]
    setting: dict[str, Any] = {
        "queries_per_step": config.rl.queries_per_step,
        "completions_per_batch": completions,
        "batches": a.batches,
        "warm": WARM,
        "repeats": a.repeats,
    }
    environ = environment() | ({"trl": version(a.trl)} if a.trl else {})
    print(json.dumps({"schema": 1, "name": "rl_throughput", "environment": environ, "results": [setting | result]}))


def version(python: str) -> str:
    return finish([python, "-c", "import trl; print(trl.__version__)"]).strip()


if __name__ == "__main__":
    main()
