"""Which values a point has, and which points there are."""

import graphlib
from typing import Any

import pytest

from cubeopt.search import space
from cubeopt.search.space import Range

SEARCH = {
    "threshold": Range(low=0.0, high=1.0, when={"halting": ("threshold",)}),
    "halting": Range(choices=("fixed", "threshold", "learned")),
    "ponder": Range(low=1, high=2, when={"halting": ("learned",), "gate": ("learned",)}),
    "gate": Range(choices=("learned", "frozen"), when={"halting": ("fixed", "learned")}),
}


def test_a_name_stands_after_those_that_its_condition_names() -> None:
    assert space.ordered(SEARCH) == ["halting", "gate", "threshold", "ponder"]
    assert space.ordered(dict(reversed(SEARCH.items()))) == space.ordered(SEARCH)


def test_conditions_in_a_circle_have_no_order() -> None:
    circle = {
        "a": Range(choices=(1, 2), when={"b": (1,)}),
        "b": Range(choices=(1, 2), when={"a": (1,)}),
    }
    with pytest.raises(graphlib.CycleError):
        space.ordered(circle)


@pytest.mark.parametrize(
    ("halting", "names"),
    [
        ("threshold", {"halting", "threshold"}),
        ("fixed", {"halting", "gate"}),
        ("learned", {"halting", "gate", "ponder"}),
    ],
)
def test_a_point_keeps_what_its_conditions_allow(halting: str, names: set[str]) -> None:
    values = {"threshold": 0.5, "halting": halting, "ponder": 1, "gate": "learned"}
    point = space.kept(SEARCH, values)
    assert set(point) == names
    assert space.whole(SEARCH, point)
    for name in names:
        assert not space.whole(SEARCH, {key: point[key] for key in names - {name}})
    assert space.whole(SEARCH, values) is False


def test_who_waits_for_a_value_that_is_not_there_is_not_there() -> None:
    point = space.kept(SEARCH, {**dict.fromkeys(SEARCH, 1), "halting": "threshold"})
    assert "ponder" not in point  # its gate has a condition of its own


def test_every_point_is_listed_once_up_to_a_limit() -> None:
    values: dict[str, Any] = {
        "threshold": [0.0, 0.5, 1.0],
        "halting": ["fixed", "threshold", "learned"],
        "ponder": [1, 2],
        "gate": ["learned", "frozen"],
    }
    points = space.listed(SEARCH, values)
    assert points is not None
    assert len({space.identity(point) for point in points}) == len(points) == 2 + 3 + (2 + 1)
    assert all(space.whole(SEARCH, point) for point in points)
    assert space.listed(SEARCH, values, limit=8) is not None
    assert space.listed(SEARCH, values, limit=7) is None


def test_corners_are_ends_with_what_conditions_need() -> None:
    assert [point for point in space.corners(SEARCH, ["threshold"]) if "threshold" in point] == [
        {"halting": "threshold", "threshold": 0.0},
        {"halting": "threshold", "threshold": 1.0},
    ]
    both = space.corners(SEARCH, ["threshold", "ponder"])
    assert not any({"threshold", "ponder"} <= set(point) for point in both)


def test_values_of_an_interval_are_spaced_on_its_own_scale() -> None:
    log = Range(low=1e-4, high=1e-2, log=True).distribution(whole=False)
    assert space.spaced(log, 3) == [1e-4, pytest.approx(1e-3), 1e-2]
    counts = Range(low=1, high=4).distribution(whole=True)
    assert space.spaced(counts, 2) == [1, 4]
    assert space.spaced(counts, 9) == [1, 2, 3, 4]


def test_a_share_of_a_distribution_is_a_value_in_it() -> None:
    for searched, whole in ((Range(low=1, high=3), True), (Range(low=0.5, high=9.0), False)):
        distribution = searched.distribution(whole)
        values = [space.at(distribution, share / 999) for share in range(1000)]
        assert (values[0], values[-1]) == (searched.low, searched.high)
        assert values == sorted(values)
    thirds = [
        space.at(Range(choices=(7, 8, 9)).distribution(True), each / 99) for each in range(99)
    ]
    assert [thirds.count(choice) for choice in (7, 8, 9)] == [33, 33, 33]
