"""What a run shows of itself, in sections: `report/index.html` and the explorer's second tab are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r4t.evaluation import sections
from r4t.evaluation.lineage_graph import (
    Stage,
    changed_sources,
    lineage_figure,
    lineage_list,
    stages_of_export,
    stages_of_run,
)
from r4t.evaluation.training_samples import read_samples
from r4t.lineage import read_json
from r4t.retriever.files import DESCRIPTION, read_description
from r4t.tracking import read_metrics

TASKS = {"oar": "open-ended retrieval", "wscr": "compositional retrieval"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What the files of a run say; what it has not got is empty."""

    name: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """evaluate/metrics.json; of an exported retriever only the means that went with it."""
    log: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Mapping[str, Any]] = ()
    training_samples: Sequence[Mapping[str, Any]] = ()
    control: Mapping[str, Any] | None = None
    judged: Mapping[str, Any] | None = None
    """judge_llm/metrics.json"""
    stages: Sequence[Stage] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    anchor: str
    title: str
    hint: str
    body: str


def run_page(folder: Path) -> dict[str, Any]:
    """The page of a run directory, finished or not, or of an exported retriever, as data for the explorer.

    `html` and `summary` are this package's markup, with every text from a catalogue or a model escaped.
    """
    record = read_record(folder)
    return {
        "schema": 1,
        "name": record.name,
        "title": title(record),
        "lead": lead(record),
        "summary": summary(record),
        "sections": [
            {"id": section.anchor, "title": section.title, "hint": section.hint, "html": section.body}
            for section in sections_of(record)
        ],
    }


def read_record(folder: Path) -> RunRecord:
    """Reads a run directory, or an exported retriever's folder; one that lies in a run stands for the run."""
    if (folder / DESCRIPTION).is_file():
        around = [parent for parent in folder.resolve().parents[:2] if (parent / "config.yaml").is_file()]
        if not around:
            return _exported(folder)
        folder = around[0]
    evaluated, control = folder / "evaluate" / "metrics.json", folder / "control" / "metrics.json"
    samples, judged = folder / "evaluate" / "samples.json", folder / "judge_llm" / "metrics.json"
    return RunRecord(
        name=folder.resolve().name,
        metrics=read_json(evaluated) if evaluated.is_file() else {},
        log=read_metrics(folder / "metrics.jsonl"),
        samples=read_json(samples) if samples.is_file() else [],
        training_samples=read_samples(folder / "folm"),
        control=read_json(control) if control.is_file() else None,
        judged=read_json(judged) if judged.is_file() else None,
        stages=stages_of_run(folder),
    )


def title(record: RunRecord) -> str:
    dataset = record.metrics.get("dataset", record.name).replace("_", " ").capitalize()
    task = TASKS.get(record.metrics.get("task", ""))
    return f"{dataset}: {task}" if task else dataset


def lead(record: RunRecord) -> str:
    metrics = record.metrics
    if not metrics:
        return "This run has not been evaluated yet."
    return (
        "A fan-out language model was trained with a reward on whole sets, then compiled into a diffusion retriever."
        f" {len(metrics['methods'])} methods answered the same {metrics['n_queries']:,} held-out queries over"
        f" {metrics['database_items']:,} items."
    )


def summary(record: RunRecord) -> str:
    """The headline numbers and what was measured with what; empty where the run was not evaluated here."""
    if "split" not in record.metrics:
        return ""
    return sections.tiles(record.metrics) + sections.facts(record.metrics)


def sections_of(record: RunRecord) -> list[Section]:
    """The sections that have something to show, in the order of the page."""
    evaluated = _evaluation(record) if record.metrics else []
    found = [*evaluated[:6], *_training(record), *evaluated[6:], _lineage(record)]
    return [section for section in found if section.body]


