"""Small charts as inline SVG. Colours are CSS classes of the page, so the charts follow its light and dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from r4t.evaluation.label_places import Box, place_labels

WIDTH = 360
CHARACTER = 6.6  # width of one label character in the page's font, rounded up


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve; `style` is the class that colours it. Dashes and shapes tell curves apart without colour."""

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    marks: bool = False
    dash: str = ""
    """As `stroke-dasharray`, such as "6 3"; empty: a whole line."""
    shape: str = "circle"
    """Of its marks: a name of SHAPES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    label: str
    style: str
    value: float
    error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A dot at `low` and a line to `high`, on a logarithmic axis."""

    label: str
    style: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    label: str
    style: str
    x: float
    y: float
    x_error: float = 0.0
    y_error: float = 0.0
    shape: str = "circle"


SHAPES = {
    "circle": "",  # drawn as one
    "square": "M-1 -1H1V1H-1Z",
    "triangle": "M0 -1.2L1.15 0.9H-1.15Z",
    "diamond": "M0 -1.3L1.3 0L0 1.3L-1.3 0Z",
    "down": "M0 1.2L1.15 -0.9H-1.15Z",
    "cross": "M-1.2 -.45H-.45V-1.2H.45V-.45H1.2V.45H.45V1.2H-.45V.45H-1.2Z",
}
"""Outlines of marks, about 2 wide around the origin."""
LAYERS = ("square", "circle", "diamond", "triangle", "down", "cross")
"""Shapes from the lowest to the highest: none hides one below it whole."""


