"""A picture of training sets: how the reward and each of its terms are spread, and how often items are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from r4t.catalog.item_map import COLOURS, FAINT, INK, PAPER, SCALE
from r4t.errors import UserError
from r4t.lineage import atomic_path

COLUMNS, WIDE, HIGH, MARGIN, HEAD = 3, 400, 230, 28, 100  # panels in a line, and pixels of the finished picture
FRAME = "#d9dee3"


def draw_stats(path: Path, title: str, stats: dict[str, Any]) -> None:
    """Writes a PNG of what `set_stats` found. Raises UserError for a path that does not end in .png."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{path} does not end in .png: the picture is a PNG")
    panels = [(name, found) for name, found in {"reward": stats["reward"], **stats["terms"]}.items() if found]
    lines = -(-max(len(panels), 1) // COLUMNS)
    size = (2 * MARGIN + COLUMNS * WIDE, HEAD + lines * HIGH + MARGIN)
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    draw = ImageDraw.Draw(image)
    _text(draw, (MARGIN, 22), f"{title}: {stats['sets']:,} training sets, {stats['unique_sets']:,} different", 26, INK)
    items = stats["items"]
    used = f"{items['used']:,} of {items['catalogue']:,} items are in a set, {items['never_used']:,} in none"
    _text(draw, (MARGIN, 60), f"{used} (coverage {items['coverage']:.1%})", 16, FAINT)
    for i, (name, found) in enumerate(panels):
        corner = (MARGIN + (i % COLUMNS) * WIDE, HEAD + (i // COLUMNS) * HIGH)
        _panel(draw, corner, name, found, COLOURS[0] if name == "reward" else COLOURS[2])
    with atomic_path(path) as temporary:
        image.resize(size, Image.Resampling.LANCZOS).save(temporary, format="PNG")


def _panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, found: dict[str, Any], colour: str) -> None:
    """One histogram: bars over a base line, the ends of the axis, and a mark at the mean."""
    x, y = corner
    width, top, base = WIDE - 40, y + 46, y + HIGH - 40
    counts, edges = found["counts"], found["edges"]
    step, most = width / len(counts), max(counts)
    _text(draw, (x, y), name.replace("_", " "), 17, INK)
    _text(draw, (x, y + 22), f"mean {found['mean']:.3f}, std {found['std']:.3f}", 13, FAINT)
    for i, count in enumerate(counts):
        if count:
            height = max((base - top) * count / most, 1)
            bar = (x + i * step, base - height, x + (i + 1) * step - 1, base)
            draw.rectangle([SCALE * v for v in bar], fill=colour)
    draw.line([SCALE * v for v in (x, base + 1, x + width, base + 1)], fill=FRAME, width=SCALE)
    span = max(edges[-1] - edges[0], 1e-12)
    mean = x + width * (found["mean"] - edges[0]) / span
    draw.line([SCALE * v for v in (mean, top, mean, base)], fill=INK, width=SCALE)
    _text(draw, (x, base + 6), f"{edges[0]:.3g}", 13, FAINT)
    _text(draw, (x + width, base + 6), f"{edges[-1]:.3g}", 13, FAINT, anchor="ra")
    _text(draw, (x + width, y + 22), f"highest bar {most:,}", 13, FAINT, anchor="ra")


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str, anchor: str = "la"
) -> None:
    place = (at[0] * SCALE, at[1] * SCALE)
    draw.text(place, text, fill=colour, font=ImageFont.load_default(size * SCALE), anchor=anchor)
