"""Real proposals of every sampler, over Optuna's memory: repeatable, spread out, never twice."""

import importlib.util
import itertools
import statistics
from itertools import pairwise
from typing import Any

import optuna
import pytest

from cubeopt.search import proposals, space, study
from cubeopt.search.mirror import Mirror
from cubeopt.search.space import Point

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
    "ignore::optuna.exceptions.ExperimentalWarning"  # as mirror.open_storage does
)


def _mirror(options: dict[str, Any], search: dict[str, Any] | None = None) -> Mirror:
    content = {"name": "s", "search": search or SEARCH, "sampler": options}
    spec = study.parse({**content, "budget": {"trials": 1000}}, "s.yaml")
    storage: Any = optuna.storages.InMemoryStorage()
    return Mirror(storage, spec)


def _loss(point: Point) -> float:
    return abs(point["lattice_steps"] - 15) / 20 + abs(point["similarity_weight"] - 0.3)


def _told(mirror: Mirror, asked: list[tuple[int, Point]], loss: Any = _loss) -> None:
    """Every fourth trial is pruned, every other one complete."""
    for number, point in asked:
        mirror.report(number, 1, loss(point))
        if number % 4 == 3:
            mirror.tell_pruned(number, loss(point))
        else:
            mirror.tell_complete(number, loss(point))


def _searched(mirror: Mirror, batches: int, size: int = 4) -> list[Point]:
    points: list[Point] = []
    for _ in range(batches):
        asked = mirror.ask(size, len(points))
        _told(mirror, asked)
        points += [point for _, point in asked]
    return points


@each_sampler
def test_the_same_results_give_the_same_proposals_also_after_a_restart(
    options: dict[str, Any],
) -> None:
    whole = _searched(_mirror(options), 5)
    first = _mirror(options)
    points = []
    for batch in range(5):
        again = Mirror(first._storage, first._spec)  # as a coordinator that starts again
        for place in range(4 * batch, 4 * batch + 4):
            points += again.ask(1, place)
        _told(again, points[-4:])
    assert [point for _, point in points] == whole


@each_sampler
def test_a_value_is_there_exactly_where_its_condition_is_met(options: dict[str, Any]) -> None:
    options = dict(options)
    if options.get("name") == "grid":
        options["points"] = {**options["points"], "halting_threshold": 2}
    mirror = _mirror(options, CONDITIONAL)
    points = _searched(mirror, 6)
    assert {point["halting"] for point in points} == {"fixed", "threshold"}
    for point in points:
        assert ("halting_threshold" in point) == (point["halting"] == "threshold")
        assert set(SEARCH) <= set(point)
    assert [each.params for each in mirror._study.get_trials()] == points
    assert len({space.identity(each) for each in points}) == len(points)
    assert _searched(_mirror(options, dict(reversed(CONDITIONAL.items()))), 6) == points


def test_tpe_learns_a_value_that_only_some_trials_have() -> None:
    def loss(point: Point) -> float:
        return float(abs(point.get("halting_threshold", 5.0) - 0.8))

    def late(options: dict[str, Any]) -> float:
        found = []
        for seed in range(3):
            mirror = _mirror({**options, "seed": seed}, CONDITIONAL)
            for place in range(40):
                asked = mirror.ask(1, place)
                mirror.tell_complete(asked[0][0], loss(asked[0][1]))
                found += [loss(asked[0][1])] if place >= 24 else []
        return statistics.mean(found)

    assert late({"startup_trials": 8}) < 0.5 * late({"name": "random"})


@each_sampler
def test_another_seed_is_another_search(options: dict[str, Any]) -> None:
    other = _searched(_mirror({**options, "seed": 9}), 1)
    same = options.get("scramble") is False  # a plain sequence knows no seed
    assert (_searched(_mirror(options), 1) == other) == same


@each_sampler
def test_the_order_of_the_names_in_the_file_changes_nothing(options: dict[str, Any]) -> None:
    turned = _mirror(options, dict(reversed(SEARCH.items())))
    assert _searched(turned, 3) == _searched(_mirror(options), 3)


@each_sampler
def test_a_batch_asked_at_once_holds_no_point_twice(options: dict[str, Any]) -> None:
    mirror = _mirror(options)
    start = _searched(mirror, 3)
    batch = [point for _, point in mirror.ask(16, len(start))]
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
    mirror = _mirror(options, FINITE)
    points: list[Point] = []
    for _ in range(6):
        asked = mirror.ask(4, len(points))
        _told(mirror, asked, lambda point: point["lattice_steps"])
        points += [point for _, point in asked]
    assert len({space.identity(each) for each in points}) == 4 * 3 * 2
    more = mirror.ask(2, len(points))
    assert len(more) == (0 if options["name"] == "grid" else 2)


def test_a_batch_of_a_gaussian_process_is_spread_out() -> None:
    search = {name: SEARCH[name] for name in ("similarity_weight", "lattice_steps")}
    mirror = _mirror({"name": "gp", "startup_trials": 4}, search)
    asked = mirror.ask(4, 0)
    _told(mirror, asked)
    batch = [point for _, point in mirror.ask(3, 4)]
    gaps = [
        abs(one["similarity_weight"] - other["similarity_weight"])
        + abs(one["lattice_steps"] - other["lattice_steps"]) / 20
        for one, other in itertools.combinations(batch, 2)
    ]
    assert min(gaps) > 0.01
    other = _mirror({"name": "gp", "startup_trials": 4}, search)
    _told(other, other.ask(4, 0))
    assert [point for _, point in other.ask(3, 4)] == batch


