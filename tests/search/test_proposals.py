"""Real proposals of every sampler, over Optuna's memory: repeatable, spread out, never twice."""

import importlib.util
import itertools
import statistics
from itertools import pairwise
from typing import Any

import pytest

from cubeopt.search import proposals, space, study
from cubeopt.search.space import Point

from .conftest import Search

SEARCH: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "similarity_weight": {"low": 0.0, "high": 1.0},
    "lattice_steps": {"low": 1, "high": 20},
    "state_size": {"choices": [32, 64, 128]},
}
FINITE: dict[str, Any] = {
    "lattice_steps": {"low": 1, "high": 4},
    "state_size": {"choices": [32, 64, 128]},
    "gate": {"choices": ["learned", "frozen"]},
}
CONDITIONAL: dict[str, Any] = {
    **SEARCH,
    "halting": {"choices": ["fixed", "threshold"]},
    "halting_threshold": {"low": 0.01, "high": 1.0, "when": {"halting": ["threshold"]}},
}
needs_cmaes = pytest.mark.skipif(
    importlib.util.find_spec("cmaes") is None, reason="cubeopt[samplers] is not installed"
)
SAMPLERS = {
    "tpe": {"startup_trials": 4},
    "univariate": {"startup_trials": 4, "multivariate": False},
    "random": {"name": "random"},
    "mfgp": {"name": "mfgp", "startup_trials": 4, "candidates": 50},
    "sobol": {"name": "qmc"},
    "halton": {"name": "qmc", "sequence": "halton", "scramble": False},
    "grid": {
        "name": "grid",
        "points": {"learning_rate": 2, "similarity_weight": 2, "lattice_steps": 3},
    },
    "nsgaii": {"name": "nsgaii", "population": 4},
    "undx": {"name": "nsgaii", "population": 4, "crossover": "undx"},
}
CMAES = {
    variant: {"name": "cmaes", "variant": variant, "population": 4}
    for variant in ("full", "separable", "margin", "adaptive")
}
each_sampler = pytest.mark.parametrize(
    "options",
    [
        *(pytest.param(options, id=name) for name, options in SAMPLERS.items()),
        *(pytest.param(options, id=name, marks=needs_cmaes) for name, options in CMAES.items()),
    ],
)
pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning"  # as search.open_storage does
)


def _search(options: dict[str, Any], search: dict[str, Any] | None = None) -> Search:
    return Search({"search": search or SEARCH, "sampler": options})


def _loss(point: Point) -> float:
    return abs(point["lattice_steps"] - 15) / 20 + abs(point["similarity_weight"] - 0.3)


def _searched(search: Search, batches: int, size: int = 4) -> list[Point]:
    points: list[Point] = []
    for _ in range(batches):
        asked = search.ask(size)
        search.told(asked, _loss)
        points += [point for _, point in asked]
    return points


@each_sampler
def test_the_same_results_give_the_same_proposals_also_after_a_restart(
    options: dict[str, Any],
) -> None:
    whole = _searched(_search(options), 5)
    search = _search(options)
    points = []
    for _ in range(5):
        asked = []
        for _ in range(4):
            search.restart()
            asked += search.ask(1)
        search.told(asked, _loss)
        points += [point for _, point in asked]
    assert points == whole


@each_sampler
def test_trials_that_end_late_and_out_of_order_are_known_after_a_restart(
    options: dict[str, Any],
) -> None:
    def searched(restarts: bool) -> list[Point]:
        search = _search(options)
        running = search.ask(6)
        asked = list(running)
        for _ in range(10):
            search.told([running.pop(1)], _loss)  # the first is the slowest
            if restarts:
                search.restart()
            running += search.ask(1)
            asked.append(running[-1])
        return [point for _, point in asked]

    assert searched(restarts=True) == searched(restarts=False)


@each_sampler
def test_a_value_is_there_exactly_where_its_condition_is_met(options: dict[str, Any]) -> None:
    options = dict(options)
    if options.get("name") == "grid":
        options["points"] = {**options["points"], "halting_threshold": 2}
    search = _search(options, CONDITIONAL)
    points = _searched(search, 6)
    assert {point["halting"] for point in points} == {"fixed", "threshold"}
    for point in points:
        assert ("halting_threshold" in point) == (point["halting"] == "threshold")
        assert set(SEARCH) <= set(point)
    assert [each.params for each in search.outcomes] == points
    assert len({space.identity(each) for each in points}) == len(points)
    assert _searched(_search(options, dict(reversed(CONDITIONAL.items()))), 6) == points


