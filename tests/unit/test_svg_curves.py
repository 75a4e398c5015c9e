"""Curves that are told apart without colour, named at their ends, on logarithmic axes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from benchmarks.side_by_side import side_by_side
from r4t.evaluation import svg


def lines(count: int = 3) -> list[svg.Line]:
    shapes = list(svg.SHAPES)
    return [
        svg.Line(
            label=f"curve {i}",
            style=f"s{i}",
            points=[(2.0**x, 10.0 ** (x / 3) * (1 + 1e-3 * i)) for x in range(11)],
            marks=True,
            dash="" if i == 0 else f"{i} 2",
            shape=shapes[i],
        )
        for i in range(count)
    ]


def texts(chart: str) -> dict[str, tuple[float, float]]:
    found = re.findall(r'<text[^>]* x="([\d.-]+)" y="([\d.-]+)"[^>]*>([^<]*)</text>', chart)
    return {text: (float(x), float(y)) for x, y, text in found}


def test_every_curve_has_its_own_dashes_and_marks() -> None:
    chart = svg.line_chart(lines(), title="t", x_label="x")
    assert re.findall(r'stroke-dasharray="([^"]*)"', chart) == ["1 2", "2 2"]
    outlines = Counter(re.findall(r'<path class="mark [^"]*" transform="[^"]*" d="([^"]*)"', chart))
    assert outlines == {svg.SHAPES["square"]: 12, svg.SHAPES["triangle"]: 12}, "at eleven points and in the legend"
    assert chart.count("<circle") == 12


def test_names_stand_at_the_ends_and_do_not_cover_each_other() -> None:
    chart = svg.line_chart(lines(5), title="t", x_label="x", named=True)
    places = texts(chart)
    ends = sorted(places[f"curve {i}"][1] for i in range(5))
    assert all(b - a >= 12.9 for a, b in itertools.pairwise(ends))
    assert all(places[f"curve {i}"][0] + 5 * svg.CHARACTER < svg.WIDTH for i in range(5))


def test_every_name_has_its_curves_mark_and_a_line_from_its_end() -> None:
    chart = svg.line_chart(lines(3), title="t", x_label="x", named=True)
    drawn = re.findall(r'class="leader" d="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"/>(<circle[^>]*|<path[^>]*)/>', chart)
    ends = [float(path.split()[-1].split(",")[1]) for path in re.findall(r'points="([^"]*)"', chart)]
    assert [float(start) for start, _, _ in drawn] == ends
    names = texts(chart)
    assert [float(stop) + 4 for _, stop, _ in drawn] == pytest.approx([names[f"curve {i}"][1] for i in range(3)])
    _, stop, square = drawn[1]
    assert svg.SHAPES["square"] in square
    assert f" {stop}) scale" in square


def test_one_logarithmic_axis_leaves_the_other_as_it_is() -> None:
    chart = svg.line_chart(
        [svg.Line(label="c", style="s0", points=[(1, 0.0), (4, 0.5), (256, 1.0)])], title="t", x_label="x", log="x"
    )
    assert {"1", "4", "16", "64", "256", "0", "0.5"} <= texts(chart).keys()
    path = re.search(r'points="([^"]*)"', chart)
    assert path
    (left, _), (middle, half), (right, _) = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
    assert (middle - left) / (right - left) == pytest.approx(2 / 8, abs=0.001)
    assert half == pytest.approx(sum(float(pair.split(",")[1]) for pair in path[1].split()[::2]) / 2, abs=0.1)


def test_logarithmic_axes_are_written_in_powers_and_make_a_power_law_straight() -> None:
    chart = svg.line_chart(lines(1), title="t", x_label="x", log="xy")
    assert {"1", "4", "16", "64", "256", "1024", "10", "100", "1000"} <= texts(chart).keys()
    path = re.search(r'points="([^"]*)"', chart)
    assert path
    points = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(points)]
    assert slopes == pytest.approx([slopes[0]] * 10, rel=0.05)


@settings(max_examples=80)
@given(st.lists(st.floats(0, 200), min_size=1, max_size=12))
def test_labels_spread_out_keep_their_order_and_stay_inside(places: list[float]) -> None:
    moved = svg.spread_out(places, 13, 10, 190)
    ordered = [moved[i] for i in sorted(range(len(places)), key=lambda i: places[i])]
    assert all(b - a >= 13 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= 10
    assert ordered[-1] <= 190 + 1e-9
    if (
        all(b - a >= 13 for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
        and min(places) >= 10
        and max(places) <= 190
    ):
        assert moved == pytest.approx(places)


@given(st.lists(st.floats(20, 180), min_size=1, max_size=8))
def test_labels_move_by_the_least_sum_of_squares(places: list[float]) -> None:
    moved = svg.spread_out(places, 5, -1000, 1000)
    gaps = 5.0 * np.arange(len(places))
    assert np.sort(moved) - gaps == pytest.approx(isotonic_regression(np.sort(places) - gaps).x)


def test_names_that_crowd_share_the_distance_to_their_curves() -> None:
    assert svg.spread_out([100, 100, 100], 10, 0, 200) == [90, 100, 110]
    assert svg.spread_out([100, 104, 20], 10, 0, 200) == [97, 107, 20]
    assert svg.spread_out([199, 199], 10, 0, 200) == [190, 200]


def test_charts_fill_rows_of_one_well_formed_file() -> None:
    charts = {f"chart {i}": svg.line_chart(lines(2), title="t", x_label="x") for i in range(5)}
    root = ElementTree.fromstring(side_by_side(charts, "", per_row=2))  # noqa: S314  # our own output
    nested = [child for child in root if child.tag.endswith("svg")]
    assert [(float(c.attrib["x"]), float(c.attrib["y"])) for c in nested][:3] == [
        (10, 34),
        (390, 34),
        (10, 34 + 34 + float(nested[0].attrib["height"])),
    ]
    assert float(root.attrib["width"]) == 2 * 380
    last = nested[-1].attrib
    assert float(last["y"]) + float(last["height"]) <= float(root.attrib["height"])
