"""Where the labels of a scatter chart stand: all of them placed together, so that none hides a mark or another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDS = 20  # a round moves every label once; the first in which none moves is the last
HIDDEN_MARK = 4.0  # a covered mark is lost, a covered label is hard to read
CLEAR = 4.0  # pixels to another mark, within which a label seems to be that mark's
CROSSED = 70.0  # a leader through a mark or a label, in the square pixels of overlap it is as bad as
PIXEL_AWAY = 1.5  # a label's distance from its mark, per pixel
LED = 12.0  # having to follow a line at all
TRIED = 30  # places of a label

Point = tuple[float, float]
Segment = tuple[Point, Point]


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that two boxes share."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)

    @property
    def middle(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def grown(self, by: float) -> Box:
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )

    def nearest(self, x: float, y: float) -> Point:
        """The point of the box that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def crossed(self, line: Segment) -> bool:
        """Whether a line passes through the box's inside (Liang and Barsky's clipping)."""
        enter, leave = 0.0, 1.0
        for a, b, low, high in zip(*line, (self.left, self.top), (self.right, self.bottom), strict=True):
            if a == b:
                if not low < a < high:
                    return False
                continue
            near, far = sorted(((low - a) / (b - a), (high - a) / (b - a)))
            enter, leave = max(enter, near), min(leave, far)
        return enter < leave


@dataclass(frozen=True, slots=True)
class Placed:
    """A label's box, and the line that must lead to it where it stands away from its mark."""

    box: Box
    leader: Segment | None = None


Choice = tuple[float, Placed]  # what a place costs by itself, and the place


def place_labels(marks: Sequence[Box], widths: Sequence[float], height: float, within: Box) -> list[Placed]:
    """A place for every mark's label: beside its mark where there is room, else near it with a leader.

    Every label is moved in turn to the place where it costs least given all others, until none moves: each move lowers
    the cost of the whole, which a single pass from the first label to the last cannot do. Every label is the first to
    choose once; the best of these layouts is the result.

    Args:
        marks: the mark of each label, whiskers included.
        widths: each label's width.
        height: every label's height.
        within: labels stay inside, except one that fits nowhere.
    """
    choices = [_choices(i, marks, width, height, within) for i, width in enumerate(widths)]
    layouts = [_settled(choices, first) for first in range(len(choices))]
    return [place for _, place in min(layouts, key=_whole, default=[])]


def _settled(choices: Sequence[Sequence[Choice]], first: int) -> list[Choice]:
    """The layout in which no label gains by moving alone, where label `first` chose first and the rest followed."""
    order = [*range(first, len(choices)), *range(first)]
    chosen: dict[int, Choice] = {}
    for _ in range(ROUNDS):
        before = dict(chosen)
        for i in order:
            others = [place for j, (_, place) in chosen.items() if j != i]
            chosen[i] = _best(choices[i], others)
        if chosen == before:
            break
    return [chosen[i] for i in range(len(choices))]


def _best(choices: Sequence[Choice], others: Sequence[Placed]) -> Choice:
    """The first that costs least among the others. Choices come cheapest first: what costs more by itself is not it."""
    best, least = choices[0], math.inf
    for cost, place in choices:
        if cost >= least:
            break
        whole = cost + _clashes(place, others)
        if whole < least:
            best, least = (cost, place), whole
    return best


def _whole(layout: Sequence[Choice]) -> float:
    places = [place for _, place in layout]
    return sum(cost + _clashes(place, places[:i]) for i, (cost, place) in enumerate(layout))


def _choices(own: int, marks: Sequence[Box], width: float, height: float, within: Box) -> list[Choice]:
    """The places of a label that hide least and lie nearest, the best first."""
    mark = marks[own]
    x, y = mark.middle
    beside = [(mark.right + 4, y - height / 2), (mark.left - 4 - width, y - height / 2)]
    beside += [(x - width / 2, mark.top - 1 - height), (x - width / 2, mark.bottom + 1)]
    places = [Placed(Box(left, top, left + width, top + height)) for left, top in beside]
    for away in range(14, 75, 6):
        for turn in range(16):
            across, down = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
            left = x + across * away + width / 2 * (across - 1)
            top = y + down * (away + height / 2) - height / 2
            box = Box(left, top, left + width, top + height)
            places.append(Placed(box, (mark.middle, box.nearest(x, y))))
    inside = [place for place in places if place.box.inside(within)] or places[:1]
    return sorted(((_cost(own, place, marks), place) for place in inside), key=lambda one: one[0])[:TRIED]


def _cost(own: int, place: Placed, marks: Sequence[Box]) -> float:
    """What a label's place hides of the marks and how far it is; smaller is better."""
    cost = HIDDEN_MARK * sum(place.box.overlap(mark if i == own else mark.grown(CLEAR)) for i, mark in enumerate(marks))
    if place.leader:
        cost += LED + PIXEL_AWAY * math.dist(*place.leader)
        cost += CROSSED * sum(mark.crossed(place.leader) for i, mark in enumerate(marks) if i != own)
    return cost


def _clashes(place: Placed, others: Sequence[Placed]) -> float:
    """What a label and its leader hide of other labels, and these of it."""
    cost = 0.0
    for other in others:
        cost += place.box.overlap(other.box)
        cost += CROSSED * (other.leader is not None and place.box.crossed(other.leader))
        if place.leader:
            cost += CROSSED * other.box.crossed(place.leader)
            cost += CROSSED * (other.leader is not None and _meet(place.leader, other.leader))
    return cost


def _meet(one: Segment, other: Segment) -> bool:
    """Whether two lines cross."""
    return _parted(one, other) and _parted(other, one)


def _parted(line: Segment, by: Segment) -> bool:
    """Whether the two ends of `line` lie on different sides of `by`."""
    (x, y), (to_x, to_y) = by
    sides = [(to_x - x) * (b - y) - (to_y - y) * (a - x) for a, b in line]
    return sides[0] * sides[1] < 0
