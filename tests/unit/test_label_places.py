"""Labels of a scatter chart: what they may hide, and that no label gains by moving alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from r4t.evaluation import label_places, svg
from r4t.evaluation.label_places import Box, place_labels

PAGE = Box(46, 4, 360, 366)
coordinates = st.floats(0, 100)
points = st.tuples(coordinates, coordinates)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), coordinates, coordinates, st.floats(1, 60), st.floats(1, 60)
)


def mark(x: float, y: float, reach: float = 6) -> Box:
    return Box(x - reach, y - reach, x + reach, y + reach)


def hidden(placed: list[label_places.Placed], marks: list[Box]) -> float:
    """The area of marks and labels that labels cover."""
    labels = [place.box for place in placed]
    pairs = [*itertools.product(labels, marks), *itertools.combinations(labels, 2)]
    return sum(one.overlap(other) for one, other in pairs)


def test_a_lone_label_stands_right_of_its_mark_without_a_leader() -> None:
    (placed,) = place_labels([mark(100, 100)], [60], 13, PAGE)
    assert placed == label_places.Placed(Box(110, 93.5, 170, 106.5))


def test_a_label_at_the_right_edge_stands_left_of_its_mark() -> None:
    (placed,) = place_labels([mark(345, 100)], [60], 13, PAGE)
    assert placed.box.right == 345 - 6 - 4
    assert placed.leader is None


def test_a_crowd_gets_leaders_and_hides_nothing() -> None:
    marks = [mark(200 + 14 * (i % 3), 150 + 14 * (i // 3)) for i in range(9)]
    placed = place_labels(marks, [70.0] * 9, 13, PAGE)
    assert hidden(placed, marks) == 0
    assert placed[4].leader is not None  # the middle one has no free side
    assert all(place.box.inside(PAGE) for place in placed)


def test_a_leader_runs_from_the_mark_to_its_own_label() -> None:
    marks = [mark(200 + 14 * (i % 3), 150 + 14 * (i // 3)) for i in range(9)]
    led = [(m, p) for m, p in zip(marks, place_labels(marks, [70.0] * 9, 13, PAGE), strict=True) if p.leader]
    assert led
    for one, place in led:
        assert place.leader is not None
        start, end = place.leader
        assert start == one.middle
        assert end == place.box.nearest(*start)
        assert math.dist(start, end) <= 80


def test_a_label_wider_than_the_page_is_still_placed() -> None:
    (placed,) = place_labels([mark(200, 100)], [900.0], 13, PAGE)
    assert placed.box.right - placed.box.left == 900


def test_no_labels_no_places() -> None:
    assert place_labels([], [], 13, PAGE) == []


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(60, 340), st.floats(20, 350)), min_size=1, max_size=6))
def test_no_label_gains_by_moving_alone(dots: list[tuple[float, float]]) -> None:
    marks = [mark(x, y) for x, y in dots]
    widths = [30.0 + 10 * i for i in range(len(dots))]
    placed = place_labels(marks, widths, 13, PAGE)
    for i, width in enumerate(widths):
        others = [place for j, place in enumerate(placed) if j != i]
        choices = label_places._choices(i, marks, width, 13, PAGE)
        costs = {place: cost + label_places._clashes(place, others) for cost, place in choices}
        assert costs[placed[i]] <= min(costs.values()) + 1e-6


def test_a_leader_through_a_mark_a_label_or_another_leader_costs() -> None:
    led = label_places.Placed(Box(200, 90, 260, 103), ((100, 100), (200, 100)))
    crossing = label_places.Placed(Box(120, 150, 140, 163), ((130, 50), (130, 150)))
    below = label_places.Placed(Box(120, 150, 140, 163))
    through = label_places.Placed(Box(120, 94, 180, 107))
    for one, other in ((led, crossing), (led, through)):
        assert label_places._clashes(one, [other]) == label_places._clashes(other, [one]) > 0
    assert label_places._clashes(led, [below]) == 0
    free, blocked = [mark(100, 100)], [mark(100, 100), mark(150, 100)]
    assert label_places._cost(0, led, blocked) > label_places._cost(0, led, free)


def test_the_layout_is_the_best_of_every_order() -> None:
    rng = np.random.default_rng(0)
    spared = 0.0
    for _ in range(5):
        marks = [mark(x, y) for x, y in rng.uniform((150, 100), (210, 160), (8, 2))]
        choices = [label_places._choices(i, marks, 80, 13, PAGE) for i in range(8)]
        placed = place_labels(marks, [80.0] * 8, 13, PAGE)
        found = [next(one for one in some if one[1] == place) for some, place in zip(choices, placed, strict=True)]
        costs = [label_places._whole(label_places._settled(choices, first)) for first in range(8)]
        assert label_places._whole(found) == min(costs)
        spared += costs[0] - min(costs)
    assert spared > 0  # the order matters


@settings(max_examples=300)
@given(boxes, points, points)
def test_a_line_crosses_a_box_where_one_of_its_points_lies_inside(
    box: Box, start: label_places.Point, end: label_places.Point
) -> None:
    along = np.linspace(0, 1, 2001)[:, None] * (np.array(end) - start) + start
    low, high = np.array((box.left, box.top)), np.array((box.right, box.bottom))
    rounding = 1e-9  # of the sample's points: one that ends on a side may lie on either
    if bool(((along > low + rounding) & (along < high - rounding)).all(axis=1).any()):
        assert box.crossed((start, end))
    elif box.crossed((start, end)):  # only a corner, too short a stretch for a point of the sample
        assert bool(((along > low - 0.1) & (along < high + 0.1)).all(axis=1).any())


@settings(max_examples=300)
@given(points, points, points, points)
def test_lines_meet_where_both_ends_of_each_are_on_different_sides(
    a: label_places.Point, b: label_places.Point, c: label_places.Point, d: label_places.Point
) -> None:
    one, other = (a, b), (c, d)
    matrix = np.array([np.subtract(b, a), np.subtract(c, d)]).T
    if abs(np.linalg.det(matrix)) < 1e-3:
        return
    t, s = np.linalg.solve(matrix, np.subtract(c, a))
    margin = min(abs(t), abs(t - 1), abs(s), abs(s - 1))
    if margin > 1e-6:
        assert label_places._meet(one, other) == (0 < t < 1 and 0 < s < 1)


def test_lines_and_shapes_of_the_chart_agree_with_the_places() -> None:
    dots = [
        svg.Dot(label=f"method {i}", style=f"s{i}", x=0.5 + 0.004 * (i % 3), y=0.5 + 0.004 * (i // 3)) for i in range(9)
    ]
    far = [svg.Dot(label="far", style="s9", x=0.9, y=0.9)]
    chart = svg.scatter_chart([*dots, *far], title="t", x_label="a", y_label="b")
    assert chart.count('class="leader"') >= 1
    assert chart.index('class="leader"') < chart.index('class="dot')  # a leader runs under every mark
    assert all(f">method {i}</text>" in chart for i in range(9))


def test_no_mark_is_hidden_by_a_wider_one() -> None:
    shapes = ["cross", "circle", "down", "square", "circle"]
    dots = [svg.Dot(label=f"{i}", style=f"s{i}", x=0.5, y=0.5, shape=shape) for i, shape in enumerate(shapes)]
    chart = svg.scatter_chart(dots, title="t", x_label="a", y_label="b")
    drawn = sorted(
        range(5), key=lambda i: min(at for kind in ("dot", "mark") if (at := chart.find(f'class="{kind} s{i}"')) >= 0)
    )
    assert drawn == [3, 1, 4, 2, 0]
    assert sorted(svg.LAYERS) == sorted(svg.SHAPES)


def test_the_letters_of_a_label_begin_at_its_marks_side() -> None:
    box = Box(100, 0, 160, 13)
    assert svg._flush(box, 90) == ("start", 100)
    assert svg._flush(box, 170) == ("end", 160)
    assert svg._flush(box, 130) == ("middle", 130)
