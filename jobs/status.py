"""How far a run is, read from its files alone: works while it runs and from another machine."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import Any

from jobs.pipeline import OPTIONAL, STAGES, stages_of
from r4t.config import load_config
from r4t.lineage import read_manifest
from r4t.tracking import read_metrics


def describe(folder: Path) -> dict[str, Any]:
    """State of every stage (finished, started or waiting), the newest numbers, and whether a process works on it."""
    wanted = stages_of(load_config(path)) if (path := folder / "config.yaml").is_file() else STAGES
    stages = {name: _stage(folder / name) for name in STAGES if name in wanted or (folder / name).is_dir()}
    lines = read_metrics(folder / "metrics.jsonl")
    newest = max(lines, key=lambda line: line["time"], default=None)
    return {
        "schema": 1,
        "run": str(folder),
        "running": _locked(folder / ".lock"),
        "finished": all(stage["state"] == "finished" for name, stage in stages.items() if name not in OPTIONAL),
        "stages": stages,
        "newest": newest,
    }


def show(found: dict[str, Any]) -> str:
    """The same as a few lines of text."""
    state = "running" if found["running"] else "finished" if found["finished"] else "not running"
    lines = [f"{found['run']}: {state}"]
    for name, stage in found["stages"].items():
        seconds = f"{stage['seconds']:.0f} s" if stage.get("seconds") is not None else ""
        lines.append(f"  {name:<10} {stage['state']:<9} {seconds}".rstrip())
    if newest := found["newest"]:
        age = time.time() - newest["time"]
        when = f"{age:.0f} s ago" if age > -1 else f"by a clock that is {-age:.0f} s ahead of this machine's"
        lines.append(f"newest numbers: {newest['stage']} step {newest['step']}, {when}")
    return "\n".join(lines)


def _stage(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        started = folder.is_dir() and any(folder.iterdir())
        return {"state": "started" if started else "waiting"}
    return {"state": "finished", "seconds": manifest["metrics"].get("seconds"), "finished": manifest["finished"]}


def _locked(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
