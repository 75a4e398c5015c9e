"""Quality against network calls as a picture and a table: what `benchmarks.retriever_calls` measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.side_by_side import side_by_side
from benchmarks.study.figures import STYLE, line
from r4t.evaluation import svg
from r4t.evaluation.labels import METRICS as LABELS

METRICS = (
    "reward", "recall", "hit", "diversity", "content_alignment", "distinct_items", "judge.diversity", "judge.alignment",
    "folm_share",
)  # fmt: skip
TITLES = {metric: label for metric, (label, _) in LABELS.items()} | {"folm_share": "Items that the policy finds too"}


def picture(results: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """One SVG file, a chart per metric over the network calls: a curve per solver and kind of student."""
    names = list(dict.fromkeys(r["curve"] for r in results if "nfe" in r))
    charts = {}
    for metric in metrics:
        curves = [(name, best_points(results, name, metric)) for name in names]
        folm = [r["metrics"][metric]["mean"] for r in results if r["name"] == "r4t_folm" and metric in r["metrics"]]
        ends = [x for _, points in curves for x, _ in points]
        level = [(x, folm[0]) for x in (min(ends), max(ends))] if folm else []
        title = TITLES[metric]
        named = [*((name.replace("student_", "student: "), points) for name, points in curves), ("policy", level)]
        lines = [line(place, name, points) for place, (name, points) in enumerate(named)]
        shown = [one for one in lines if one.points]
        charts[title] = svg.line_chart(shown, title=title, x_label="network calls", log="x")
    return side_by_side(charts, STYLE, per_row=2)


def best_points(results: Sequence[Mapping[str, Any]], curve: str, metric: str) -> list[tuple[float, float]]:
    """(calls, value) of one curve, at each number of calls of the way of drawing that has the best reward there.

    Networks that differ by nothing but their training seed are one way, and count by their mean.
    """
    head = "reward" if all("reward" in r["metrics"] for r in results) else "recall"
    ways: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for r in results:
        if r.get("curve") == curve and metric in r["metrics"]:
            way = (r["nfe"], r["steps"], r["guidance"], r["sigma_max"], r["rho"])
            ways.setdefault(way, []).append((r["metrics"][head]["mean"], r["metrics"][metric]["mean"]))
    best: dict[int, tuple[float, float]] = {}
    for (calls, *_), found in ways.items():
        mean = statistics.fmean(first for first, _ in found), statistics.fmean(value for _, value in found)
        best[calls] = max(best.get(calls, (-math.inf, 0.0)), mean)
    return [(float(calls), value) for calls, (_, value) in sorted(best.items())]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    shown = [m for m in METRICS if any(m in r["metrics"] for r in results)]
    lines = [
        f"| solver | points | guidance | sigma_max | rho | spread | calls | {' | '.join(shown)} |",
        "|---" * (len(shown) + 7) + "|",
    ]
    for r in results:
        cells = [f"{r['metrics'][m]['mean']:.3f}" if m in r["metrics"] else "" for m in shown]
        head = [r["name"], *(r.get(key, "") for key in ("steps", "guidance", "sigma_max", "rho", "spread", "nfe"))]
        lines.append(f"| {' | '.join('' if h is None else str(h) for h in [*head, *cells])} |")
    return "\n".join(lines)
