"""The learning curve of a run as a picture and a table, and some of its sets, for a page of documentation.

    python -m benchmarks.curves runs/smollm2-bundles --metrics reward diversity --svg docs/figures/smollm2.svg

Prints Markdown: validation by step, then sets before and after training where the run has been evaluated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import side_by_side
from r4t.evaluation import svg
from r4t.lineage import read_json

METHODS = ("no_fanout", "zero_shot", "r4t_folm")
STYLE = """
polyline.m-train { stroke: #d99a2b; } polyline.m-valid { stroke: #3d4ed8; }
circle.m-train, rect.m-train { fill: #d99a2b; } circle.m-valid, rect.m-valid { fill: #3d4ed8; }
"""


def series(run: Path, metric: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Training (means of five steps) and validation points `(step, value)` of one metric."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    name = {"reward": "reward/mean", "distinct": "distinct"}.get(metric, f"reward/{metric}")
    train = [(e["step"], e["values"][name]) for e in lines if e["stage"] == "folm" and name in e["values"]]
    blocks = [train[i : i + 5] for i in range(0, len(train), 5)]
    valid = [(e["step"], e["values"][metric]) for e in lines if e["stage"] == "valid" and metric in e["values"]]
    return [(block[-1][0], sum(value for _, value in block) / len(block)) for block in blocks], valid


def picture(run: Path, metrics: Sequence[str]) -> str:
    """One SVG file with a chart per metric, side by side."""
    charts = {}
    for metric in metrics:
        train, valid = series(run, metric)
        lines = [
            svg.Line(label="training (5 steps)", style="m-train", points=train),
            svg.Line(label="validation", style="m-valid", points=valid, marks=True),
        ]
        shown = [line for line in lines if line.points]
        charts[metric.replace("_", " ")] = svg.line_chart(shown, title=metric, x_label="step")
    return side_by_side(charts, STYLE)


def table(run: Path, metrics: Sequence[str]) -> list[str]:
    """Validation by step."""
    columns = {metric: dict(series(run, metric)[1]) for metric in metrics}
    steps = sorted({step for points in columns.values() for step in points})
    lines = [f"| step | {' | '.join(name.replace('_', ' ') for name in metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for step in steps:
        cells = [f"{columns[metric][step]:.3f}" if step in columns[metric] else "" for metric in metrics]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return lines


def samples(run: Path, count: int) -> list[str]:
    """The first sets of an evaluated run, a list per method."""
    path = run / "evaluate" / "samples.json"
    every: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    lines = []
    for sample in every[:count]:
        lines += ["", f"**{sample['query']}**", ""]
        for method in METHODS:
            if method in sample["methods"]:
                shown = list(dict.fromkeys(sample["methods"][method]["items"]))
                lines.append(f"- {method}: {'; '.join(shown)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--metrics", nargs="+", default=["reward", "content_alignment", "diversity"])
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--samples", type=int, default=2)
    a = parser.parse_args()
    if a.svg:
        a.svg.parent.mkdir(parents=True, exist_ok=True)
        a.svg.write_text(picture(a.run, a.metrics))
    print("\n".join([*table(a.run, a.metrics), *samples(a.run, a.samples)]))


if __name__ == "__main__":
    main()
