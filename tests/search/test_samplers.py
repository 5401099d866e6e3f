"""An Optuna sampler from its name."""

import statistics
from itertools import pairwise
from typing import Any, Literal

import optuna
import pytest

from cubeopt.search.samplers import sampler
from cubeopt.search.study import Range, Sampler

SPACE = {
    "learning_rate": Range(low=1e-4, high=1e-1, log=True).distribution(whole=False),
    "lattice_steps": Range(low=1, high=20).distribution(whole=True),
    "state_size": Range(choices=(32, 64, 128)).distribution(whole=True),
}


def _ask(study: optuna.Study, count: int) -> list[optuna.trial.Trial]:
    return [study.ask(SPACE) for _ in range(count)]


def _startup(name: Literal["tpe", "random"], seed: int, asked: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=sampler(Sampler(name=name, seed=seed), asked))
    return [trial.params for trial in _ask(study, 8)]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_one_seed_and_count_always_draw_the_same_points(name: Literal["tpe", "random"]) -> None:
    assert _startup(name, seed=3, asked=0) == _startup(name, seed=3, asked=0)
    assert _startup(name, seed=3, asked=0) != _startup(name, seed=4, asked=0)


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_coordinator_that_starts_again_repeats_no_point(name: Literal["tpe", "random"]) -> None:
    rates = [params["learning_rate"] for asked in range(20) for params in _startup(name, 0, asked)]
    assert len(set(rates)) == len(rates)


def test_the_next_seed_is_not_this_seed_one_trial_later() -> None:
    assert _startup("tpe", seed=1, asked=4) != _startup("tpe", seed=0, asked=5)


@pytest.mark.parametrize("startup_trials", [0, 5])
def test_tpe_searches_where_the_results_are_good(startup_trials: int) -> None:
    tpe = Sampler(name="tpe", startup_trials=startup_trials)
    assert _late_losses(tpe) < 0.7 * _late_losses(Sampler(name="random"))


def _late_losses(spec: Sampler) -> float:
    """The mean loss of the trials 15 to 30 of a few searches."""
    losses = []
    for seed in range(4):
        study = optuna.create_study(sampler=sampler(spec.model_copy(update={"seed": seed}), 0))
        for number in range(30):
            trial = study.ask(SPACE)
            loss = abs(trial.params["lattice_steps"] - 15) + abs(trial.params["learning_rate"])
            study.tell(trial, loss)
            losses += [loss] if number >= 15 else []
    return sum(losses) / len(losses)


def test_a_batch_asked_at_once_is_spread_out() -> None:
    """Without the constant liar the median gap is near 0.006, with it near 0.06."""
    space = {"weight": Range(low=0.0, high=1.0).distribution(whole=False)}
    gaps: list[float] = []
    for seed in range(4):
        study = optuna.create_study(sampler=sampler(Sampler(seed=seed, startup_trials=5), 0))
        for _ in range(15):
            trial = study.ask(space)
            study.tell(trial, abs(trial.params["weight"] - 0.5))
        batch = sorted(study.ask(space).params["weight"] for _ in range(12))
        gaps += [after - before for before, after in pairwise(batch)]
    assert statistics.median(gaps) > 0.03
