"""What Optuna's tables are asked and told, over a real database."""

import importlib.util
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import Engine

from cubeopt.db.engine import optuna_url
from cubeopt.errors import StudyError
from cubeopt.search import mirror, study
from cubeopt.search.mirror import Mirror
from cubeopt.search.study import StudySpec

needs_cmaes = pytest.mark.skipif(
    importlib.util.find_spec("cmaes") is None, reason="cubeopt[samplers] is not installed"
)


@pytest.fixture
def storage(engine: Engine) -> Iterator[RDBStorage]:
    opened = mirror.open_storage(optuna_url(engine))
    yield opened
    opened.engine.dispose()


def test_all_who_open_a_fresh_database_at_once_find_the_same_tables(engine: Engine) -> None:
    start = threading.Barrier(4)

    def opened(_: int) -> list[optuna.study.StudySummary]:
        start.wait()
        storage = mirror.open_storage(optuna_url(engine))
        try:
            return list(storage.get_all_studies())
        finally:
            storage.engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(opened, range(4))) == [[], [], [], []]


def spec(name: str, sampler: str = "random") -> StudySpec:
    search = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    content = {"name": name, "search": search, "sampler": {"name": sampler, "seed": 5}}
    return study.parse(content, "file")


def test_a_random_search_draws_the_same_points_however_many_are_asked_at_once(
    storage: RDBStorage,
) -> None:
    at_once = Mirror(storage, spec("a")).ask(4, asked=0)
    other = Mirror(storage, spec("b"))
    one_by_one = [*other.ask(1, asked=0), *other.ask(2, asked=1), *other.ask(1, asked=3)]
    assert at_once == one_by_one
    assert len({params["learning_rate"] for _, params in at_once}) == 4


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "tpe", "startup_trials": 3},
        {"name": "qmc"},
        {"name": "grid", "points": {"learning_rate": 3, "similarity_weight": 4}},
        {"name": "nsgaii", "population": 3},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_a_coordinator_that_starts_again_asks_what_the_last_one_would_have_asked(
    engine: Engine, storage: RDBStorage, sampler: dict[str, Any]
) -> None:
    def asked(name: str, restart: bool) -> list[dict[str, Any]]:
        search = {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "similarity_weight": {"low": 0.0, "high": 1.0},
        }
        made = study.parse({"name": name, "search": search, "sampler": sampler}, "file")
        counterpart, points = Mirror(storage, made), []
        for place in range(0, 12, 2):
            if restart:
                counterpart = Mirror(storage, made)
                if place == 6:
                    counterpart._study.ask()  # the last one died before it drew the point
                    assert counterpart.orphans(range(place)) == []
            batch = counterpart.ask(2, place)
            for number, point in batch:
                counterpart.tell_complete(number, point["similarity_weight"])
                points.append(point)
        return points

    whole = asked("whole", restart=False)
    assert len({tuple(point.items()) for point in whole}) == 12
    assert asked("restarted", restart=True) == whole


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "gp", "startup_trials": 2},
        *(
            pytest.param({"name": "cmaes", "variant": variant, "population": 4}, marks=needs_cmaes)
            for variant in ("full", "separable", "margin", "adaptive")
        ),
    ],
)
def test_what_a_sampler_notes_beside_its_trials_fits_into_the_tables(
    storage: RDBStorage, sampler: dict[str, Any]
) -> None:
    """CMA-ES writes its whole state, a Gaussian process what still runs."""
    names = ("reconstruction_weight", "similarity_weight", "diversity_weight", "emergence_weight")
    search = {name: {"low": 0.1, "high": 1.0} for name in names}
    search["halting_threshold"] = {"low": 0.1, "high": 1.0, "when": {"halting": ["threshold"]}}
    search["halting"] = {"choices": ["fixed", "threshold"]}
    made = study.parse({"name": "a", "search": search, "sampler": sampler}, "file")
    places = range(0, 6, 2) if made.sampler.name == "gp" else range(0, 24, 4)
    asked: list[tuple[int, dict[str, Any]]] = []
    for place in places:
        counterpart = Mirror(storage, made)  # as after a restart
        asked += counterpart.ask(places.step, place)
        for number, point in asked[place:]:
            counterpart.report(number, 1, point["similarity_weight"])
            counterpart.tell_complete(number, point["similarity_weight"])
    shown = optuna.load_study(study_name="a", storage=storage).trials
    assert [(each.number, each.params) for each in shown] == asked
    assert len({tuple(each.params.items()) for each in shown}) == len(shown)


def test_what_was_asked_stands_in_optunas_tables_to_the_bit(storage: RDBStorage) -> None:
    search = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "lattice_steps": {"low": 2, "high": 9},
        "state_size": {"choices": [8, 16]},
        "gate": {"choices": ["learned", "frozen"]},
    }
    counterpart = Mirror(storage, study.parse({"name": "a", "search": search}, "file"))
    asked = counterpart.ask(5, asked=0)
    assert counterpart.orphans([]) == asked


