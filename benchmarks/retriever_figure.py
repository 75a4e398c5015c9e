"""Quality against network calls as a picture and a table: what `benchmarks.retriever_calls` measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.side_by_side import side_by_side
from r4t.evaluation import svg

METRICS = (
    "reward", "recall", "hit", "diversity", "content_alignment", "distinct_items", "judge.diversity", "judge.alignment",
    "folm_share",
)  # fmt: skip
COLOURS = ("#3d4ed8", "#d99a2b", "#0e9384", "#b3372f", "#7b4fb5", "#5b6472", "#c2418c")


def picture(results: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """One SVG file, a chart per metric: curves over log2 of the calls, each solver at its best guidance and top."""
    names = list(dict.fromkeys(r["curve"] for r in results if "nfe" in r))
    style = "".join(
        f"polyline.s{i} {{ stroke: {c}; }} circle.s{i}, rect.s{i} {{ fill: {c}; }}\n" for i, c in enumerate(COLOURS)
    )
    charts = {}
    for metric in metrics:
        lines = [
            svg.Line(label=name, style=f"s{i % len(COLOURS)}", points=best_points(results, name, metric), marks=True)
            for i, name in enumerate(names)
        ]
        folm = [r["metrics"][metric]["mean"] for r in results if r["name"] == "r4t_folm" and metric in r["metrics"]]
        if folm:
            ends = [x for line in lines for x, _ in line.points]
            level = [(min(ends), folm[0]), (max(ends), folm[0])]
            lines.append(svg.Line(label="FOLM", style=f"s{len(names) % len(COLOURS)}", points=level))
        shown = [line for line in lines if line.points]
        charts[metric] = svg.line_chart(shown, title=metric, x_label="log2 of network calls")
    return side_by_side(charts, style)


def best_points(results: Sequence[Mapping[str, Any]], curve: str, metric: str) -> list[tuple[float, float]]:
    """(log2 calls, best value at that number of calls) of one curve."""
    best: dict[int, float] = {}
    for r in results:
        if r.get("curve") == curve and metric in r["metrics"]:
            best[r["nfe"]] = max(best.get(r["nfe"], -math.inf), r["metrics"][metric]["mean"])
    return [(math.log2(calls), value) for calls, value in sorted(best.items())]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    shown = [m for m in METRICS if any(m in r["metrics"] for r in results)]
    lines = [
        f"| solver | points | guidance | sigma_max | calls | {' | '.join(shown)} |",
        "|---" * (len(shown) + 5) + "|",
    ]
    for r in results:
        cells = [f"{r['metrics'][m]['mean']:.3f}" if m in r["metrics"] else "" for m in shown]
        head = [r["name"], *(r.get(key, "") for key in ("steps", "guidance", "sigma_max", "nfe"))]
        lines.append(f"| {' | '.join('' if h is None else str(h) for h in [*head, *cells])} |")
    return "\n".join(lines)