def test_tpe_learns_a_value_that_only_some_trials_have() -> None:
    def loss(point: Point) -> float:
        return float(abs(point.get("halting_threshold", 5.0) - 0.8))

    def late(options: dict[str, Any]) -> float:
        found = []
        for seed in range(3):
            search = _search({**options, "seed": seed}, CONDITIONAL)
            for place in range(40):
                asked = search.ask(1)
                search.end(asked[0][0], loss(asked[0][1]))
                found += [loss(asked[0][1])] if place >= 24 else []
        return statistics.mean(found)

    assert late({"startup_trials": 8}) < 0.5 * late({"name": "random"})


@each_sampler
def test_another_seed_is_another_search(options: dict[str, Any]) -> None:
    other = _searched(_search({**options, "seed": 9}), 1)
    same = options.get("scramble") is False  # a plain sequence knows no seed
    assert (_searched(_search(options), 1) == other) == same


@each_sampler
def test_the_order_of_the_names_in_the_file_changes_nothing(options: dict[str, Any]) -> None:
    turned = _search(options, dict(reversed(SEARCH.items())))
    assert _searched(turned, 3) == _searched(_search(options), 3)


@each_sampler
def test_a_batch_asked_at_once_holds_no_point_twice(options: dict[str, Any]) -> None:
    search = _search(options)
    start = _searched(search, 3)
    batch = [point for _, point in search.ask(16)]
    assert len({space.identity(each) for each in (*start, *batch)}) == 12 + 16


@pytest.mark.parametrize(
    "options",
    [
        *({"name": name} for name in ("tpe", "random", "qmc", "grid")),
        {"name": "nsgaii", "population": 4},
    ],
    ids=lambda options: options["name"],
)
def test_a_finite_space_is_tried_whole_before_a_point_comes_twice(options: dict[str, Any]) -> None:
    search = _search(options, FINITE)
    points: list[Point] = []
    for _ in range(6):
        asked = search.ask(4)
        search.told(asked, lambda point: point["lattice_steps"])
        points += [point for _, point in asked]
    assert len({space.identity(each) for each in points}) == 4 * 3 * 2
    more = search.ask(2)
    assert len(more) == (0 if options["name"] == "grid" else 2)


def test_a_batch_of_a_gaussian_process_is_spread_out() -> None:
    values = {name: SEARCH[name] for name in ("similarity_weight", "lattice_steps")}
    search = _search({"name": "gp", "startup_trials": 4}, values)
    asked = search.ask(4)
    search.told(asked, _loss)
    batch = [point for _, point in search.ask(3)]
    gaps = [
        abs(one["similarity_weight"] - other["similarity_weight"])
        + abs(one["lattice_steps"] - other["lattice_steps"]) / 20
        for one, other in itertools.combinations(batch, 2)
    ]
    assert min(gaps) > 0.01
    other = _search({"name": "gp", "startup_trials": 4}, values)
    other.told(other.ask(4), _loss)
    assert [point for _, point in other.ask(3)] == batch


def test_a_gaussian_process_tries_a_finite_space_whole() -> None:
    values = {name: FINITE[name] for name in ("state_size", "gate")}
    search = _search({"name": "gp", "startup_trials": 2}, values)
    points: list[Point] = []
    for _ in range(4):
        asked = search.ask(2)
        search.told(asked, lambda point: point["state_size"])
        points += [point for _, point in asked]
    assert len({space.identity(each) for each in points[:6]}) == 6
    assert len(points) == 8


def test_a_batch_of_tpe_is_spread_out() -> None:
    """Without the constant liar the median gap is near 0.006, with it near 0.06."""
    gaps: list[float] = []
    for seed in range(4):
        values = {"similarity_weight": SEARCH["similarity_weight"]}
        search = _search({"seed": seed, "startup_trials": 5}, values)
        asked: list[tuple[int, Point]] = []
        for _ in range(15):
            asked = search.ask(1)
            search.end(asked[0][0], abs(asked[0][1]["similarity_weight"] - 0.5))
        batch = sorted(point["similarity_weight"] for _, point in search.ask(12))
        gaps += [after - before for before, after in pairwise(batch)]
    assert statistics.median(gaps) > 0.03


