"""From a study in the storage to a table of learning curves, with the time of an epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cubeopt import provenance, trial
from cubeopt.bench.curves import Curve, Curves
from cubeopt.bench.measuring import times
from cubeopt.data import dataset
from cubeopt.db import records
from cubeopt.db.engine import Engine
from cubeopt.db.records import RunRecord
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.errors import StateError, StudyError
from cubeopt.search import study
from cubeopt.search.study import StudySpec
from cubeopt.settings import Settings
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import CubeShape, TrialSpec

_ROUNDS = 5  # in each of which every shape trains an epoch


def collect(
    engine: Engine, settings: Settings, name: str, tell: Callable[[str], None]
) -> tuple[Curves, int]:
    """The table of the study called *name*, and how many of its trials it leaves out.

    Those failed, or were not at their end when a person stopped the study. Epochs are timed here,
    in one thread, a trial alone. Raises StudyError for a study that prunes, StateError for one that
    still runs.
    """
    record = records.study(engine, name)
    spec = study.parse(record.spec, f"study {name}")
    _check(spec)
    folder = settings.dataset_dir(record.dataset)
    runs = [run for run in records.runs(engine, record.id) if run.kind == RunKind.SHORT]
    if record.state not in (StudyState.COMPLETE, StudyState.STOPPED):
        raise StateError(
            f"study {name!r} is {record.state}; let a worker bring it to its end, or stop it and "
            "take the trials that are at theirs"
        )
    params = {each.number: each.params for each in records.trials(engine, record.id)}
    values: dict[int, dict[int, float | None]] = {}
    for epoch in records.epochs(engine, record.id):
        values.setdefault(epoch.trial_number, {})[epoch.epoch] = epoch.value
    usable = [run for run in runs if _whole(run, spec)]
    if not usable:
        raise StateError(f"study {name!r} has no trial that is at its end")
    shapes = {run.trial_number: trial.from_flat(run.spec).shape for run in usable}
    seconds = _epoch_seconds(spec, sorted(set(shapes.values()), key=str), folder, tell)
    rows = tuple(
        Curve(
            params[run.trial_number],
            tuple(_value(values[run.trial_number].get(e + 1)) for e in range(spec.full_epochs)),
            seconds[shapes[run.trial_number]],
        )
        for run in usable
    )
    return Curves(spec, rows, _facts(record, name)), len(runs) - len(usable)


def _check(spec: StudySpec) -> None:
    where = f"study {spec.name}"
    if spec.rungs.rule != "none" or spec.short_epochs != spec.full_epochs:
        raise StudyError(
            f"{where}: a table needs every curve to its end; give it rungs: "
            f"{{epochs: [{spec.full_epochs}], rule: none}}"
        )
    if spec.base_trial.plan.validation_interval != 1:
        raise StudyError(f"{where}: a table needs every epoch; give it validation_interval: 1")
    if spec.conditional:
        raise StudyError(f"{where}: a table needs points that all have the same values, no `when`")


def _whole(run: RunRecord, spec: StudySpec) -> bool:
    """Whether it came to its last epoch, or diverged."""
    if run.state == RunState.COMPLETE:
        return run.epoch == spec.full_epochs
    return run.end_class == EndClass.DIVERGED


def _value(value: float | None) -> float:
    return math.nan if value is None else value


def _facts(record: Any, name: str) -> dict[str, Any]:
    return {
        "command": f"cubeopt bench curves {name}",
        "study": f"studies/{name}.yaml",
        "state": str(record.state),
        "dataset": record.dataset,
        "dataset_fingerprint": record.dataset_fingerprint,
        "metric": record.metric,
        "code_version": record.code_version,
        "torch_version": torch.__version__,
        "epoch_seconds": f"CPU time of an epoch with its validation, median of {_ROUNDS}, one "
        "thread, a trial alone",
        **provenance.hardware(),
    }


def _epoch_seconds(
    spec: StudySpec, shapes: Sequence[CubeShape], folder: Path, tell: Callable[[str], None]
) -> Mapping[CubeShape, float]:
    """By shape; CPU time, which other work on the machine changes little."""
    device = torch.device("cpu")
    base = spec.base_trial
    loaded = dataset.load(folder)
    feed = Feed(loaded, base.plan.task, device)
    cases = {}
    for shape in shapes:
        one = TrialSpec(shape=shape, cube=base.cube, loss=base.loss, optim=base.optim)
        cases[str(shape)] = _epoch(one, feed)
    tell(f"timing an epoch of {len(shapes)} shapes")
    found = times(cases, device, _ROUNDS)
    return {shape: float(np.median(found[str(shape)])) / 1e3 for shape in shapes}


def _epoch(spec: TrialSpec, feed: Feed) -> Callable[[], object]:
    """Trains the next epoch of an endless training."""
    run = PackRun(spec.shape, 1, feed)
    plan = spec.plan.model_copy(update={"epochs": 1_000_000})
    run.fill(0, run.fresh(spec.model_copy(update={"plan": plan})))

    def train() -> None:
        while not run.step():
            pass

    return train
