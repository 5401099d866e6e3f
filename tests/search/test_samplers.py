"""The samplers by name, and the options of each."""

import importlib.util
from typing import Any

import pytest

from cubeopt.errors import StudyError
from cubeopt.search import samplers, study
from cubeopt.search.samplers import Sampler

RATE = {"low": 1e-4, "high": 1e-2, "log": True}
SEARCH = {"learning_rate": RATE, "weight_decay": {"low": 0.0, "high": 1.0}}


def _parsed(**options: Any) -> Sampler:
    content = {"name": "s", "search": SEARCH, "sampler": options}
    return study.parse(content, "s.yaml").sampler


def test_without_a_name_it_is_tpe_with_a_batch_that_is_spread_out() -> None:
    spec = _parsed(seed=3)
    assert isinstance(spec, samplers.Tpe)
    assert (spec.seed, spec.multivariate, spec.constant_liar) == (3, True, True)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "tpe", "startup_trials": 5, "multivariate": False, "constant_liar": False},
        {"name": "random"},
        {"name": "qmc", "sequence": "halton", "scramble": False},
        {"name": "grid", "points": {"learning_rate": 3, "weight_decay": 2}},
        {"name": "cmaes", "variant": "margin", "population": 8, "pruned": False},
        {"name": "gp", "startup_trials": 5, "deterministic": True},
        {"name": "nsgaii", "population": 8, "crossover": "sbx", "mutation_probability": 0.1},
    ],
    ids=lambda options: options["name"],
)
def test_every_option_survives_its_way_through_the_storage(options: dict[str, Any]) -> None:
    spec = _parsed(seed=7, **options)
    stored = spec.model_dump(mode="json", exclude_none=True)
    assert {**stored, **options, "seed": 7} == stored
    assert _parsed(**stored) == spec


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"name": "annealing"},
            "sampler: no sampler is called 'annealing'; there are tpe, random, qmc, grid, cmaes, "
            "gp, mfgp, nsgaii",
        ),
        ({"name": "qcm"}, "sampler: no sampler is called 'qcm'; did you mean 'qmc'?; there are"),
        ({"name": 3}, "sampler: no sampler is called 3; there are tpe"),
        ({"name": "random", "startup_trials": 3}, "random has no option 'startup_trials'; it has"),
        (
            {"name": "qmc", "scrambel": True},
            "sampler: qmc has no option 'scrambel'; did you mean 'scramble'?; it has seed, "
            "sequence, scramble",
        ),
        ({"multivariat": True}, "tpe has no option 'multivariat'; did you mean 'multivariate'?"),
        ({"group": True, "multivariate": False}, "sampler: group: true needs multivariate: true"),
        ({"name": "qmc", "sequence": "lattice"}, "sampler.sequence: Input should be 'sobol' or"),
        ({"seed": -1}, "sampler.seed: Input should be greater than or equal to 0 (got -1)"),
        ({"name": "gp", "startup_trials": "3"}, "sampler.startup_trials: Input should be a valid"),
        (
            {"name": "nsgaii", "crossover": "undx", "population": 2},
            "sampler: crossover undx needs 3 parents, but population is 2",
        ),
        ({"name": "grid", "points": {"learning_rate": 1}}, "sampler.points.learning_rate: Input"),
        ({"name": "grid", "points": {"learning_rat": 2}}, "'learning_rat' is not searched; did"),
        (
            {"name": "grid", "points": {"learning_rate": 2}},
            "sampler grid needs to know how many values of weight_decay to try; say it in "
            "sampler.points, as in points: {weight_decay: 5}",
        ),
        (
            {"name": "grid", "points": {"learning_rate": 1000, "weight_decay": 1000}},
            "the grid has more than 100000 points; give fewer in sampler.points",
        ),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_there_is(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError) as raised:
        _parsed(**options)
    message = str(raised.value)
    assert message.startswith("s.yaml: sampler") or message.startswith("s.yaml: the grid")
    assert said in message
    assert "\n" not in message


def test_a_section_that_is_no_mapping_is_refused() -> None:
    content = {"name": "s", "search": SEARCH, "sampler": "tpe"}
    with pytest.raises(StudyError, match=r"^s\.yaml: sampler: "):
        study.parse(content, "s.yaml")


def test_a_grid_takes_all_choices_and_says_so() -> None:
    sampler = {"name": "grid", "points": {"state_size": 2}}
    search = {"state_size": {"choices": [8, 16]}}
    with pytest.raises(StudyError, match=r"points: state_size has choices; a grid takes them all"):
        study.parse({"name": "s", "search": search, "sampler": sampler}, "s.yaml")


def test_cmaes_needs_two_intervals() -> None:
    search = {"learning_rate": RATE, "state_size": {"choices": [8, 16]}}
    with pytest.raises(StudyError, match=r"cmaes needs at least two searched intervals .*, got 1"):
        study.parse({"name": "s", "search": search, "sampler": {"name": "cmaes"}}, "s.yaml")


@pytest.mark.parametrize(
    ("options", "package"),
    [
        ({"name": "qmc"}, "scipy"),
        ({"name": "gp"}, "scipy"),
        ({"name": "cmaes"}, "cmaes"),
        ({"name": "cmaes", "variant": "margin"}, "cmaes and scipy"),
    ],
)
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], package: str
) -> None:
    spec = _parsed(**options)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = rf"sampler {spec.name} needs {package}, .* pip install 'cubeopt\[samplers\]'"
    with pytest.raises(StudyError, match=said):
        samplers.check_installed(spec)


def test_most_samplers_need_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tpe", "random", "nsgaii"):
        samplers.check_installed(_parsed(name=name))


def test_the_next_seed_is_not_this_seed_one_trial_later() -> None:
    spec, other = _parsed(seed=1), _parsed(seed=0)
    assert samplers.seed(spec, 4) != samplers.seed(other, 5)
    assert samplers.seed(spec, 4) == samplers.seed(_parsed(seed=1), 4)
