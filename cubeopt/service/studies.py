"""Create a study: check its data, compute its baselines, write it to both sets of tables."""

from dataclasses import asdict
from typing import Any

from cubeopt import provenance
from cubeopt.data import baselines, dataset
from cubeopt.data.dataset import Dataset
from cubeopt.db import records
from cubeopt.db.engine import Engine, optuna_url
from cubeopt.db.records import StudyRecord
from cubeopt.errors import DataError, StudyError, UnknownNameError
from cubeopt.lattice import geometry
from cubeopt.search import mirror, samplers, space, study
from cubeopt.search.study import StudySpec
from cubeopt.settings import Settings
from cubeopt.training.feed import check_rows


def create(engine: Engine, settings: Settings, spec: StudySpec) -> StudyRecord:
    """Write *spec* to the storage, with its dataset's fingerprint and baselines."""
    base = spec.base_trial
    samplers.check_installed(spec.sampler)
    _check_shapes(spec)
    loaded = dataset.load(settings.dataset_dir(base.plan.dataset))
    if loaded.embeddings.shape[1] != base.shape.embedding_size:
        raise DataError(
            f"study {spec.name}: embedding_size is {base.shape.embedding_size}, but the dataset "
            f"{loaded.folder} has embeddings of {loaded.embeddings.shape[1]}"
        )
    check_rows(loaded, base.plan.task)
    with mirror.translated():
        mirror.check_free(optuna_url(engine), spec.name)
    record = records.create_study(
        engine,
        name=spec.name,
        spec=spec.model_dump(mode="json", exclude_none=True),
        direction=spec.objective.direction,
        metric=spec.objective.metric,
        dataset=base.plan.dataset,
        dataset_fingerprint=loaded.fingerprint,
        dataset_rows=loaded.counts(base.plan.task),
        baselines=_baselines(loaded, spec),
        code_version=provenance.code_version(),
    )
    with mirror.translated():
        mirror.create(optuna_url(engine), spec)
    return record


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


def _baselines(loaded: Dataset, spec: StudySpec) -> dict[str, Any]:
    """In the study's metric; none where it says nothing of a predictor without a cube."""
    base, metric = spec.base_trial, spec.objective.metric
    if metric not in baselines.METRICS:
        return {}
    return asdict(baselines.baselines(loaded, base.plan.task, base.shape.face_cells, metric))


def _check_shapes(spec: StudySpec) -> None:
    """Every shape the search can reach has a lattice that can be wired."""
    names = set(spec.search) & set(type(spec.base_trial.shape).model_fields)
    corners = space.corners(spec.search, names)
    shapes = {spec.base_trial.shape, *(spec.trial(corner, 0).shape for corner in corners)}
    for shape in shapes:
        geometry.geometry(shape)
