"""A picture of a catalogue: every item a dot on the first two principal components of the item vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from r4t.catalog.plane import fit_plane
from r4t.errors import UserError
from r4t.lineage import atomic_path
from r4t.types import Floats

WIDTH, HEIGHT, LEGEND, MARGIN, HEAD = 1280, 860, 290, 32, 96  # pixels of the finished picture
SCALE = 2  # drawn larger and then reduced, so that edges are smooth
SHOWN = 20_000  # dots at most
PAPER, INK, FAINT, REST = "#ffffff", "#1d2733", "#66717d", "#b9c0c7"
# Eight colours that colour-blind readers tell apart (after Okabe and Ito), the commonest category first.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#5b3fa0")


def draw_map(path: Path, title: str, vectors: Floats, categories: Sequence[str | None]) -> None:
    """Writes a PNG of the [N, d] vectors, coloured by the commonest of the N categories. Beyond SHOWN items, a sample.

    Raises UserError for fewer than three items, or a path that does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path} does not end in .png: the map is a PNG picture")
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:SHOWN])
    points, shares = principal_plane(vectors[rows])
    names = labels([categories[row] for row in rows])
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    draw = ImageDraw.Draw(image, "RGBA")
    shown = f"{len(rows):,} of {len(vectors):,} items" if len(rows) < len(vectors) else f"{len(rows):,} items"
    _text(draw, (MARGIN, 24), f"{title}: {shown}", 26, INK)
    plane = (
        f"first two principal components of the item vectors ({shares[0]:.0%} and {shares[1]:.0%} of their variance)"
    )
    _text(draw, (MARGIN, 60), plane, 16, FAINT)
    order = [name for name, _ in Counter(name for name in names if name).most_common(len(COLOURS))]
    _dots(draw, _on_page(points), names, order)
    if order:
        _legend(draw, Counter(name if name in order else None for name in names), order)
    with atomic_path(path) as temporary:
        image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(temporary, format="PNG")


def principal_plane(vectors: Floats) -> tuple[Floats, Floats]:
    """[n, d] -> coordinates [n, 2] on the two directions of largest variance, and their shares [2] of it.

    Each direction's largest entry is positive, so that the picture is always the same. Raises UserError for n < 3.
    """
    if len(vectors) < 3:
        raise UserError(f"a map needs at least three items, not {len(vectors)}")
    plane = fit_plane(vectors)
    return plane.project(vectors), plane.shares


def labels(categories: Sequence[str | None]) -> list[str | None]:
    """Short names: of paths ("Clothing > Men > Boxers"), the first level of which no value has half of the items."""
    paths = [[part.strip() for part in (category or "").split(">")] for category in categories]
    for level in range(max(map(len, paths))):
        names = [path[level] if level < len(path) and path[level] else None for path in paths]
        if max(Counter(names).values()) <= len(names) / 2:
            return names
    return [" > ".join(path) or None for path in paths]


def _on_page(points: Floats) -> Floats:
    """[n, 2] pixels: one scale for both axes, centred in the room beside the legend; up is positive."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([WIDTH - LEGEND - 2 * MARGIN, HEIGHT - HEAD - MARGIN])
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    centred = (points - (low + high) / 2) * scale * np.array([1, -1])
    return np.asarray(centred + np.array([MARGIN, HEAD]) + room / 2, dtype=np.float32)


def _dots(draw: ImageDraw.ImageDraw, points: Floats, names: Sequence[str | None], order: Sequence[str]) -> None:
    colour_of = dict(zip(order, COLOURS, strict=False))
    radius = SCALE * float(np.clip(280 / np.sqrt(len(points)), 2.2, 5))
    shuffled = np.random.default_rng(0).permutation(len(points))
    for row in sorted(shuffled.tolist(), key=lambda row: names[row] in colour_of):  # the rest lies below
        x, y = points[row] * SCALE
        alpha = "b8" if names[row] in colour_of or not order else "70"
        colour = colour_of.get(names[row] or "", REST if order else COLOURS[0])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour + alpha)


def _legend(draw: ImageDraw.ImageDraw, counts: Counter[str | None], order: Sequence[str]) -> None:
    x, y = WIDTH - LEGEND, HEAD + 8
    entries = [*zip(order, COLOURS, strict=False), *([(None, REST)] if counts[None] else [])]
    for name, colour in entries:
        draw.ellipse([SCALE * v for v in (x, y + 3, x + 13, y + 16)], fill=colour)
        label = name or "other or none"
        _text(draw, (x + 23, y), label if len(label) < 25 else label[:23] + "…", 15, INK)
        _text(draw, (x + 23, y + 19), f"{counts[name]:,}", 13, FAINT)
        y += 48


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str) -> None:
    draw.text((at[0] * SCALE, at[1] * SCALE), text, fill=colour, font=ImageFont.load_default(size * SCALE))