def line_chart(lines: Sequence[Line], *, title: str, x_label: str, named: bool = False, log: str = "") -> str:
    """Curves over one axis. Several have a legend or, when `named`, their names at their ends.

    log: `x` or `xy`, the axes that are logarithmic, with ticks at powers of two and of ten; values must be positive.
    """
    legend, legend_height = _legend(lines) if len(lines) > 1 and not named else ([], 0)
    room = 34 + CHARACTER * max(len(line.label) for line in lines) if named else 10
    left, right, top, bottom = 46, room, 10 + legend_height, 34
    height = (232 if named else 192) + legend_height
    log_x, log_y = ("x" in log), ("y" in log)
    if log_x:
        lines = [replace(line, points=[(math.log2(x), y) for x, y in line.points]) for line in lines]
    if log_y:
        lines = [replace(line, points=[(x, math.log10(y)) for x, y in line.points]) for line in lines]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    ticks = _powers(min(ys), max(ys)) if log_y else nice_ticks(min(ys), max(ys), 4)
    y_low, y_high = min(min(ys), ticks[0]), max(max(ys), ticks[-1])
    across = _powers(x_low, x_high) if log_x else nice_ticks(x_low, x_high, 4)

    def px(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (WIDTH - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = [
        _grid_line(left, py(t), WIDTH - right, py(t)) + text(left - 6, py(t) + 4, tick(10**t if log_y else t), "end")
        for t in ticks
    ]
    shown = [t for t in across if x_low <= t <= x_high]
    parts += [text(px(t), height - bottom + 16, tick(2**t if log_x else t), "middle") for t in shown]
    parts.append(text((left + WIDTH - right) / 2, height - 3, x_label, "middle", "axis"))
    for line in lines:
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line.points)
        dashed = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        parts.append(f'<polyline class="curve {line.style}"{dashed} points="{path}"/>')
        if line.marks or len(line.points) == 1:
            parts += [_mark(px(x), py(y), 3, line.style, line.shape) for x, y in line.points]
    if named:
        ends = [py(line.points[-1][1]) for line in lines]
        for line, end, y in zip(lines, ends, spread_out(ends, 13, top + 4, height - bottom), strict=True):
            x = px(line.points[-1][0])
            parts.append(f'<path class="leader" d="M{x + 5:.1f} {end:.1f}L{x + 15:.1f} {y:.1f}"/>')
            parts.append(_mark(x + 20, y, 3.5, line.style, line.shape) + text(x + 28, y + 4, line.label))
    last = ", ".join(f"{line.label} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in lines)
    return figure(title, f"{title} over {x_label}: {last}", WIDTH, height, [*legend, *parts])


def bar_chart(bars: Sequence[Bar], *, title: str, note: str = "") -> str:
    """Horizontal bars from zero, each with its value and, as a whisker, its error."""
    left, right, row = _label_room([bar.label for bar in bars]), 54, 22
    height = row * len(bars) + 8
    low = min(0.0, min(bar.value - bar.error for bar in bars))
    high = max(0.0, max(bar.value + bar.error for bar in bars)) or 1.0

    def px(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    parts = [_grid_line(px(0), 0, px(0), height)]
    for place, bar in enumerate(bars):
        y = 4 + row * place
        start, end = sorted((px(0), px(bar.value)))
        parts.append(text(left - 8, y + 14, bar.label, "end"))
        parts.append(
            f'<rect class="{bar.style}" x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1):.1f}"'
            ' height="15" rx="3"/>'
        )
        if bar.error > 0:
            low_x, high_x, middle = px(bar.value - bar.error), px(bar.value + bar.error), y + 10.5
            parts.append(f'<path class="whisker" d="M{low_x:.1f} {middle}H{high_x:.1f}"/>')
        parts.append(text(px(max(bar.value + bar.error, 0)) + 6, y + 14, number(bar.value), "start", "value"))
    described = ", ".join(f"{bar.label} {number(bar.value)}" for bar in bars)
    return figure(title, f"{title}: {described}", WIDTH, height, parts, note)


def span_chart(spans: Sequence[Span], *, title: str, low: float, high: float) -> str:
    """Dots with tails on a logarithmic axis from `low` to `high` milliseconds."""
    left, right, row = _label_room([span.label for span in spans]), 58, 26
    bottom = row * len(spans) + 6
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)

    def px(value: float) -> float:
        return left + (math.log10(value) - first) / (last - first) * (WIDTH - left - right)

    parts = []
    for power in range(first, last + 1):
        x = px(10.0**power)
        parts.append(_grid_line(x, 0, x, bottom) + text(x, bottom + 15, milliseconds(10.0**power), "middle"))
    for place, span in enumerate(spans):
        y = 16 + row * place
        parts.append(text(left - 8, y + 4, span.label, "end"))
        parts.append(f'<path class="tail {span.style}" d="M{px(span.low):.1f} {y}H{px(span.high):.1f}"/>')
        parts.append(_dot(px(span.low), y, 5.5, span.style))
        parts.append(text(max(px(span.high), px(span.low) + 5) + 7, y + 4, milliseconds(span.low), "start", "value"))
    described = ", ".join(f"{span.label} {milliseconds(span.low)}" for span in spans)
    return figure(title, f"{title}, median: {described}", WIDTH, bottom + 22, parts)


def scatter_chart(dots: Sequence[Dot], *, title: str, x_label: str, y_label: str) -> str:
    """Labelled dots with error whiskers; a stepped line joins those that no other dot beats in both directions."""
    height, left, right, top, bottom = 290 + 16 * max(0, len(dots) - 8), 46, 14, 22, 36  # many labels need room
    x_ticks = nice_ticks(min(d.x - d.x_error for d in dots), max(d.x + d.x_error for d in dots), 4)
    y_ticks = nice_ticks(min(d.y - d.y_error for d in dots), max(d.y + d.y_error for d in dots), 4)

    def px(x: float) -> float:
        return left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (height - top - bottom)

    parts = [_grid_line(left, py(t), WIDTH - right, py(t)) + text(left - 6, py(t) + 4, tick(t), "end") for t in y_ticks]
    parts += [
        _grid_line(px(t), top, px(t), height - bottom) + text(px(t), height - bottom + 15, tick(t), "middle")
        for t in x_ticks
    ]
    parts.append(text((left + WIDTH - right) / 2, height - 3, f"{x_label} →", "middle", "axis"))
    parts.append(text(4, 12, f"↑ {y_label}", "start", "axis"))
    front = pareto_front([(dot.x, dot.y) for dot in dots])
    if len(front) > 1:
        path = " ".join(f"{px(dots[i].x):.1f},{py(dots[i].y):.1f}" for i in front)
        parts.append(f'<polyline class="front" points="{path}"/>')
    boxes: list[Box] = []
    marks: list[str] = []
    for dot in dots:
        x, y, beside, above = px(dot.x), py(dot.y), px(dot.x + dot.x_error), py(dot.y + dot.y_error)
        cross = f"M{2 * x - beside:.1f} {y:.1f}H{beside:.1f}M{x:.1f} {2 * y - above:.1f}V{above:.1f}"
        marks.append(f'<path class="whisker" d="{cross}"/>' + _mark(x, y, 5.5, dot.style, dot.shape))
        reach_x, reach_y = max(beside - x, 6), max(y - above, 6)
        boxes.append(Box(x - reach_x, y - reach_y, x + reach_x, y + reach_y))
    leaders, labels = _labels([dot.label for dot in dots], boxes, Box(left, 4, WIDTH, height - bottom))
    layered = [marks[i] for i in sorted(range(len(dots)), key=lambda i: LAYERS.index(dots[i].shape))]
    described = ", ".join(f"{dot.label} {number(dot.x)} and {number(dot.y)}" for dot in dots)
    return figure(
        title, f"{title}, {x_label} and {y_label}: {described}", WIDTH, height, [*parts, *leaders, *layered, *labels]
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other point matches or beats in both coordinates, by rising x."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    best = -math.inf
    for i in order:
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front[::-1]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose [low, high]."""
    raw = max(high - low, 1e-6 * abs(high), 1e-6) / count  # equal values still need an axis
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`places` moved so that neighbours are `gap` apart and all lie in [low, high], by the least sum of squares.

    Isotonic regression of what is left of each place without the gaps below it: those that crowd share one mean. Where
    there is no room for all, they run over `high`.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[tuple[float, int]] = []  # sum and number of places that stand `gap` apart
    for rank, i in enumerate(order):
        total, count = places[i] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            before, several = blocks.pop()
            total, count = total + before, count + several
        blocks.append((total, count))
    levels = [total / count for total, count in blocks for _ in range(count)]
    ceiling = high - (len(places) - 1) * gap
    moved = [0.0] * len(places)
    for rank, (i, level) in enumerate(zip(order, levels, strict=True)):
        moved[i] = max(low, min(level, ceiling)) + rank * gap
    return moved


def _powers(low: float, high: float) -> list[float]:
    """Whole exponents that enclose [low, high], at most about eight."""
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    step = max(1, math.ceil((last - first) / 8))
    return [float(power) for power in range(first, max(last, first + 1) + 1, step)]


def tick(value: float) -> str:
    """An axis number, as short as it can be."""
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"


def number(value: float) -> str:
    """A measured value with three digits after the point, or fewer where it is large."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


def milliseconds(value: float) -> str:
    """A duration with two or three digits."""
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    return f"{value:.3g} ms"


def _legend(lines: Sequence[Line]) -> tuple[list[str], int]:
    """Swatches, or marks where those differ, with labels, as many a row as fit, and the height they take."""
    parts: list[str] = []
    shaped = any(line.shape != "circle" for line in lines)
    x, y = 46.0, 0
    for line in lines:
        room = 26 + CHARACTER * len(line.label)
        if x > 46 and x + room > WIDTH:
            x, y = 46.0, y + 16
        swatch = f'<rect class="{line.style}" x="{x:.0f}" y="{y + 2}" width="10" height="10" rx="2"/>'
        parts.append(_mark(x + 5, y + 7, 4, line.style, line.shape) if shaped else swatch)
        parts.append(text(x + 14, y + 11, line.label))
        x += room
    return parts, y + 18


def _labels(words: Sequence[str], marks: Sequence[Box], within: Box) -> tuple[list[str], list[str]]:
    """The lines that lead to labels, and the labels."""
    leaders: list[str] = []
    labels: list[str] = []
    placed = place_labels(marks, [CHARACTER * len(label) for label in words], 13, within)
    for label, mark, place in zip(words, marks, placed, strict=True):
        if place.leader:
            (x, y), (to_x, to_y) = place.leader
            leaders.append(f'<path class="leader" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>')
        anchor, at = _flush(place.box, place.leader[1][0] if place.leader else mark.middle[0])
        labels.append(text(at, place.box.bottom - 3, label, anchor, "halo"))
    return leaders, labels


def _flush(box: Box, toward: float) -> tuple[str, float]:
    """The anchor and x of a label: its letters may need less than its box, so they begin at the mark's side of it."""
    share = (toward - box.left) / (box.right - box.left)
    if share < 0.3:
        return "start", box.left
    return ("end", box.right) if share > 0.7 else ("middle", box.middle[0])


def _label_room(labels: Sequence[str]) -> float:
    return 12 + CHARACTER * max(len(label) for label in labels)


def text(x: float, y: float, words: str, anchor: str = "start", style: str = "") -> str:
    klass = f' class="{style}"' if style else ""
    return f'<text{klass} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _dot(x: float, y: float, radius: float, style: str) -> str:
    return f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _mark(x: float, y: float, radius: float, style: str, shape: str) -> str:
    if shape == "circle":
        return _dot(x, y, radius, style)
    size = f"translate({x:.1f} {y:.1f}) scale({radius:g})"
    return f'<path class="mark {style}" transform="{size}" d="{SHAPES[shape]}"/>'


def _grid_line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="grid" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def figure(title: str, described: str, width: int, height: float, parts: Sequence[str], note: str = "") -> str:
    caption = f"<figcaption>{escape(title)}{f' <small>{escape(note)}</small>' if note else ''}</figcaption>"
    label = escape(described, quote=True)
    svg = f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure>{caption}{svg}</figure>"
