"""A study that exists gets another file: what may change, and what becomes of its trials."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cubeopt.db import outcomes, records, revisions
from cubeopt.db.engine import Engine
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import RunState
from cubeopt.errors import StudyError
from cubeopt.search import memory, samplers, study
from cubeopt.search.inheritance import Room
from cubeopt.search.samplers import Grid
from cubeopt.search.study import StudySpec
from cubeopt.service import studies

_REVISED = ("search", "sampler", "promotion", "budget")


@dataclass(frozen=True)
class Revised:
    """What a revision did."""

    study: str
    changed: list[str]  # sections of the file; none: it was like this already
    state_before: str
    state: str
    trials: int | None  # there will be; None: until a budget is spent
    fitting: int  # trials asked for before, that teach the sampler still
    outside: int  # that do not, but stay in all else
    waiting_outside: list[int]  # of these the numbers of those that wait; they will be trained


def revise(engine: Engine, spec: StudySpec) -> Revised:
    """Give the study of this name the file *spec*; StudyError where it may not differ."""
    record = records.study(engine, spec.name)
    before = study.stored(record.spec)
    _check_kept(before, spec)
    changed = [name for name in _REVISED if getattr(before, name) != getattr(spec, name)]
    if {"search", "sampler"} & set(changed):
        _check_drawn(spec)
    if changed:
        _write(engine, record, spec, "promotion" in changed)
    return _told(engine, record, spec, changed)


def _write(engine: Engine, record: StudyRecord, spec: StudySpec, promotes: bool) -> None:
    content = studies.content(spec)
    if not revisions.revise(engine, record.id, record.spec, content, spec.trials(), promotes):
        raise StudyError(
            f"study {spec.name} was changed or deleted meanwhile; look at it again with: cubeopt "
            f"study show {spec.name}"
        )


def _told(engine: Engine, record: StudyRecord, spec: StudySpec, changed: list[str]) -> Revised:
    room = Room(spec)
    files = [each.spec for each in revisions.read(engine, record.id)]
    newest = study.redrawn([*files, studies.content(spec)])
    # A coordinator may have asked for others already.
    known = [
        each
        for each in outcomes.read(engine, record.id)
        if each.notes.get(memory.REVISION, 0) < newest
    ]
    out = [each for each in known if room.point(room.values(each.params, each.number)) is None]
    return Revised(
        study=spec.name,
        changed=changed,
        state_before=str(record.state),
        state=str(records.study(engine, spec.name).state),
        trials=spec.trials(),
        fitting=len(known) - len(out),
        outside=len(out),
        waiting_outside=[each.number for each in out if each.state == RunState.WAITING],
    )


def _check_drawn(spec: StudySpec) -> None:
    """What `study create` asks of a space and a sampler, too."""
    samplers.check_installed(spec.sampler)
    studies.check_shapes(spec)
    if isinstance(spec.sampler, Grid):
        raise StudyError(
            f"study {spec.name}: a grid is tried whole, so neither its search nor its points can "
            "be revised, and no study becomes one; create another with --name"
        )


def _check_kept(before: StudySpec, after: StudySpec) -> None:
    """All that decides what a result means stays as it was."""
    for key, old, new in _kept(before, after):
        if old != new:
            raise StudyError(
                f"study {after.name}: {key} cannot be revised: it is {old!r}, the file says "
                f"{new!r}; what can be are {', '.join(_REVISED[:-1])} and {_REVISED[-1]}. For "
                f"another study: cubeopt study create FILE --name NAME --from {after.name}"
            )


def _kept(before: StudySpec, after: StudySpec) -> Iterator[tuple[str, Any, Any]]:
    old, new = _base(before), _base(after)
    for name in old:
        yield f"base.{name}", old[name], new[name]
    for section in ("objective", "rungs"):
        olds = getattr(before, section).model_dump(mode="json")
        news = getattr(after, section).model_dump(mode="json")
        for name in olds:
            yield f"{section}.{name}", olds[name], news[name]
    yield "constraints", [*map(str, before.constraints)], [*map(str, after.constraints)]
    yield "code", before.code, after.code


def _base(spec: StudySpec) -> dict[str, Any]:
    seed = {} if "seed" in spec.base else {"seed": "the number of the trial"}
    return {**spec.base_trial.flat(), **seed}