def test_a_gaussian_process_tries_a_finite_space_whole() -> None:
    search = {name: FINITE[name] for name in ("state_size", "gate")}
    mirror = _mirror({"name": "gp", "startup_trials": 2}, search)
    points: list[Point] = []
    for _ in range(4):
        asked = mirror.ask(2, len(points))
        _told(mirror, asked, lambda point: point["state_size"])
        points += [point for _, point in asked]
    assert len({space.identity(each) for each in points[:6]}) == 6
    assert len(points) == 8


def test_a_batch_of_tpe_is_spread_out() -> None:
    """Without the constant liar the median gap is near 0.006, with it near 0.06."""
    gaps: list[float] = []
    for seed in range(4):
        search = {"similarity_weight": SEARCH["similarity_weight"]}
        mirror = _mirror({"seed": seed, "startup_trials": 5}, search)
        asked: list[tuple[int, Point]] = []
        for place in range(15):
            asked = mirror.ask(1, place)
            mirror.tell_complete(asked[0][0], abs(asked[0][1]["similarity_weight"] - 0.5))
        batch = sorted(point["similarity_weight"] for _, point in mirror.ask(12, 15))
        gaps += [after - before for before, after in pairwise(batch)]
    assert statistics.median(gaps) > 0.03


def _late_losses(options: dict[str, Any]) -> float:
    """The mean loss of the trials 16 to 32 of a few searches."""
    losses: list[float] = []
    for seed in range(4):
        points = _searched(_mirror({**options, "seed": seed}), 32, size=1)
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
    points = _searched(_mirror({"name": "qmc"}), 8)
    for half in range(2):
        low = [point for point in points if half <= 2 * point["similarity_weight"] < half + 1]
        assert len(low) == 16
    rates = [point["learning_rate"] for point in points]
    assert sum(rate < 1e-4 * 10**1.5 for rate in rates) == 16  # on a logarithmic scale
    sizes = [point["state_size"] for point in points]
    assert min(sizes.count(size) for size in (32, 64, 128)) >= 9


def test_a_plain_sequence_begins_with_the_low_ends() -> None:
    ((_, point),) = _mirror({"name": "qmc", "scramble": False}).ask(1, 0)
    assert point == {
        "learning_rate": 1e-4,
        "similarity_weight": 0.0,
        "lattice_steps": 1,
        "state_size": 32,
    }


def test_a_grid_is_every_combination_once() -> None:
    search = {"learning_rate": SEARCH["learning_rate"], **FINITE}
    mirror = _mirror({"name": "grid", "points": {"learning_rate": 4, "lattice_steps": 2}}, search)
    assert mirror.trials == 4 * 2 * 3 * 2
    points = [point for _, point in mirror.ask(1000, 0)]
    assert len({space.identity(each) for each in points}) == len(points) == mirror.trials
    rates = sorted({point["learning_rate"] for point in points})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert (rates[0], rates[-1]) == (1e-4, 1e-1)
    assert {point["lattice_steps"] for point in points} == {1, 4}
    assert mirror.ask(1, len(points)) == []


def test_a_grid_goes_on_with_what_is_left_whatever_was_lost() -> None:
    mirror = _mirror({"name": "grid"}, FINITE)
    mirror._study.ask()  # a coordinator died before it wrote the point
    assert mirror.orphans([]) == []
    points = [point for _, point in mirror.ask(1000, 0)]
    assert len(points) == 24


def test_a_grid_over_conditions_has_no_point_twice() -> None:
    search = {name: CONDITIONAL[name] for name in ("state_size", "halting", "halting_threshold")}
    mirror = _mirror({"name": "grid", "points": {"halting_threshold": 5}}, search)
    assert mirror.trials == 3 * (1 + 5)
    points = [point for _, point in mirror.ask(1000, 0)]
    assert len({space.identity(each) for each in points}) == len(points) == 18


def test_a_space_too_large_to_list_is_no_list() -> None:
    content = {"name": "s", "search": {"lattice_steps": {"low": 1, "high": 1000}}}
    content["search"]["seed"] = {"low": 0, "high": 1000}  # type: ignore[index]
    assert study.parse(content, "s.yaml").points() is None


def test_cmaes_models_numbers_alone() -> None:
    numbers = {"lattice_steps", "learning_rate", "similarity_weight"}
    assert set(proposals.modelled(_mirror({"name": "cmaes"})._spec)) == numbers
    for name in ("gp", "nsgaii"):
        assert set(proposals.modelled(_mirror({"name": name})._spec)) == set(SEARCH)


def test_no_model_is_made_of_what_only_some_trials_have() -> None:
    for name in ("cmaes", "gp", "nsgaii"):
        modelled = proposals.modelled(_mirror({"name": name}, CONDITIONAL)._spec)
        assert "halting_threshold" not in modelled
        assert ("halting" in modelled) == (name != "cmaes")
