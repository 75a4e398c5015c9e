"""What a study is: a YAML file that names its cells. A cell with a seed is a run of `r4t` in a directory of its own."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from r4t.config.section import Section
from r4t.errors import UserError

Part = Literal["table1", "table2", "terms", "weights", "standardised"]
Stage = Literal["prepare", "folm", "sets", "retriever", "distill", "evaluate", "probe"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Cell(Section):
    """One configuration of the study, to be run with several seeds."""

    part: Part
    label: str  # what tables and figures call it
    config: Path  # relative to the study's file
    overrides: dict[str, Any] = Field(default_factory=dict)  # "section.key": value, on top of the study's
    seeds: tuple[int, ...] = (0,)
    stages: tuple[Stage, ...] = STAGES[:-1]
    methods: tuple[str, ...] = ()  # evaluated; (): all that the run has artefacts for
    start: str | None = None  # a cell whose prepared data and warm-started policy this one begins with

    @model_validator(mode="after")
    def _ordered(self) -> Cell:
        if list(self.stages) != [name for name in STAGES if name in self.stages]:
            raise ValueError(f"stages must stand in the order {', '.join(STAGES)}, each once")
        return self


class Probe(Section):
    """Latency by batch size, and the sets of given queries, method by method."""

    batches: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    repeats: int = Field(5, ge=1)
    seeds: tuple[int, ...] = (0,)  # whose runs are probed; one says enough about time
    queries: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # fanout.domain -> queries whose sets are shown


class Study(Section):
    name: str
    title: str
    overrides: dict[str, Any] = Field(default_factory=dict)  # of every cell
    order: tuple[str, ...] = ()  # patterns of runs that come first, such as "oar-*-0"
    probe: Probe = Probe()
    cells: dict[str, Cell]

    @model_validator(mode="after")
    def _starts_exist(self) -> Study:
        for name, cell in self.cells.items():
            if cell.start is None:
                continue
            if cell.start not in self.cells or self.cells[cell.start].start is not None:
                raise ValueError(f"cell {name} starts from '{cell.start}', which is no cell with a start of its own")
            if missing := set(cell.seeds) - set(self.cells[cell.start].seeds):
                raise ValueError(f"cell {name} has seed {min(missing)}, which its start '{cell.start}' has not")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A cell with its seed."""

    name: str
    """Also of its directory: `<cell>-<seed>`."""
    key: str
    cell: Cell
    seed: int
    config: Path
    overrides: dict[str, Any]
    stages: tuple[Stage, ...]

    @property
    def start(self) -> str | None:
        return None if self.cell.start is None else f"{self.cell.start}-{self.seed}"

    def settings(self) -> list[str]:
        """`section.key=value` for `r4t run --set`; JSON is YAML."""
        return [f"{key}={json.dumps(value)}" for key, value in {**self.overrides, "seed": self.seed}.items()]


def load_study(path: Path) -> Study:
    """Reads a study's file. Raises UserError that names what is wrong."""
    try:
        return Study.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"no study at {path}: give a YAML file, for example benchmarks/study/tiny.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise UserError(f"{path}: " + "; ".join(problems)) from None


def jobs_of(study: Study, folder: Path, only: str | None = None) -> list[Job]:
    """Every cell with every seed: those of `order` first, then seed by seed; a start before what begins with it.

    `folder` is that of the study's file. `only`, a pattern, keeps the runs whose name matches it, and their starts.
    Raises UserError when it matches none.
    """
    seeds = sorted({seed for cell in study.cells.values() for seed in cell.seeds})
    every = [
        Job(
            name=f"{key}-{seed}",
            key=key,
            cell=cell,
            seed=seed,
            config=(folder / cell.config).resolve(),
            overrides={**study.overrides, **cell.overrides},
            stages=tuple(stage for stage in cell.stages if stage != "probe" or seed in study.probe.seeds),
        )
        for seed in seeds
        for key, cell in study.cells.items()
        if seed in cell.seeds
    ]
    ranked = [job for pattern in study.order for job in every if fnmatch.fnmatch(job.name, pattern)]
    ordered = _starts_first(list({job.name: job for job in [*ranked, *every]}.values()))
    if only is None:
        return ordered
    chosen = [job for job in ordered if fnmatch.fnmatch(job.name, only)]
    if not chosen:
        raise UserError(f"no run matches '{only}': the study has {', '.join(job.name for job in ordered)}")
    names = {job.name for job in chosen} | {job.start for job in chosen}
    return [job for job in ordered if job.name in names]


def _starts_first(jobs: Sequence[Job]) -> list[Job]:
    by_name = {job.name: job for job in jobs}
    ordered: dict[str, Job] = {}
    for job in jobs:
        if job.start is not None:
            ordered.setdefault(job.start, by_name[job.start])
        ordered.setdefault(job.name, job)
    return list(ordered.values())
