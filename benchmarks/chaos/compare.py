"""What a stage that was broken left, against the one that was left alone."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq

from r4t.lineage import TEMPORARY, read_json
from r4t.tracking import read_metrics
from r4t.verify import verify

TIMED = {"evaluate": ("metrics.json",)}
"""Files that hold times, which differ."""
JUDGED, ROUNDING = "judge/", 1e-5
"""Numbers of an encoder that keeps what it has read: after a restart it reads other texts together, and rounds so."""
TAKEN = ("seconds", "share/", "idle/", "per_second", "memory", "weights/", "restarts")
"""Parts of the names of numbers that say how long something took, or what was broken."""


def problems(base: Path, run: Path, stage: str) -> list[str]:
    """Everything lost, doubled, changed or left over; empty where the stage is as if nothing had happened."""
    return [
        *verify(run / stage),
        *(f"left behind: {path.relative_to(run)}" for path in run.rglob(f"{TEMPORARY}*")),
        *_files(base, run, stage),
        *_numbers(base, run, stage),
    ]


def _files(base: Path, run: Path, stage: str) -> list[str]:
    here, there = (read_json(folder / stage / "manifest.json")["files"] for folder in (run, base))
    found = [f"{name}: only in one of the two" for name in sorted(here.keys() ^ there.keys())]
    for name in sorted((here.keys() & there.keys()) - set(TIMED.get(stage, ()))):
        if here[name] == there[name]:
            continue
        if name.endswith(".parquet"):  # its metadata name the run's own earlier stages
            if pq.read_table(run / stage / name).equals(pq.read_table(base / stage / name)):
                continue
            found.append(f"{name}: other rows")
        elif not name.endswith("manifest.json"):
            found.append(f"{name}: other bytes")
    return found


def _numbers(base: Path, run: Path, stage: str) -> list[str]:
    """Steps that are missing, doubled, or have other values. Of shards finished before a restart there is no line."""
    here, there = (_lines(folder, stage) for folder in (run, base))
    if stage == "sets":
        return []
    found = [f"step {step} of {name}: missing" for name, step in sorted(there.keys() - here.keys())]
    found += [f"step {step} of {name}: too many" for name, step in sorted(here.keys() - there.keys())]
    for key in sorted(there.keys() & here.keys()):
        both = there[key].keys() & here[key].keys()
        other = {name for name in both if not _same(name, there[key][name], here[key][name])}
        if named := sorted(name for name in other if not any(part in name for part in TAKEN)):
            found.append(f"step {key[1]} of {key[0]}: other {', '.join(named[:3])}")
    return found


def _same(name: str, one: float, two: float) -> bool:
    return math.isclose(one, two, abs_tol=ROUNDING) if name.startswith(JUDGED) else one == two


def _lines(run: Path, stage: str) -> dict[tuple[str, int], dict[str, float]]:
    names = {"folm": ("folm", "valid"), "retriever": ("retriever", "retriever/zero_shot")}.get(stage, (stage,))
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["stage"] in names]
    merged: dict[tuple[str, int], dict[str, float]] = {}
    for line in lines:
        merged.setdefault((line["stage"], line["step"]), {}).update(line["values"])
    return merged
