"""What a report reads of a study's runs: small enough to publish, and enough to write the same bytes again.

A study goes on from a copy of an archive: runs that are whole in it are not run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.plan import Job
from benchmarks.study.state import TIMES, missing
from r4t.lineage import MANIFEST, atomic_folder, atomic_path, read_json, write_json

KEPT = (
    "evaluate/metrics.json", "evaluate/values.safetensors", "evaluate/samples.json",
    "probe/metrics.json", "probe/sets.json",
)  # fmt: skip
RECORDED = ("schema", "stage", "files", "metrics")  # not the configuration, which names folders of the machine
METRICS = "metrics.jsonl"  # of which the validations stay


def archive(jobs: Sequence[Job], directory: Path, target: Path) -> list[str]:
    """Copies what matters of every whole run from `directory` into `target`; returns their names.

    A run that `target` has already is replaced; others in it stay.
    """
    whole = [job for job in jobs if not missing(job, directory)]
    for job in whole:
        with atomic_folder(target / job.name) as temporary:
            _copy(job, directory / job.name, temporary)
    if whole and (directory / TIMES).is_file():
        with atomic_path(target / TIMES) as temporary:
            shutil.copyfile(directory / TIMES, temporary)
    return [job.name for job in whole]


def _copy(job: Job, run: Path, target: Path) -> None:
    for stage in job.stages:
        (target / stage).mkdir()
        recorded = read_json(run / stage / MANIFEST)
        write_json(target / stage / MANIFEST, {name: recorded[name] for name in RECORDED})
    for name in KEPT:
        if (run / name).is_file():
            shutil.copyfile(run / name, target / name)
    lines = (run / METRICS).read_text().splitlines(keepends=True)
    (target / METRICS).write_text("".join(line for line in lines if json.loads(line)["stage"] == "valid"))
