"""The order of results with two objectives."""

import math

from hypothesis import given
from hypothesis import strategies as st

from cubeopt.search.fronts import ahead, crowding, dominates, first_front, fronts, ranked

FEW = st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float))  # many are equal
#  0: A (1, 9)   B (2, 4)   C (4, 3)   D (9, 1)
#  1: E (2, 9)   F (5, 4)
#  2: G (6, 9)
DRAWN = {0: (2.0, 9.0), 1: (4.0, 3.0), 2: (9.0, 1.0), 3: (6.0, 9.0), 4: (1.0, 9.0)}
DRAWN |= {5: (5.0, 4.0), 6: (2.0, 4.0)}


def test_dominating_is_nowhere_worse_and_somewhere_better() -> None:
    assert dominates((1.0, 2.0), (1.0, 3.0))
    assert not dominates((1.0, 2.0), (1.0, 2.0))
    assert not dominates((1.0, 3.0), (2.0, 2.0))


def test_the_fronts_of_a_drawing() -> None:
    assert fronts(DRAWN.values()) == [
        [(1.0, 9.0), (2.0, 4.0), (4.0, 3.0), (9.0, 1.0)],
        [(2.0, 9.0), (5.0, 4.0)],
        [(6.0, 9.0)],
    ]
    assert first_front(DRAWN) == [4, 6, 1, 2]
    assert fronts([]) == []
    assert first_front({}) == []


def test_crowding_is_the_gap_between_the_neighbours_in_shares_of_the_front() -> None:
    assert crowding(fronts(DRAWN.values())[0]) == {
        (1.0, 9.0): math.inf,
        (2.0, 4.0): (4 - 1) / 8 + (9 - 3) / 8,
        (4.0, 3.0): (9 - 2) / 8 + (4 - 1) / 8,
        (9.0, 1.0): math.inf,
    }
    assert set(crowding([(1.0, 2.0), (2.0, 1.0)]).values()) == {math.inf}


def test_the_order_is_front_by_front_then_the_widest_apart_then_the_lower_number() -> None:
    # Front 0: both ends, 2 before 4; then C (1.25) before B (1.125). Front 1 has ends only.
    assert ranked(DRAWN) == [2, 4, 1, 6, 0, 5, 3]


def test_equal_results_are_one_point_and_stand_by_number() -> None:
    results = {7: (1.0, 1.0), 3: (1.0, 1.0), 5: (2.0, 2.0)}
    assert ranked(results) == [3, 7, 5]
    assert first_front(results) == [3, 7]
    assert ahead((1.0, 1.0), [(1.0, 1.0), (2.0, 2.0)]) == 0


def test_ahead_counts_who_stands_before_and_not_who_stands_beside() -> None:
    others = [point for point in DRAWN.values() if point != (2.0, 4.0)]
    assert ahead((2.0, 4.0), others) == 3  # both ends and C
    assert ahead((9.0, 1.0), [point for point in DRAWN.values() if point != (9.0, 1.0)]) == 0
    assert ahead((6.0, 9.0), [point for point in DRAWN.values() if point != (6.0, 9.0)]) == 6


@given(st.lists(FEW, max_size=25))
def test_fronts_equal_their_definition(points: list[tuple[float, float]]) -> None:
    left, expected = set(points), []
    while left:
        front = {one for one in left if not any(dominates(other, one) for other in left)}
        expected.append(sorted(front))
        left -= front
    assert fronts(points) == expected


@given(st.lists(FEW, min_size=1, max_size=25))
def test_a_result_that_dominates_another_stands_before_it(
    points: list[tuple[float, float]],
) -> None:
    order = [points[number] for number in ranked(dict(enumerate(points)))]
    for place, one in enumerate(order):
        assert not any(dominates(later, one) for later in order[place:])
        others = list(points)
        others.remove(one)
        assert sum(order.index(each) < place for each in others) >= ahead(one, others)