def _late_losses(options: dict[str, Any]) -> float:
    """The mean loss of the trials 16 to 32 of a few searches."""
    losses: list[float] = []
    for seed in range(4):
        points = _searched(_search({**options, "seed": seed}), 32, size=1)
        losses += [_loss(point) for point in points[16:]]
    return statistics.mean(losses)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"startup_trials": 0}, id="tpe at once"),
        pytest.param({"startup_trials": 5}, id="tpe"),
        pytest.param({"name": "nsgaii", "population": 4}, id="nsgaii"),
        pytest.param({"name": "cmaes", "population": 4}, id="cmaes", marks=needs_cmaes),
    ],
)
def test_what_learns_searches_where_the_results_are_good(options: dict[str, Any]) -> None:
    assert _late_losses(options) < 0.8 * _late_losses({"name": "random"})


def test_a_sobol_sequence_fills_the_space_evenly() -> None:
    points = _searched(_search({"name": "qmc"}), 8)
    for half in range(2):
        low = [point for point in points if half <= 2 * point["similarity_weight"] < half + 1]
        assert len(low) == 16
    rates = [point["learning_rate"] for point in points]
    assert sum(rate < 1e-4 * 10**1.5 for rate in rates) == 16  # on a logarithmic scale
    sizes = [point["state_size"] for point in points]
    assert min(sizes.count(size) for size in (32, 64, 128)) >= 9


def test_a_plain_sequence_begins_with_the_low_ends() -> None:
    ((_, point),) = _search({"name": "qmc", "scramble": False}).ask(1)
    assert point == {
        "learning_rate": 1e-4,
        "similarity_weight": 0.0,
        "lattice_steps": 1,
        "state_size": 32,
    }


def test_a_grid_is_every_combination_once() -> None:
    values = {"learning_rate": SEARCH["learning_rate"], **FINITE}
    grid = {"name": "grid", "points": {"learning_rate": 4, "lattice_steps": 2}}
    search = _search(grid, values)
    assert search.spec.trials() == 4 * 2 * 3 * 2
    points = [point for _, point in search.ask(1000)]
    assert len({space.identity(each) for each in points}) == len(points) == search.spec.trials()
    rates = sorted({point["learning_rate"] for point in points})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert (rates[0], rates[-1]) == (1e-4, 1e-1)
    assert {point["lattice_steps"] for point in points} == {1, 4}
    assert search.ask(1) == []


def test_a_grid_goes_on_with_what_is_left_whatever_was_lost() -> None:
    search = _search({"name": "grid"}, FINITE)
    search.memory.ask(3)  # a coordinator died before it wrote them
    search.restart()
    points = [point for _, point in search.ask(1000)]
    assert len({space.identity(each) for each in points}) == len(points) == 24


def test_a_grid_over_conditions_has_no_point_twice() -> None:
    values = {name: CONDITIONAL[name] for name in ("state_size", "halting", "halting_threshold")}
    search = _search({"name": "grid", "points": {"halting_threshold": 5}}, values)
    assert search.spec.trials() == 3 * (1 + 5)
    points = [point for _, point in search.ask(1000)]
    assert len({space.identity(each) for each in points}) == len(points) == 18


def test_a_space_too_large_to_list_is_no_list() -> None:
    content = {"name": "s", "search": {"lattice_steps": {"low": 1, "high": 1000}}}
    content["search"]["seed"] = {"low": 0, "high": 1000}  # type: ignore[index]
    assert study.parse(content, "s.yaml").points() is None


def test_cmaes_models_numbers_alone() -> None:
    numbers = {"lattice_steps", "learning_rate", "similarity_weight"}
    assert set(proposals.modelled(_search({"name": "cmaes"}).spec)) == numbers
    for name in ("gp", "nsgaii"):
        assert set(proposals.modelled(_search({"name": name}).spec)) == set(SEARCH)


def test_no_model_is_made_of_what_only_some_trials_have() -> None:
    for name in ("cmaes", "gp", "nsgaii"):
        modelled = proposals.modelled(_search({"name": name}, CONDITIONAL).spec)
        assert "halting_threshold" not in modelled
        assert ("halting" in modelled) == (name != "cmaes")
