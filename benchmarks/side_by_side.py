"""Several charts of `r4t.evaluation.svg` in one SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from r4t.evaluation import svg

STYLE = """
svg { font: 11px system-ui, sans-serif; } text { fill: #646a75; } .paper { fill: #fff; }
.title { fill: #1b1d22; font-weight: 600; font-size: 13px; } .grid { stroke: #e3e4e0; } .dot { stroke: #fff; }
.curve { fill: none; stroke-width: 2; }
"""
COLUMN, GAP = 380, 34


def side_by_side(charts: Mapping[str, str], style: str, per_row: int | None = None) -> str:
    """Rows of `charts`, `per_row` in each (None: one row), each under its title; `style` colours their marks."""
    drawn = {title: figure[figure.index("<svg") : figure.index("</svg>") + 6] for title, figure in charts.items()}
    heights = [int(chart.split('viewBox="0 0 ')[1].split('"')[0].split()[1]) for chart in drawn.values()]
    per_row = per_row or len(charts)
    row_height = max(heights) + GAP
    parts = []
    for place, ((title, chart), height) in enumerate(zip(drawn.items(), heights, strict=True)):
        x, y = 10 + place % per_row * COLUMN, place // per_row * row_height
        parts.append(f'<text class="title" x="{x + 46}" y="{y + 20}">{escape(title)}</text>')
        parts.append(chart.replace("<svg", f'<svg x="{x}" y="{y + GAP}" width="{svg.WIDTH}" height="{height}"', 1))
    width, height = COLUMN * min(per_row, len(charts)), -(-len(charts) // per_row) * row_height + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{STYLE}{style}</style><rect class="paper" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )
