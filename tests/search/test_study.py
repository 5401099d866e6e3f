"""A study file, read strictly."""

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cubeopt import trial
from cubeopt.errors import StudyError
from cubeopt.search import study
from cubeopt.search.study import StudySpec, better

RATE = {"low": 1e-4, "high": 1e-2, "log": True}

HALTING = {"choices": ["fixed", "threshold", "learned"]}
SHARE = {"low": 0.1, "high": 0.5}


def _content(**changes: Any) -> dict[str, Any]:
    return {"name": "small", "search": {"learning_rate": RATE}, **changes}


def _searching(name: str, **searched: Any) -> dict[str, Any]:
    return _content(search={name: searched})


def test_what_is_not_said_has_its_default() -> None:
    spec = study.parse(_content(), "s.yaml")
    assert (spec.objective.metric, spec.objective.direction) == ("fvu", "minimize")
    assert (spec.short_epochs, spec.full_epochs) == (5, 50)
    assert spec.base_trial == trial.TrialSpec()


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("fvu", "minimize"),
        *((name, "maximize") for name in ("cosine", "top1", "mrr")),
        *((name, "maximize") for name in ("effective_rank", "specialisation")),
    ],
)
def test_an_objective_has_its_direction(metric: str, direction: str) -> None:
    assert study.parse(_content(objective={"metric": metric}), "s").objective.direction == direction


def test_a_study_is_the_same_after_its_way_through_the_storage() -> None:
    content = _content(
        base={"lattice_size": [4, 4, 4], "learning_rate": 0.1},
        search={
            "learning_rate": RATE,
            "state_size": {"choices": [16, 32]},
            "emergence": {"choices": ["mutual_information", "legacy_log"]},
        },
        objective={"metric": "cosine"},
    )
    spec = study.parse(content, "s.yaml")
    for options in ({}, {"exclude_none": True}):
        assert study.parse(spec.model_dump(mode="json", **options), "storage") == spec


@pytest.mark.parametrize(
    ("changes", "trials", "top", "factor", "seeds"),
    [
        ({}, 20, 1, None, 1),
        ({"budget": {"epochs": 9}}, None, 1, None, 1),
        ({"budget": {"hours": 1, "device_hours": 2.5}}, None, 1, None, 1),
        ({"promotion": {"top": 0}}, 20, 0, None, 1),
        ({"promotion": {"seeds": 3}}, 20, 1, None, 3),
        ({"promotion": {"reduction_factor": 4}}, 20, None, 4.0, 1),
    ],
)
def test_budgets_and_promotions_have_one_meaning_also_after_the_storage(
    changes: dict[str, Any], trials: int | None, top: int | None, factor: float | None, seeds: int
) -> None:
    spec = study.parse(_content(**changes), "s.yaml")
    stored = spec.model_dump(mode="json", exclude_none=True)
    assert study.parse(stored, "storage") == spec
    assert (spec.trials(), study.planned(stored)) == (trials, trials)
    promotion = spec.promotion
    assert (promotion.top, promotion.reduction_factor, promotion.seeds) == (top, factor, seeds)


def test_a_grid_without_a_budget_of_trials_has_as_many_as_points() -> None:
    search = {"state_size": {"choices": [16, 32]}, "lattice_steps": {"choices": [2, 3, 4]}}
    content = _content(search=search, sampler={"name": "grid"}, budget={"hours": 1})
    spec = study.parse(content, "s.yaml")
    stored = spec.model_dump(mode="json", exclude_none=True)
    assert (spec.trials(), study.planned(stored)) == (6, 6)


def test_a_name_given_by_hand_wins(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: file\nsearch: {learning_rate: {low: 1e-4, high: 1e-2}}\n")
    assert study.load(path).name == "file"
    assert study.load(path, "mine").name == "mine"
    with pytest.raises(StudyError, match="name: String should match pattern"):
        study.load(path, "no spaces")


def test_a_distribution_follows_the_type_of_the_value_not_of_its_ends() -> None:
    spec = study.parse(
        _content(
            search={
                "similarity_weight": {"low": 0, "high": 1},
                "lattice_steps": {"low": 2, "high": 9, "log": True},
                "learning_rate": RATE,
                "state_size": {"choices": [32, 64]},
            }
        ),
        "s.yaml",
    )
    assert spec.distributions() == {
        "similarity_weight": FloatDistribution(0.0, 1.0),
        "lattice_steps": IntDistribution(2, 9, log=True),
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "state_size": CategoricalDistribution((32, 64)),
    }


def test_a_point_is_the_base_with_its_values_put_in() -> None:
    spec = study.parse(_content(base={"state_size": 64, "batch_size": 8}), "s.yaml")
    made = spec.trial({"learning_rate": 0.005, "state_size": 32}, number=7)
    assert (made.optim.learning_rate, made.shape.state_size, made.shape.batch_size) == (
        0.005,
        32,
        8,
    )


def test_a_study_says_what_becomes_of_other_code() -> None:
    assert study.parse(_content(), "s.yaml").code == "warn"
    assert study.parse(_content(code="strict"), "s.yaml").code == "strict"
    with pytest.raises(StudyError, match=r"^s.yaml: code: .*'warn', 'strict' or 'ignore'"):
        study.parse(_content(code="maybe"), "s.yaml")


def test_the_seed_is_the_trials_number_unless_it_is_set_or_searched() -> None:
    assert study.parse(_content(), "s").trial({}, number=7).seed == 7
    assert study.parse(_content(base={"seed": 3}), "s").trial({}, number=7).seed == 3
    assert study.parse(_content(), "s").trial({"seed": 5}, number=7).seed == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_content(serch={}), "unknown key 'serch'; did you mean 'search'?"),
        (_content(rungs={"epoch": [1]}), "unknown key 'rungs.epoch'; did you mean 'epochs'?"),
        (_content(budget={"epoch": 9}), "unknown key 'budget.epoch'; did you mean 'epochs'?"),
        (_content(base={"learning_rat": 1.0}), "base: unknown key 'learning_rat'; did you mean"),
        (_content(search={"learning_rat": RATE}), "search: unknown key 'learning_rat'; did you"),
        (_content(search={}), "search: Dictionary should have at least 1 item"),
        ({"search": {"learning_rate": RATE}}, "name: Field required"),
        (_content(base=None), "base: expected a mapping of names to values (got None)"),
        (_content(budget=[1]), "budget: expected a mapping of names to values (got [1])"),
        (_content(objective="fvu"), "objective: expected a mapping of names to values (got 'fvu')"),
        (_content(sampler="tpe"), "sampler: expected a mapping of names to values (got 'tpe')"),
        (_content(constraints="steps <= 3"), "constraints: expected a list, as in [a, b] (got"),
        (_content(budget={"trials": 10**10}), "budget.trials: Input should be less than or equal"),
        (_content(budget={"hours": 1e300}), "budget.hours: Input should be less than or equal"),
        (_content(promotion={"seeds": 10**6}), "promotion.seeds: Input should be less than or"),
        (_content(name="../up"), "name: String should match pattern"),
        (_content(budget={"trials": 0}), "budget.trials: Input should be greater than or equal"),
        (_content(budget={}), "budget: a study needs an end; give at least one of trials, epochs,"),
        (_content(budget={"hours": 0}), "budget.hours: Input should be greater than 0"),
        (_content(budget={"epochs": 1.5}), "budget.epochs: Input should be a valid integer"),
        (
            _content(promotion={"top": 2, "reduction_factor": 4}),
            "promotion: top (2) waits for all trials, reduction_factor (4) promotes as results",
        ),
        (
            _content(promotion={"reduction_factor": 1}),
            "promotion.reduction_factor: Input should be greater than 1",
        ),
        (
            _content(promotion={"seeds": 0}),
            "promotion.seeds: Input should be greater than or equal",
        ),
        (_content(rungs={"patience": -1}), "rungs.patience: Input should be greater than or equal"),
        (
            _content(rungs={"epochs": [1, 2, 5], "patience": 2}),
            "rungs: patience 2 would cut nobody: trials are compared at 2 rungs, all but the last",
        ),
        (_content(budget={"trials": "9"}), "budget.trials: Input should be a valid integer"),
        (_content(sampler={"name": "best"}), "sampler: no sampler is called 'best'; there are tpe"),
        (
            _content(objective={"metric": "loss"}),
            "objective.metric: Input should be 'fvu', 'cosine', 'top1'",
        ),
        (_content(rungs={"rule": "hyperband"}), "rungs.rule: Input should be 'asha', 'median'"),
        (_content(rungs={"epochs": []}), "rungs.epochs: Tuple should have at least 1 item"),
        (_content(rungs={"epochs": [2, 1]}), "rungs: epochs must rise and start at 1 or more"),
        (_content(rungs={"epochs": [0, 1]}), "rungs: epochs must rise and start at 1 or more"),
        (_content(rungs={"epochs": [1, 1]}), "rungs: epochs must rise and start at 1 or more"),
        (
            _content(base={"epochs": 4}),
            "rungs.epochs ends at 5, but the full run (base.epochs) has only 4",
        ),
        (
            _content(base={"validation_interval": 2}),
            "rungs.epochs [1, 2, 5] must be multiples of base.validation_interval (2)",
        ),
        (
            _searching("learning_rate", low=2, high=1),
            "search.learning_rate: empty range: low (2) must be below high (1)",
        ),
        (
            _searching("learning_rate", low=1.0, high=1.0),
            "search.learning_rate: empty range: low (1.0) must be below high (1.0)",
        ),
        (
            _searching("similarity_weight", low=0, high=1, log=True),
            "search.similarity_weight: a log range needs low above 0, got 0",
        ),
        (
            _searching("learning_rate", low="a", high=1),
            "search.learning_rate.low: Input should be a valid number (got 'a')",
        ),
        (
            _searching("learning_rate", low=1e-4, high=math.inf),
            "search.learning_rate.high: Input should be a finite number (got inf)",
        ),
        (
            _searching("learning_rate", low=0.1),
            "search.learning_rate: a searched value needs low and high, or choices",
        ),
        (
            _searching("state_size", choices=[32, 64], low=1),
            "search.state_size: give either choices or low and high, not both",
        ),
        (
            _searching("state_size", choices=[32]),
            "search.state_size: choices need at least two values, each one once, got [32]",
        ),
        (
            _searching("state_size", choices=[32, 64, 64]),
            "search.state_size: choices need at least two values, each one once",
        ),
        (
            _searching("state_size", choices=[32, "64"]),
            "search.state_size: Input should be a valid integer (got '64')",
        ),
        (_searching("state_size", choices=[True, 64]), "search.state_size.choices.0: "),
        (
            _searching("state_size", low=1, high=9999),
            "search.state_size: Input should be less than or equal to 4096 (got 9999)",
        ),
        (
            _searching("state_size", low=16, high=64.0),
            "search.state_size: Input should be a valid integer (got 64.0)",
        ),
        (
            _searching("emergence", choices=["legacy_log", "none"]),
            "search.emergence: Input should be 'mutual_information' or 'legacy_log'",
        ),
        (
            _searching("functional_radius", low=0.5, high=3.0),
            "search.functional_radius: functional_radius (0.5) must exceed local_radius (1.0)",
        ),
        (
            _content(
                search={
                    "warmup_fraction": {"low": 0.0, "high": 0.8},
                    "decay_fraction": {"low": 0.1, "high": 0.9},
                }
            ),
            "search.warmup_fraction with search.decay_fraction: "
            "warmup_fraction (0.8) and decay_fraction (0.9) together must not exceed 1",
        ),
        *(
            (
                _content(search={"halting": HALTING, "halting_threshold": {**SHARE, "when": when}}),
                said,
            )
            for when, said in (
                (
                    {"haltin": ["fixed"]},
                    "search.halting_threshold.when: 'haltin' is not searched; did",
                ),
                ({"gate": ["frozen"]}, "search.halting_threshold.when: 'gate' is not searched"),
                (
                    {"halting": ["fixed", "soon"]},
                    "search.halting_threshold.when.halting: 'soon' is not among the choices "
                    "['fixed', 'threshold', 'learned']",
                ),
                ({"halting": []}, "search.halting_threshold.when.halting: Tuple should have at"),
                (
                    {"halting": "fixed"},
                    "search.halting_threshold.when.halting: expected a list, as in [a, b]",
                ),
                (
                    ["halting"],
                    "search.halting_threshold.when: expected a mapping of names to values",
                ),
                (
                    {"halting_threshold": [0.1]},
                    "search.halting_threshold.when: halting_threshold is an interval; a condition "
                    "needs choices",
                ),
            )
        ),
        (
            _content(
                search={
                    "gate": {"choices": ["learned", "frozen"], "when": {"halting": ["fixed"]}},
                    "halting": {**HALTING, "when": {"gate": ["learned"]}},
                }
            ),
            "search: conditions go in a circle: gate needs halting needs gate",
        ),
        (
            _content(
                search={
                    "halting": HALTING,
                    "gate": {"choices": ["learned", "frozen"], "when": {"halting": ["fixed"]}},
                    "halting_threshold": {
                        **SHARE,
                        "when": {"halting": ["threshold"], "gate": ["learned"]},
                    },
                }
            ),
            "search.halting_threshold.when: no trial can meet this condition",
        ),
        (
            _content(
                search={
                    "weighting": {"choices": ["annealed", "gradnorm"]},
                    "similarity_weight_end": {**SHARE, "when": {"weighting": ["gradnorm"]}},
                }
            ),
            "search.similarity_weight_end: similarity_weight_end needs weighting: annealed, got",
        ),
        *(
            (
                _searching(name, low=1, high=9),
                f"search.{name}: {name} is one for the whole study; set it in base",
            )
            for name in ("epochs", "data_seed", "embedding_size", "validation_interval")
        ),
    ],
)
def test_a_broken_rule_is_one_line_that_names_the_file_the_key_and_the_rule(
    content: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError) as raised:
        study.parse(content, "studies/s.yaml")
    message = str(raised.value)
    assert message.startswith(f"studies/s.yaml: {said}")
    assert "\n" not in message


@pytest.mark.parametrize("name", sorted(trial.value_names()))
def test_every_value_is_either_searched_or_refused_with_a_reason(name: str) -> None:
    """A knob declared later must not slip through unsearched."""
    ranges = {
        "lattice_size": {"choices": ["a", "b"]},
        "emergence": {"choices": ["mutual_information", "legacy_log"]},
        "schedule": {"choices": ["constant", "cosine"]},
        "weighting": {"choices": ["fixed", "gradnorm"]},
        "tiers": {"choices": ["radius", "share"]},
        "placement": {"choices": ["same_face", "spread"]},
        "readout": {"choices": ["value", "state"]},
        "experts": {"choices": ["local", "distant"]},
        "gate": {"choices": ["learned", "frozen"]},
        "halting": {"choices": ["fixed", "learned"]},
        "functional_radius": {"low": 1.5, "high": 3.0},
        "local_radius": {"low": 0.5, "high": 1.5},
        "warmup_fraction": {"low": 0.0, "high": 0.5},
        "decay_fraction": {"low": 0.0, "high": 0.5},
    }
    shares = ("dropout", "ema_decay", "gradnorm_rate", "plateau_factor", "local_share")
    ranges |= {share: {"low": 0.1, "high": 0.4} for share in (*shares, "functional_share")}
    base = {"weighting": "annealed"} if name.endswith("_weight_end") else {}
    content = _content(base=base, search={name: ranges.get(name, {"low": 1, "high": 3})})
    if name in study._NEVER_SEARCHED:
        with pytest.raises(StudyError, match="is one for the whole study"):
            study.parse(content, "s.yaml")
    elif name == "lattice_size":
        with pytest.raises(StudyError, match=r"search\.lattice_size"):
            study.parse(content, "s.yaml")
    else:
        assert set(study.parse(content, "s.yaml").distributions()) == {name}


