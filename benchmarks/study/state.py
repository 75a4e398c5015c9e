"""What stands of a study, read from its run directories alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.plan import Job
from r4t.lineage import is_finished, read_json, read_manifest

TIMES = "times.jsonl"
FAILED = "failed.json"


def finished(run: Path, stage: str, methods: Sequence[str]) -> bool:
    """Whether a stage is done; an evaluation, once it covers all of `methods`."""
    if not is_finished(run / stage):
        return False
    if stage != "evaluate":
        return True
    manifest = read_manifest(run / stage) or {}
    known = read_json(run / stage / "metrics.json")["methods"]
    return "values.safetensors" in manifest["files"] and set(methods) <= known.keys()


def missing(job: Job, directory: Path) -> list[str]:
    """The stages of a run that are still to do, in order."""
    run = directory / job.name
    return [stage for stage in job.stages if not finished(run, stage, job.cell.methods)]


def describe(jobs: Iterable[Job], directory: Path) -> list[dict[str, Any]]:
    """One entry per run: its stages and what each is: finished, failed or missing."""
    entries = []
    for job in jobs:
        left = missing(job, directory)
        failed = failure(directory / job.name)
        states = {stage: "missing" if stage in left else "finished" for stage in job.stages}
        if failed and failed["stage"] in left:
            states[failed["stage"]] = "failed"
        entries.append({"run": job.name, "stages": states, "failed": failed if "failed" in states.values() else None})
    return entries


def show(entries: Sequence[dict[str, Any]]) -> str:
    """The same as a line per run."""
    width = max(len(entry["run"]) for entry in entries)
    marks = {"finished": "+", "failed": "!", "missing": "."}
    lines = []
    for entry in entries:
        stages = " ".join(f"{marks[state]}{stage}" for stage, state in entry["stages"].items())
        why = f"  {entry['failed']['says']}" if entry["failed"] else ""
        lines.append(f"{entry['run']:<{width}}  {stages}{why}")
    whole = sum(set(entry["stages"].values()) == {"finished"} for entry in entries)
    return "\n".join([*lines, f"{whole} of {len(entries)} runs are whole (+ finished, ! failed, . missing)"])


def failure(run: Path) -> dict[str, Any] | None:
    """What stopped the newest attempt at a run, or None."""
    path = run / FAILED
    return read_json(path) if path.is_file() else None


def note_time(directory: Path, job: Job, stage: str, seconds: float) -> None:
    """Records how long a stage took, for the estimate of what is left."""
    with (directory / TIMES).open("a") as handle:
        handle.write(json.dumps({"cell": job.key, "stage": stage, "seconds": round(seconds, 1)}) + "\n")


def seconds_left(work: Sequence[tuple[Job, str]], directory: Path) -> tuple[float, int]:
    """Expected seconds of the given stages, and how many of them nothing is known about.

    A stage takes what it took in the same cell before, else what it took in others (medians).
    """
    path = directory / TIMES
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    total, unknown = 0.0, 0
    for job, stage in work:
        alike = [line["seconds"] for line in lines if line["stage"] == stage]
        same = [line["seconds"] for line in lines if line["stage"] == stage and line["cell"] == job.key]
        if alike:
            total += statistics.median(same or alike)
        else:
            unknown += 1
    return total, unknown
