"""Negative control (paper section 3.2): which reward terms keep a policy from collapsing onto a few items.

Trains the warm-started policy of a run under groundedness alone, groundedness + alignment, and all three terms, and
records how many distinct items its validation sets keep. The report shows the curves.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from jobs import train_folm
from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.config import Config, Objective
from r4t.errors import UserError
from r4t.lineage import write_json

VARIANTS = {
    "groundedness": {"groundedness": 1.0, "diversity": 0.0, "alignment": 0.0},
    "groundedness + alignment": {"groundedness": 0.5, "diversity": 0.0, "alignment": 0.5},
    "all three": {"groundedness": 0.3, "diversity": 0.3, "alignment": 0.4},
}
CURVE = ("distinct", "diversity", "groundedness", "alignment", "distinct_items")


def main(config: Config, run: Run, steps: int) -> list[dict[str, Any]]:
    """Runs every variant for `steps` rollout batches and writes `control/metrics.json`."""
    start = run.folder / "folm" / "warm_start"
    if not (start / "config.json").is_file():
        raise UserError(f"{run.folder} has no warm-started policy: finish its folm stage first")
    folder = run.stage_folder("control")
    results = [_variant(config, run, folder / name.replace(" ", ""), name, steps) for name in VARIANTS]
    write_json(folder / "metrics.json", {"schema": 1, "steps": steps, "runs": results})
    return results


def _variant(config: Config, run: Run, folder: Path, name: str, steps: int) -> dict[str, Any]:
    """One training from the run's warm start, in its own folder with its own metrics."""
    objective = Objective(kind="paper", weights=VARIANTS[name], credit="set")
    rl = config.rl.model_copy(update={"steps": steps, "validate_every": max(1, steps // 6), "checkpoint_every": steps})
    own = config.model_copy(update={"objective": objective, "rl": rl})
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(run.folder / "folm" / "warm_start", folder / "warm_start")
    run.say(f"control: {name}")
    dataset = load_dataset(run.folder / "prepare")
    with (
        contextlib.closing(Run(folder, own)) as private,
        train_folm.started_actors(own, run, folder / "warm_start") as actors,
    ):
        train_folm.reinforce(own, private, dataset, actors, folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    valid = [entry for entry in lines if entry["stage"] == "valid"]
    curve = [
        {"step": entry["step"]} | {key: entry["values"][key] for key in CURVE if key in entry["values"]}
        for entry in valid
    ]
    return {"name": name, "weights": VARIANTS[name], "curve": curve}
