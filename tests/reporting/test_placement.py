"""Numbers of points beside their points."""

from __future__ import annotations

from txlplan.estimates import Range
from txlplan.reporting._placement import _box, _overlap, sides


def at(*values: float) -> list[Range]:
    return [Range(value=value, low=value, high=value) for value in values]


def test_a_number_stands_top_right_where_nothing_is_in_the_way() -> None:
    assert sides(at(1.0, 50.0, 100.0), at(1.0, 50.0, 100.0), ["1", "2", "3"], log=(False, False)) == ["top right"] * 3


def test_a_number_turns_away_from_a_neighbour_above_and_to_the_right() -> None:
    first, second = sides(at(95.0, 100.0), at(95.0, 100.0), ["1", "2"], log=(False, False))
    assert first != "top right"
    assert second == "top right"


def test_numbers_of_points_in_one_place_stand_on_different_sides() -> None:
    found = sides(at(10.0, 10.0, 10.0), at(5.0, 5.0, 5.0), ["1", "2", "3"], log=(True, True))
    assert len(set(found)) == 3


def test_boxes_that_touch_have_nothing_in_common() -> None:
    right, left = _box((0.0, 0.0), "1", (1, 1)), _box((0.0, 0.0), "1", (-1, 1))
    assert _overlap(right, right) == (right[2] - right[0]) * (right[3] - right[1])
    assert _overlap(right, left) == 0.0