def test_a_trial_that_lacks_a_value_is_whole_without_it(storage: RDBStorage) -> None:
    search = {
        "halting": {"choices": ["fixed", "threshold"]},
        "halting_threshold": {"low": 0.1, "high": 1.0, "when": {"halting": ["threshold"]}},
    }
    counterpart = Mirror(storage, study.parse({"name": "a", "search": search}, "file"))
    asked = counterpart.ask(8, asked=0)
    assert {len(point) for _, point in asked} == {1, 2}
    shown = optuna.load_study(study_name="a", storage=storage).trials
    assert [(each.number, each.params) for each in shown] == asked
    half = counterpart._study.ask()  # a coordinator that died after the first of two values
    half.suggest_categorical("halting", ["fixed", "threshold"])
    expected = [(half.number, half.params)] if half.params["halting"] == "fixed" else []
    assert counterpart.orphans([]) == [*asked, *expected]


def test_telling_and_reporting_twice_is_telling_once(storage: RDBStorage) -> None:
    counterpart = Mirror(storage, spec("a"))
    counterpart.ask(3, asked=0)
    for _ in range(2):  # as after a crash between telling and writing that down
        counterpart.report(0, 1, 0.9)
        counterpart.tell_complete(0, 0.8)
        counterpart.report(1, 1, 0.95)
        counterpart.tell_pruned(1, 0.95)
        counterpart.tell_failed(2)
    trials = optuna.load_study(study_name="a", storage=storage).trials
    states = [each.state for each in trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [each.intermediate_values for each in trials] == [{1: 0.9}, {1: 0.95}, {}]
    assert trials[0].value == 0.8


def test_a_diverged_trial_is_a_bad_result_that_the_sampler_ranks_last(storage: RDBStorage) -> None:
    counterpart = Mirror(storage, spec("a", "tpe"))
    counterpart.ask(1, asked=0)
    counterpart.tell_pruned(0, float("nan"))
    (trial,) = optuna.load_study(study_name="a", storage=storage).trials
    assert trial.state == TrialState.PRUNED
    assert trial.value is None
    assert counterpart.ask(1, asked=1)  # and goes on proposing


def test_a_name_that_optuna_has_already_is_refused(engine: Engine, storage: RDBStorage) -> None:
    optuna.create_study(storage=storage, study_name="taken")
    with pytest.raises(StudyError, match="already hold a study 'taken'"):
        mirror.check_free(optuna_url(engine), "taken")
    mirror.check_free(optuna_url(engine), "free")


TWO = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "similarity_weight": {"low": 0.0, "high": 1.0},
}
POINTS = {"learning_rate": 2, "similarity_weight": 2}


