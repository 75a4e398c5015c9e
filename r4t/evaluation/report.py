"""`report/index.html`: one page that needs no network, from the files of a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from r4t.errors import UserError
from r4t.evaluation import sections
from r4t.lineage import MANIFEST, atomic_path, file_hash, read_json, read_manifest
from r4t.tracking import read_metrics

STAGES = ("prepare", "folm", "sets", "retriever", "evaluate")
TASKS = {"oar": "open-ended retrieval", "wscr": "compositional retrieval"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    anchor: str
    title: str
    hint: str
    body: str


def write_report(run_folder: Path, out: Path) -> Path:
    """Writes `out/index.html` from what the run has. Raises UserError when it has not been evaluated."""
    source = run_folder / "evaluate" / "metrics.json"
    if not source.is_file():
        raise UserError(f"{run_folder} has no evaluate/metrics.json: run `r4t run CONFIG --stage evaluate` first")
    samples = run_folder / "evaluate" / "samples.json"
    control = run_folder / "control" / "metrics.json"
    judged = run_folder / "judge_llm" / "metrics.json"
    page = render(
        name=run_folder.resolve().name,
        metrics=read_json(source),
        log=read_metrics(run_folder / "metrics.jsonl"),
        samples=read_json(samples) if samples.is_file() else [],
        control=read_json(control) if control.is_file() else None,
        judged=read_json(judged) if judged.is_file() else None,
        lineage=lineage(run_folder),
    )
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page)
    return out / "index.html"


def render(
    *,
    name: str,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]] = (),
    samples: Sequence[Mapping[str, Any]] = (),
    control: Mapping[str, Any] | None = None,
    judged: Mapping[str, Any] | None = None,
    lineage: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as text. Sections without data are left out."""
    package = resources.files("r4t.evaluation")
    shown = [section for section in _sections(metrics, log, samples, control, judged) if section.body]
    title = f"{metrics['dataset'].replace('_', ' ').capitalize()}: {TASKS[metrics['task']]}"
    return Template((package / "report.html").read_text()).substitute(
        name=escape(name),
        title=escape(title),
        style=(package / "report.css").read_text(),
        lead=escape(_lead(metrics)),
        tiles=sections.tiles(metrics),
        facts=sections.facts(metrics),
        links="".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in shown),
        sections="\n".join(_section(section) for section in shown),
        footer=_footer(lineage),
    )


def lineage(run_folder: Path) -> list[dict[str, Any]]:
    """One entry per finished stage: when, from which code, how long, and the hash of its manifest."""
    entries = []
    for stage in STAGES:
        manifest = read_manifest(run_folder / stage)
        if manifest is not None:
            entries.append(
                {
                    "stage": stage,
                    "finished": manifest["finished"],
                    "code": manifest["code"],
                    "seconds": manifest["metrics"].get("seconds"),
                    "hash": file_hash(run_folder / stage / MANIFEST),
                }
            )
    return entries


def _sections(
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    control: Mapping[str, Any] | None,
    judged: Mapping[str, Any] | None,
) -> list[Section]:
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
            body=sections.llm_judge(judged) if judged else "",
        ),
        Section(
            anchor="methods",
            title="Methods compared",
            hint="The same metrics as bars; whiskers are one standard error.",
            body=sections.bars(metrics),
        ),
        Section(
            anchor="trade-off",
            title="Diversity against relevance",
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
            anchor="learning",
            title="Reinforcement learning",
            hint="Each term of the reward by itself, on the queries being trained on and on held-out ones.",
            body=sections.learning(log),
        ),
        Section(
            anchor="control",
            title="Negative control",
            hint="The same training with terms of the objective left out.",
            body=sections.negative_control(control) if control else "",
        ),
        Section(
            anchor="sets",
            title="Sets side by side",
            hint="The items a user would see; the sub-query that found each stands below it. Repeated items are faded.",
            body=sections.side_by_side(samples),
        ),
        Section(
            anchor="deviations",
            title="What differs from the paper",
            hint="Read the numbers with these in mind.",
            body=sections.bullet_list(metrics["deviations"]) if metrics.get("deviations") else "",
        ),
    ]


def _section(section: Section) -> str:
    return (
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">'
        f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>'
        f'<p class="hint">{escape(section.hint)}</p>{section.body}</section>'
    )


def _lead(metrics: Mapping[str, Any]) -> str:
    return (
        f"A fan-out language model was trained with a reward on whole sets, then compiled into a diffusion retriever."
        f" {len(metrics['methods'])} methods answered the same {metrics['n_queries']:,} held-out queries over"
        f" {metrics['database_items']:,} items."
    )


def _footer(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return "<p>No finished stage is recorded.</p>"
    rows = "".join(_lineage_line(entry) for entry in entries)
    return f'<p>Lineage (check with <code>r4t verify</code>):</p><ul class="plain">{rows}</ul>'


def _lineage_line(entry: Mapping[str, Any]) -> str:
    seconds = f", {entry['seconds']:.0f} s" if entry["seconds"] is not None else ""
    manifest, code = escape(entry["hash"][:16]), escape(entry["code"])
    return (
        f"<li>{escape(entry['stage'])}: manifest <code>{manifest}</code>, code <code>{code}</code>,"
        f" finished {escape(entry['finished'])}{seconds}</li>"
    )
