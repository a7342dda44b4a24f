"""Where the number of each point of a chart stands, so that it lies on no other point and on no other number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from txlplan.estimates import Range

_WIDTH_PX, _HEIGHT_PX = 225.0, 300.0
"""Between the axes of a chart on a screen 375 px wide, the narrowest that pages are made for: wider ones spread points."""
_RADIUS_PX, _DIGIT_PX, _LINE_PX = 7.0, 8.0, 15.0
"""Of a marker, with its edge, and of a number in 13 px type."""
_SIDES = {
    "top right": (1, 1), "top left": (-1, 1), "bottom right": (1, -1), "bottom left": (-1, -1),
    "middle right": (1, 0), "middle left": (-1, 0), "top center": (0, 1), "bottom center": (0, -1),
}  # fmt: skip
"""Plotly's text positions, the first where nothing is in the way."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


def sides(xs: Sequence[Range], ys: Sequence[Range], texts: Sequence[str], *, log: tuple[bool, bool]) -> list[str]:
    """A text position for each point, in turn: where its text covers least of other markers and of texts before it.

    `log` says of each axis whether it is logarithmic; a linear one begins at zero, and both end with the ranges.
    """
    points = list(zip(_pixels(xs, _WIDTH_PX, log=log[0]), _pixels(ys, _HEIGHT_PX, log=log[1]), strict=True))
    markers = [(x - _RADIUS_PX, y - _RADIUS_PX, x + _RADIUS_PX, y + _RADIUS_PX) for x, y in points]
    taken: list[Box] = []
    chosen = []
    for number, (point, text) in enumerate(zip(points, texts, strict=True)):
        others = [*taken, *markers[:number], *markers[number + 1 :]]
        boxes = {side: _box(point, text, direction) for side, direction in _SIDES.items()}
        best = min(boxes, key=lambda side: sum(_overlap(boxes[side], other) for other in others))
        chosen.append(best)
        taken.append(boxes[best])
    return chosen


def _pixels(values: Sequence[Range], length: float, *, log: bool) -> list[float]:
    places = [math.log(value.value) if log else value.value for value in values]
    last = max(math.log(value.high) if log else value.high for value in values)
    first = min(math.log(value.low) for value in values) if log else 0.0
    return [(place - first) / (last - first or 1.0) * length for place in places]


def _box(point: tuple[float, float], text: str, direction: tuple[int, int]) -> Box:
    """What a text takes up beside its marker."""
    width, (x, y), (right, up) = _DIGIT_PX * len(text), point, direction
    centre_x, centre_y = x + right * (_RADIUS_PX + width / 2), y + up * (_RADIUS_PX + _LINE_PX / 2)
    return centre_x - width / 2, centre_y - _LINE_PX / 2, centre_x + width / 2, centre_y + _LINE_PX / 2


def _overlap(one: Box, other: Box) -> float:
    """Area in common."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
