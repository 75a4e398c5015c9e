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


def side_by_side(charts: Mapping[str, str], style: str) -> str:
    """One row of `charts`, each under its title; `style` colours their marks."""
    parts, tallest = [], 0
    for place, (title, figure) in enumerate(charts.items()):
        chart = figure[figure.index("<svg") : figure.index("</svg>") + len("</svg>")]
        height = int(chart.split('viewBox="0 0 ')[1].split('"')[0].split()[1])
        tallest, x = max(tallest, height), 10 + place * COLUMN
        parts.append(f'<text class="title" x="{x + 46}" y="20">{escape(title)}</text>')
        parts.append(chart.replace("<svg", f'<svg x="{x}" y="{GAP}" width="{svg.WIDTH}" height="{height}"', 1))
    width, height = COLUMN * len(charts), tallest + GAP + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{STYLE}{style}</style><rect class="paper" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )
