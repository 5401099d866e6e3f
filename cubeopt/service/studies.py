"""Create a study: check its data, compute its baselines, write it to both sets of tables."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cubeopt import provenance
from cubeopt.data import baselines, dataset
from cubeopt.data.dataset import Dataset
from cubeopt.db import orders, outcomes, records
from cubeopt.db.engine import Engine, optuna_url
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import RunKind, RunState, StudyState
from cubeopt.errors import DataError, StateError, StudyError, UnknownNameError
from cubeopt.lattice import geometry
from cubeopt.search import mirror, samplers, space, study, wish
from cubeopt.search.study import StudySpec
from cubeopt.service import teaching
from cubeopt.service.teaching import Taught
from cubeopt.settings import Settings
from cubeopt.training.feed import check_rows

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0  # for workers that shall give back the runs of a study to be deleted


def create_once(
    engine: Engine, settings: Settings, spec: StudySpec, sources: Sequence[str] = ()
) -> tuple[StudyRecord, bool, list[Taught]]:
    """Create *spec*, taught by the studies *sources*, unless it is there, made from an equal file.

    The study, whether it was made now, and by what it is taught. Any number may do so at once.
    """
    found = existing(engine, spec)
    if found is not None:
        return found, False, []
    taught_by = teaching.taught(engine, spec, sources)
    try:
        return create(engine, settings, spec, taught_by), True, taught_by
    except StudyError:
        found = existing(engine, spec)
        if found is None:
            raise
        return found, False, []


def create(
    engine: Engine, settings: Settings, spec: StudySpec, taught_by: Sequence[Taught] = ()
) -> StudyRecord:
    """Write *spec* to the storage, with its dataset's fingerprint and baselines.

    Its sampler is taught by the trials of *taught_by*, which have to be of the same data.
    """
    base = spec.base_trial
    samplers.check_installed(spec.sampler)
    check_shapes(spec)
    loaded = dataset.load(settings.dataset_dir(base.plan.dataset))
    if loaded.embeddings.shape[1] != base.shape.embedding_size:
        raise DataError(
            f"study {spec.name}: embedding_size is {base.shape.embedding_size}, but the dataset "
            f"{loaded.folder} has embeddings of {loaded.embeddings.shape[1]}"
        )
    check_rows(loaded, base.plan.task)
    for each in taught_by:
        each.check_data(spec.name, loaded.fingerprint)
    with mirror.translated():
        mirror.check_free(optuna_url(engine), spec.name)
    record = records.create_study(
        engine,
        name=spec.name,
        spec=content(spec),
        direction=spec.objective.direction,
        metric=spec.objective.metric,
        dataset=base.plan.dataset,
        dataset_fingerprint=loaded.fingerprint,
        dataset_rows=loaded.counts(base.plan.task),
        baselines=_baselines(loaded, spec),
        code_version=provenance.code_version(),
        taught_by=[prior for each in taught_by for prior in each.priors],
    )
    with mirror.translated():
        mirror.create(optuna_url(engine), spec)
    return record


def content(spec: StudySpec) -> dict[str, Any]:
    """The file of a study as the storage has it."""
    return spec.model_dump(mode="json", exclude_none=True)


def existing(engine: Engine, spec: StudySpec) -> StudyRecord | None:
    """The study of this name if it was made from an equal file; StudyError if from another."""
    try:
        record = records.study(engine, spec.name)
    except UnknownNameError:
        return None
    if study.parse(record.spec, f"study {spec.name}") != spec:
        raise StudyError(
            f"a study {spec.name!r} exists already and was created from another file; "
            "give this one another name with --name"
        )
    return record


def delete(engine: Engine, settings: Settings, name: str) -> dict[str, Any]:
    """Remove the study called *name*, its rows and its checkpoints; what that was.

    A deletion that was interrupted is finished by the next.
    """
    _wait_for_workers(engine, name)
    try:
        rows = asdict(orders.delete(engine, name))
    except UnknownNameError:
        rows = {}
    with mirror.translated():
        shown = mirror.remove(optuna_url(engine), name)
    folder = settings.checkpoints_dir / name
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if not rows and not shown:
        records.study(engine, name)
    if folder.exists():
        shutil.rmtree(folder)
    return {"study": name, **rows, "checkpoints": str(folder), "checkpoint_bytes": size}


def _wait_for_workers(engine: Engine, name: str) -> None:
    """Those that train a study just stopped give its runs back first, or would write once more."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while any(
        records.counts(engine, each.id, kind)[RunState.RUNNING]
        for each in records.studies(engine)
        if each.name == name and each.state != StudyState.RUNNING
        for kind in RunKind
    ):
        if time.monotonic() > deadline:
            logger.warning("study %s is deleted under workers that do not answer", name)
            return
        time.sleep(0.1)


def enqueue(engine: Engine, name: str, values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Have *values* tried next in the study called *name*; the trial's number and its values."""
    record = records.study(engine, name)
    spec = study.parse(record.spec, f"study {name}")
    params = wish.checked(spec, values)
    waiting = outcomes.wishes(engine, record.id)
    asked = sum(records.counts(engine, record.id).values()) + len(waiting)
    if record.state not in (StudyState.RUNNING, StudyState.PAUSED):
        raise StateError(f"study {name!r} is {record.state}; only one that runs takes a trial")
    trials = spec.trials()
    if trials is not None and asked >= trials:
        raise StateError(f"study {name!r} has asked for all of its {trials} trials")
    return outcomes.wish(engine, record.id, params), params


def _baselines(loaded: Dataset, spec: StudySpec) -> dict[str, Any]:
    """In the study's metrics; none where one says nothing of a predictor without a cube.

    Those in the second of two stand under "second".
    """
    found = _baseline(loaded, spec, spec.objective.metric)
    if spec.objective.second is not None:
        found["second"] = _baseline(loaded, spec, spec.objective.second)
    return found


def _baseline(loaded: Dataset, spec: StudySpec, metric: str) -> dict[str, Any]:
    base = spec.base_trial
    if metric not in baselines.METRICS:
        return {}
    return asdict(baselines.baselines(loaded, base.plan.task, base.shape.face_cells, metric))


def check_shapes(spec: StudySpec) -> None:
    """Every shape the search can reach has a lattice that can be wired."""
    names = set(spec.search) & set(type(spec.base_trial.shape).model_fields)
    corners = space.corners(spec.search, names)
    shapes = {spec.base_trial.shape, *(spec.trial(corner, 0).shape for corner in corners)}
    for shape in shapes:
        geometry.geometry(shape)
