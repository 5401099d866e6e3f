"""Plain Optuna in many processes: what a study would cost without our service."""

import signal
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection

import optuna
from optuna import Study
from optuna.distributions import FloatDistribution
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, Trial

from cubeopt.bench.crowd import loss
from cubeopt.search import samplers
from cubeopt.search.samplers import Tpe


def optimize(
    pipe: Connection,
    number: int,
    url: str,
    study: str,
    sampler: Tpe,
    space: Mapping[str, FloatDistribution],
    epochs: int,
    trials: int,
    prune: bool,
) -> None:
    """One process of `study.optimize`, until the study has *trials* trials that have ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    loaded = optuna.load_study(
        storage=url,
        study_name=study,
        sampler=samplers.build(sampler, number, conditional=False),
        pruner=SuccessiveHalvingPruner(1, reduction_factor=2) if prune else NopPruner(),
    )

    def objective(trial: Trial) -> float:
        params = {
            name: trial.suggest_float(name, each.low, each.high, log=each.log)
            for name, each in space.items()
        }
        for epoch in range(1, epochs + 1):
            value = loss(params, space, epoch)
            trial.report(value, epoch)
            if epoch < epochs and trial.should_prune():
                raise optuna.TrialPruned
        return value

    def enough(study: Study, trial: FrozenTrial) -> None:
        if trial.number >= trials - 1:
            study.stop()

    pipe.send("ready")
    pipe.recv()
    loaded.optimize(objective, callbacks=[enough])
    pipe.recv()  # until we are ended: who leaves early has failed
