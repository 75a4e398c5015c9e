"""Sets that the policy retrieved while it was trained, for the same few validation queries each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r4t.lineage import read_json, write_json

FOLDER = "samples"
KEPT = 4  # queries


def save_samples(stage_folder: Path, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
    """Writes the sets of one validation. A step that a resumed run repeats takes the place of its earlier file."""
    write_json(stage_folder / FOLDER / f"step-{step:05d}.json", {"schema": 1, "step": step, "samples": list(samples)})


def sample_files(stage_folder: Path) -> list[Path]:
    """One file for each validation, by step."""
    return sorted((stage_folder / FOLDER).glob("step-*.json"))


def read_samples(stage_folder: Path) -> list[dict[str, Any]]:
    """`{"query", "steps": [{"step", "reward", "valid", "items", "subqueries"}]}` for every query; empty without any."""
    steps: dict[str, list[dict[str, Any]]] = {}
    for path in sample_files(stage_folder):
        stored = read_json(path)
        for sample in stored["samples"]:
            steps.setdefault(sample["query"], []).append({**sample, "step": stored["step"]})
    return [{"query": query, "steps": found} for query, found in steps.items()]