@pytest.mark.parametrize(
    "sampler",
    [
        *({"name": name, "seed": 5} for name in ("random", "tpe", "qmc", "nsgaii", "gp")),
        pytest.param({"name": "cmaes", "seed": 5}, marks=needs_cmaes),
        {"name": "grid", "points": POINTS},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_what_a_person_wishes_for_comes_first_whatever_the_sampler(
    engine: Engine, storage: RDBStorage, sampler: dict[str, Any]
) -> None:
    wishing = study.parse({"name": "w", "search": TWO, "sampler": sampler}, "file")
    asking = Mirror(storage, wishing)
    assert len(asking.ask(1, asked=0)) == 1
    wish = {"similarity_weight": 0.625}
    number = mirror.enqueue(optuna_url(engine), wishing, wish)
    (granted, following) = asking.ask(2, asked=1)
    assert granted[0] == number
    assert granted[1]["similarity_weight"] == 0.625
    assert 1e-4 <= granted[1]["learning_rate"] <= 1e-2
    assert following[0] > number
    assert following[1]["similarity_weight"] != 0.625


def test_a_wish_outlives_the_coordinator_that_had_begun_to_grant_it(
    engine: Engine, storage: RDBStorage
) -> None:
    wishing = study.parse({"name": "w", "search": TWO, "sampler": {"name": "random"}}, "file")
    asking = Mirror(storage, wishing)
    number = mirror.enqueue(optuna_url(engine), wishing, {"similarity_weight": 0.625})
    dying = optuna.load_study(study_name="w", storage=storage)
    assert dying.ask().number == number  # taken from the queue, and nothing written
    ((found, point),) = asking.orphans([])
    assert found == number
    assert point["similarity_weight"] == 0.625
    assert set(point) == set(TWO)
    assert asking.orphans([]) == [(number, point)]


def two(name: str, sampler: dict[str, Any], **changes: Any) -> StudySpec:
    search = {name: {"low": 0.0, "high": 1.0} for name in ("similarity_weight", "dropout")}
    search["dropout"]["high"] = 0.9
    content = {"name": name, "search": search, "sampler": sampler, "budget": {"trials": 200}}
    return study.parse({**content, **changes}, "file")


BOTH = {"objective": {"metrics": ["fvu", "parameters"]}}


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "tpe", "startup_trials": 4},
        {"name": "gp", "startup_trials": 4},
        {"name": "nsgaii", "population": 4},
        {"name": "random"},
        {"name": "qmc"},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_two_objectives_are_told_as_two_values_and_every_sampler_goes_on(
    storage: RDBStorage, sampler: dict[str, Any]
) -> None:
    counterpart = Mirror(storage, two("a", sampler, **BOTH))
    for place in range(0, 12, 3):
        for number, point in counterpart.ask(3, place):
            counterpart.report(number, 1, 0.9)
            if number % 3 == 2:
                counterpart.tell_pruned(number, 0.9, 50.0)
            elif number == 4:
                counterpart.tell_pruned(number)  # diverged
            else:
                counterpart.tell_complete(number, point["dropout"], 100.0 * number)
    made = optuna.load_study(study_name="a", storage=storage)
    assert [each.name for each in made.directions] == ["MINIMIZE", "MINIMIZE"]
    assert made.metric_names == ["fvu", "parameters"]
    first, _, pruned, *_, diverged = made.trials[:5]
    assert (first.state, first.values) == (TrialState.COMPLETE, [first.params["dropout"], 0.0])
    assert (pruned.state, pruned.values) == (TrialState.PRUNED, [0.9, 50.0])
    assert (diverged.state, diverged.values) == (TrialState.PRUNED, None)
    assert all(each.intermediate_values == {} for each in made.trials)
    assert first.number in {each.number for each in made.best_trials}


def test_optunas_tpe_takes_no_intermediate_values_beside_two_objectives() -> None:
    """Why `report` writes none; if this fails, it may."""
    made = optuna.create_study(
        directions=["minimize"] * 2, sampler=optuna.samplers.TPESampler(n_startup_trials=1)
    )
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        trial = made.ask(space)
        made._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
        made._storage.set_trial_state_values(trial._trial_id, state, [0.5, 0.5])
    with pytest.raises(RuntimeError, match="single direction cannot be retrieved"):
        made.ask(space)


@pytest.mark.parametrize(
    ("sampler", "asked"),
    [
        ({"name": "tpe", "startup_trials": 10}, 40),
        ({"name": "gp", "startup_trials": 10, "deterministic": True}, 16),
        ({"name": "nsgaii", "population": 10}, 60),
    ],
    ids=lambda given: given["name"] if isinstance(given, dict) else "",
)
@pytest.mark.parametrize("objective", [{"metric": "fvu"}, {"metrics": ["fvu", "parameters"]}])
def test_proposals_move_out_of_the_region_that_breaks_a_constraint(
    storage: RDBStorage, sampler: dict[str, Any], asked: int, objective: dict[str, Any]
) -> None:
    """fvu falls with the dropout, but from .5 on the constraint is broken; it is told or not.

    With two objectives the second rises as the first falls, so that nothing else speaks against it.
    """

    def last(name: str, told: bool) -> float:
        spec = two(name, sampler, objective=objective, constraints=["usage_min >= 0.5"])
        counterpart, found = Mirror(storage, spec), []
        for place in range(asked):
            ((number, point),) = counterpart.ask(1, place)
            usage = 1.0 - point["dropout"]
            if told:
                counterpart.bound(number, spec.goal.excesses({"validation/usage_min": usage}))
            values = (usage, 100.0 - usage)[: len(spec.objective.names)]
            counterpart.tell_complete(number, *values)
            found.append(point["dropout"] <= 0.5)
        newest = found[-asked // 3 :]
        return sum(newest) / len(newest)

    feasible, regardless = last("told", told=True), last("untold", told=False)
    assert feasible >= 0.5
    assert feasible - regardless > 0.15


def test_the_tables_have_how_far_a_trial_is_beyond_each_bound(storage: RDBStorage) -> None:
    spec = two("a", {"name": "random"}, constraints=["usage_min >= 0.05", "parameters <= 200"])
    counterpart = Mirror(storage, spec)
    counterpart.ask(2, 0)
    metrics = {"validation/usage_min": 0.04, "parameters": 100}
    for _ in range(2):  # again after a crash
        counterpart.bound(0, spec.goal.excesses(metrics))
        counterpart.tell_complete(0, 0.5)
    counterpart.bound(1, spec.goal.excesses({}))
    counterpart.tell_pruned(1)
    first, second = optuna.load_study(study_name="a", storage=storage).trials
    assert first.system_attrs["constraints"] == pytest.approx([0.2, -0.5])
    assert first.constraints == pytest.approx({"0": 0.2, "1": -0.5})
    assert second.constraints == {"0": 10.0, "1": 10.0}