def _evaluation(record: RunRecord) -> list[Section]:
    metrics = record.metrics
    setup = metrics.get("latency_setup", {})
    timing = "Wall-clock time"
    if setup:
        timing += f" with {setup['includes']}, on {setup['cores']} cores ({setup['device']}), once warm"
    return [
        Section(
            anchor="checks",
            title="Checks",
            hint="What this run had to show. A missed line is a finding, not an error.",
            body=sections.checks(metrics),
        ),
        Section(
            anchor="results",
            title="Results",
            hint=f"Means over {metrics['n_queries']:,} queries ± one standard error. A cell is empty where a metric"
            " does not apply. R4T-Diffusion writes no sub-queries: where the reward looks at them, its generated rows"
            " take their place, and their own terms are listed as Manifold and Row alignment.",
            body=sections.results_table(metrics),
        ),
        Section(
            anchor="llm-judge",
            title="Judged by a language model",
            hint="Means ± one standard error of Likert scores times 20, by the paper's three rubrics, blind to the"
            " method. Not to be compared with the judge's encoder above.",
            body=sections.llm_judge(record.judged) if record.judged else "",
        ),
        Section(
            anchor="methods",
            title="Methods compared",
            hint="The same metrics as bars; whiskers are one standard error.",
            body=sections.bars(metrics),
        ),
        Section(
            anchor="trade-off",
            title="Pareto front: diversity against relevance",
            hint="Up and to the right is better. The dotted line joins the methods that none other beats in both.",
            body=sections.trade_offs(metrics),
        ),
        Section(
            anchor="latency",
            title="Latency",
            hint=f"{timing}. Dots are medians, tails reach the 95th percentile; the axis is logarithmic.",
            body=sections.latency(metrics),
        ),
        Section(
            anchor="sets",
            title="Sets side by side",
            hint="The items a user would see; the sub-query that found each stands below it. Repeated items are faded.",
            body=sections.side_by_side(record.samples),
        ),
        Section(
            anchor="deviations",
            title="What differs from the paper",
            hint="Read the numbers with these in mind.",
            body=sections.bullet_list(metrics["deviations"]) if metrics.get("deviations") else "",
        ),
    ]


def _training(record: RunRecord) -> list[Section]:
    return [
        Section(
            anchor="learning",
            title="Reinforcement learning",
            hint="Each term of the reward by itself, on the queries being trained on and on held-out ones.",
            body=sections.learning(record.log),
        ),
        Section(
            anchor="losses",
            title="Other training",
            hint="Losses of the warm start before, and of the diffusion retriever after.",
            body=sections.losses(record.log),
        ),
        Section(
            anchor="samples",
            title="Samples over training",
            hint="What the policy retrieved for the same validation queries, from its start to its last step; the"
            " sub-query that found each item stands below it. Repeated items are faded.",
            body=sections.over_training(record.training_samples),
        ),
        Section(
            anchor="control",
            title="Negative control",
            hint="The same training with terms of the objective left out.",
            body=sections.negative_control(record.control) if record.control else "",
        ),
    ]


def _lineage(record: RunRecord) -> Section:
    stages = record.stages
    body = ""
    if stages:
        body = f'<div class="lineage">{lineage_figure(stages)}{lineage_list(stages)}</div>'
        changed = changed_sources(stages)
        body += f'<div class="changed">{sections.bullet_list(changed)}</div>' if changed else ""
    return Section(
        anchor="lineage",
        title="Lineage",
        hint="What each stage was made from; what an arrow implies has none of its own. Check it with r4t verify.",
        body=body,
    )


def _exported(folder: Path) -> RunRecord:
    described = read_description(folder)
    measured = described.metrics
    methods = {name: _cells(means) for name, means in measured.get("methods", {}).items()}
    return RunRecord(
        name=described.name,
        metrics={**measured, "methods": methods} if methods else {},
        stages=stages_of_export(described.lineage),
    )


def _cells(means: Mapping[str, float]) -> dict[str, Any]:
    """`{"judge.diversity": mean}` -> the form of evaluate/metrics.json."""
    cells: dict[str, Any] = {}
    for key, mean in means.items():
        group, _, name = key.rpartition(".")
        (cells.setdefault(group, {}) if group else cells)[name] = {"mean": mean}
    return cells
