"""The study's figures as SVG: told apart by shape and dashes, not by colour alone (the colours are Okabe and Ito's)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.side_by_side import side_by_side
from benchmarks.study.results import CellResults, Curve, of_part
from r4t.evaluation import svg
from r4t.evaluation.labels import METHOD_NAMES, method_name

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000", "#e69f00", "#7f7f7f", "#8c6d1f")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "2 2 7 2", "5 5")
SHAPES = tuple(svg.SHAPES)
STYLE = (
    ".halo { paint-order: stroke; stroke: #fff; stroke-width: 3px; } .axis { font-style: italic; }\n"
    ".whisker, .leader { stroke: #646a75; fill: none; } .leader { stroke-width: 0.8; }\n"
    ".front { fill: none; stroke: #9aa0aa; stroke-dasharray: 1 3; }\n"
) + "".join(f"polyline.s{i} {{ stroke: {c}; }} .s{i}:not(polyline) {{ fill: {c}; }}\n" for i, c in enumerate(COLOURS))
ABLATED = {
    "distinct": "Distinct items in a set",
    "diversity": "Diversity (Vendi/k)",
    "groundedness": "Groundedness",
    "alignment": "Alignment (sub-queries)",
    "judge/diversity": "Judge: diversity",
    "judge/alignment": "Judge: alignment",
}
TIMED = ("r4t_folm", "r4t_diffusion", "r4t_distilled", "mmr", "dpp", "kmeans", "prf", "bm25", "no_fanout")


def write_figures(study: str, cells: Mapping[str, CellResults], folder: Path) -> dict[str, Path]:
    """Writes those that have numbers; returns them by name."""
    made = {
        "terms": ablation([cell for cell in cells.values() if cell.cell.part == "terms"]),
        "weights": ablation(with_all_terms(cells, "weights")),
        "standardised": ablation([cell for cell in cells.values() if cell.cell.part == "standardised"]),
        "latency": latency(of_part(dict(cells), "table1")),
        "judge": trade_off(of_part(dict(cells), "table1")),
    }
    paths = {}
    for name, picture in made.items():
        path = folder / f"study-{study}-{name}.svg"
        if picture is None:
            path.unlink(missing_ok=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(picture)
        paths[name] = path
    return paths


def with_all_terms(cells: Mapping[str, CellResults], part: str) -> list[CellResults]:
    """The cells of the sweep of weights; 6:2:2 is the one with all three terms."""
    whole = [cell for cell in cells.values() if cell.cell.label == "g+a+d" and cell.cell.part == "terms"]
    return [*whole, *(cell for cell in cells.values() if cell.cell.part == part)]


def line(place: int, label: str, points: Curve) -> svg.Line:
    """The place-th curve of a chart."""
    return svg.Line(
        label=label,
        style=f"s{place % len(COLOURS)}",
        points=points,
        marks=True,
        dash=DASHES[place % len(DASHES)],
        shape=SHAPES[place % len(SHAPES)],
    )


def ablation(cells: Sequence[CellResults]) -> str | None:
    """Fig. 4: what validation sees of each objective, a chart per quality."""
    charts = {}
    for metric, title in ABLATED.items():
        lines = [line(i, label_of(cell, cells), cell.curve(metric)) for i, cell in enumerate(cells)]
        lines = [one for one in lines if len(one.points) > 1]
        if lines:
            charts[title] = svg.line_chart(lines, title=title, x_label="step", named=True)
    return side_by_side(charts, STYLE, per_row=3) if charts else None


def label_of(cell: CellResults, beside: Sequence[CellResults]) -> str:
    """What a curve of Fig. 4 is called: all three terms are 6:2:2 where weights are compared."""
    sweeping = any(other.cell.part == "weights" for other in beside)
    return "6:2:2" if sweeping and cell.cell.part == "terms" else cell.cell.label


def latency(cells: Sequence[CellResults]) -> str | None:
    """Fig. 5: median seconds of a batch by its size, from query text to items."""
    charts = {}
    for cell in cells:
        curves: list[tuple[str, Curve]] = [
            (name, [(float(b), t / 1e3) for b in cell.batches if (t := cell.latency(name, b)) is not None])
            for name in TIMED
        ]
        lines = [line(i, method_name(name), points) for i, (name, points) in enumerate(curves) if len(points) > 1]
        if lines:
            title = f"{cell.cell.label}: seconds a batch"
            charts[title] = svg.line_chart(lines, title=title, x_label="queries in a batch", named=True, log="xy")
    return side_by_side(charts, STYLE, per_row=2) if charts else None


def trade_off(cells: Sequence[CellResults]) -> str | None:
    """The judge's two qualities of every method, a chart per catalogue."""
    charts = {}
    for cell in cells:
        dots = []
        for place, name in enumerate(METHOD_NAMES):
            across, up = (cell.matrix(name, metric) for metric in ("judge.alignment", "judge.diversity"))
            if name in cell.methods and across is not None and up is not None:
                dots.append(
                    svg.Dot(
                        label=method_name(name),
                        style=f"s{place % len(COLOURS)}",
                        x=float(across.mean()),
                        y=float(up.mean()),
                        shape=SHAPES[place % len(SHAPES)],
                    )
                )
        if len(dots) > 1:
            title = f"{cell.cell.label}: the judge's view"
            charts[title] = svg.scatter_chart(dots, title=title, x_label="alignment", y_label="diversity")
    return side_by_side(charts, STYLE, per_row=2) if charts else None