def test_a_value_with_a_condition_is_checked_where_it_is_met() -> None:
    """Without the condition an end weight is refused: the base's weights are fixed."""
    search = {
        "weighting": {"choices": ["fixed", "annealed"]},
        "similarity_weight_end": {**SHARE, "when": {"weighting": ["annealed"]}},
    }
    spec = study.parse(_content(search=search), "s.yaml")
    assert spec.conditional
    assert spec.trial({"weighting": "fixed"}, 0).loss.similarity_weight_end is None
    annealed = spec.trial({"weighting": "annealed", "similarity_weight_end": 0.2}, 0)
    assert annealed.loss.similarity_weight_end == 0.2
    for options in ({}, {"exclude_none": True}):
        assert study.parse(spec.model_dump(mode="json", **options), "storage") == spec


def test_a_nan_beats_nothing() -> None:
    for direction in ("minimize", "maximize"):
        assert not better(math.nan, 1.0, direction)
        assert not better(math.nan, math.nan, direction)
        assert better(1.0, math.nan, direction)
        assert not better(1.0, 1.0, direction)
    assert better(0.1, 0.2, "minimize")
    assert better(0.2, 0.1, "maximize")


def test_a_study_cannot_be_changed() -> None:
    spec = study.parse(_content(), "s.yaml")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]
    assert isinstance(spec, StudySpec)


def test_a_misspelt_section_is_named_and_not_the_one_that_is_missing() -> None:
    content = {"name": "x", "serch": {"learning_rate": {"low": 0.1, "high": 0.2}}}
    with pytest.raises(
        StudyError, match=r"^f\.yaml: unknown key 'serch'; did you mean 'search'\?$"
    ):
        study.parse(content, "f.yaml")


def test_a_missing_section_is_named_without_the_whole_file() -> None:
    with pytest.raises(StudyError, match=r"^f\.yaml: search: Field required$"):
        study.parse({"name": "x"}, "f.yaml")
