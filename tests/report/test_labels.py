"""The names in the picture of a study: a line apart, and as near to their stars as that allows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubeopt.report.labels import Star, apart

LINE = 0.036  # of the value axis


def _stars(*ys: float) -> list[Star]:
    return [Star(0.0, y, f"trial {nth}", y) for nth, y in enumerate(ys)]


def test_two_in_one_place_give_way_by_half_a_line_each() -> None:
    first, second, third = apart(_stars(0.5, 0.5, 0.9), [0.0, 0.0, 0.0], (0.0, 1.0))
    assert (first.label_y, second.label_y) == pytest.approx((0.5 - LINE / 2, 0.5 + LINE / 2))
    assert third.label_y == pytest.approx(0.9)


def test_those_far_apart_from_left_to_right_stay_at_their_stars() -> None:
    found = apart(_stars(0.5, 0.5), [0.0, 0.5], (0.0, 1.0))
    assert [star.label_y for star in found] == [0.5, 0.5]


@given(st.lists(st.floats(-5.0, 5.0), max_size=12))
def test_neighbours_are_a_line_apart_in_the_order_of_their_stars(ys: list[float]) -> None:
    found = apart(_stars(*ys), [0.0] * len(ys), (-5.0, 5.0))
    assert [(star.y, star.label) for star in found] == [
        (star.y, star.label) for star in _stars(*ys)
    ]
    in_order = sorted(found, key=lambda star: star.y)
    for low, high in pairwise(in_order):
        assert high.label_y - low.label_y > 10 * LINE - 1e-9
    assert sum(star.label_y - star.y for star in found) == pytest.approx(0.0, abs=1e-9)
