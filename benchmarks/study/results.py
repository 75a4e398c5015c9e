"""The numbers of a study's runs, read from their files: values by query, learning curves, times and sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.plan import Cell, Job, Part, Study
from benchmarks.study.state import finished
from r4t.errors import UserError
from r4t.evaluation.statistics import Matrix
from r4t.lineage import read_json, read_tensors
from r4t.tracking import read_metrics

Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResults:
    """A cell, with what its runs have so far."""

    key: str
    cell: Cell
    seeds: list[int] = field(default_factory=list)
    """Evaluated ones."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """`evaluate/metrics.json`, in the order of `seeds`."""
    values: list[dict[str, Any]] = field(default_factory=list)
    """`{"method/metric": [B]}`, likewise."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Of the first evaluated seed."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """`probe/metrics.json`, of every seed that has one."""
    gallery: list[dict[str, Any]] = field(default_factory=list)
    """Sets for the probe's queries, of the first seed that has them."""
    curves: list[dict[str, Curve]] = field(default_factory=list)
    """Validation by step, of every seed whose reinforcement learning is finished."""

    @property
    def methods(self) -> list[str]:
        """Those that every evaluated seed has, in the order of the report."""
        return [name for name in self.metrics[0]["methods"] if all(name in m["methods"] for m in self.metrics[1:])]

    def matrix(self, method: str, metric: str) -> Matrix | None:
        """[S, B] values; `a+b` is the mean of two metrics. None where a seed lacks it or nothing applies.

        Raises UserError when seeds answered different numbers of queries.
        """
        parts = [self._single(method, name) for name in metric.split("+")]
        present = [part for part in parts if part is not None]
        return np.mean(present, axis=0) if len(present) == len(parts) else None

    def curve(self, metric: str) -> Curve:
        """Mean over seeds of one validation metric, at the steps that all of them have."""
        series = [dict(curve[metric]) for curve in self.curves if metric in curve]
        steps = sorted(set.intersection(*(set(points) for points in series))) if series else []
        return [(step, float(np.mean([points[step] for points in series]))) for step in steps]

    def latency(self, method: str, batch: int, what: str = "p50") -> float | None:
        """Milliseconds a batch takes (`p50`, `p95`, `own_p50`) or its `cost_per_1000`: the median over probes."""
        cells = [probe["latency_ms"].get(method, {}).get(str(batch)) for probe in self.probes]
        known = [cell[what] for cell in cells if cell]
        return float(np.median(known)) if known else None

    @property
    def batches(self) -> list[int]:
        """Batch sizes that were timed, ascending."""
        return sorted({int(b) for probe in self.probes for batches in probe["latency_ms"].values() for b in batches})

    def _single(self, method: str, metric: str) -> Matrix | None:
        rows = [values.get(f"{method}/{metric}") for values in self.values]
        known = [row for row in rows if row is not None]
        if not rows or len(known) < len(rows):
            return None
        if len({len(row) for row in known}) > 1:
            raise UserError(f"the runs of {self.key} answered different queries: they must share data.seed")
        matrix = np.stack(known).astype(np.float64)
        return None if np.isnan(matrix).all() else matrix


def collect(study: Study, jobs: Sequence[Job], directory: Path) -> dict[str, CellResults]:
    """Everything that stands, by cell."""
    found = {key: CellResults(key=key, cell=cell) for key, cell in study.cells.items()}
    for job in sorted(jobs, key=lambda job: job.seed):
        run, cell = directory / job.name, found[job.key]
        if finished(run, "folm", ()):
            cell.curves.append(_curves(run))
        if finished(run, "evaluate", ()):
            cell.seeds.append(job.seed)
            cell.metrics.append(read_json(run / "evaluate" / "metrics.json"))
            cell.values.append(read_tensors(run / "evaluate" / "values.safetensors"))
            if not cell.samples:
                cell.samples.extend(read_json(run / "evaluate" / "samples.json"))
        if finished(run, "probe", ()):
            cell.probes.append(read_json(run / "probe" / "metrics.json"))
            if not cell.gallery:
                cell.gallery.extend(read_json(run / "probe" / "sets.json"))
    return found


def of_part(cells: dict[str, CellResults], part: Part) -> list[CellResults]:
    """The part's cells that have been evaluated, in the order of the study."""
    return [cell for cell in cells.values() if cell.cell.part == part and cell.metrics]


def _curves(run: Path) -> dict[str, Curve]:
    """Validation by step; of a step that a resumed run repeated, the newest."""
    points: dict[str, dict[float, float]] = {}
    for line in read_metrics(run / "metrics.jsonl"):
        if line["stage"] == "valid":
            for name, value in line["values"].items():
                points.setdefault(name, {})[line["step"]] = value
    return {name: sorted(series.items()) for name, series in points.items()}
