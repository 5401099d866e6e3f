"""Trainings as plain rows: every number that each epoch of a run recorded, and what it shows.

A *track* is one training from its first epoch on: a trial's short run and the full run that goes on
where it ended; or a full run with another seed, which starts anew.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cubeopt.db import courses, measures, records
from cubeopt.db.courses import Course, Epoch
from cubeopt.db.engine import Engine
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import RunKind
from cubeopt.errors import ConfigError
from cubeopt.report import ranking
from cubeopt.search import objective
from cubeopt.search.objective import finite
from cubeopt.search.study import Rungs
from cubeopt.training.diagnosis import diagnose

MOST = 12  # tracks beside each other: more lines than that nobody tells apart
_FOLLOWED = 6  # of those that are trained now, when nobody has chosen
_KEY = re.compile(r"(\d{1,9})(?:(s)|(f)(\d{0,6}))?", re.ASCII)
_BASELINES = {"mean": "predict the mean", "identity": "copy the input", "pca": "PCA"}


@dataclass(frozen=True)
class Choice:
    """What a person wants to see: a trial whole, its short run, or a full run of it."""

    trial: int
    kind: RunKind | None = None  # None: the short run, and the full one that goes on with it
    replicate: int = 0

    @property
    def key(self) -> str:
        if self.kind is None:
            return str(self.trial)
        return f"{self.trial}s" if self.kind is RunKind.SHORT else f"{self.trial}f{self._nth}"

    @property
    def _nth(self) -> str:
        return str(self.replicate) if self.replicate else ""

    def takes(self, course: Course) -> bool:
        """Whether *course* belongs to it."""
        same = (course.trial, course.replicate) == (self.trial, self.replicate)
        return same and self.kind in (None, course.kind)


@dataclass(frozen=True)
class Sign:
    """A finding of `training.diagnosis` in one of the tracks; *number* stands beside its mark."""

    number: int
    track: str
    label: str
    kind: str
    subject: str
    first: int
    last: int
    sentence: str


@dataclass(frozen=True)
class Track:
    """One training, epoch by epoch; what a list has for an epoch without the number is None."""

    key: str
    label: str
    trial: int
    seed: int | None
    state: str
    epoch: int
    target_epochs: int
    worker: str | None
    width: int | None
    promoted_after: int | None  # the last epoch of the short run, where a full one goes on
    value: float | None  # of the study's metric, at the last validation
    best: float | None  # over the validations
    best_epoch: int | None
    epochs: list[int]
    metrics: dict[str, list[float | None]]
    signs: list[Sign]

    def has(self, name: str) -> bool:
        """Whether any epoch has a number called *name*."""
        return any(value is not None for value in self.metrics.get(name, ()))

    def last(self, name: str) -> float | None:
        """The newest number called *name*."""
        return next((v for v in reversed(self.metrics.get(name, [])) if v is not None), None)


@dataclass(frozen=True)
class Trainings:
    """Some trainings of a study, to be looked at together."""

    study: str
    state: str
    metric: str
    direction: str
    baselines: dict[str, float]
    rungs: list[int]
    chosen_by: str  # "you", or why these are shown
    tracks: list[Track]
    missing: list[str]  # what was asked for and is not there, each a sentence

    @property
    def signs(self) -> list[Sign]:
        return [sign for track in self.tracks for sign in track.signs]

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


def parse(text: str) -> list[Choice]:
    """*text* as a list of choices: "3,17f,17f1" are trial 3, the full run of 17 and its next seed.

    "3s" is the short run alone. Raises ConfigError of anything else, and of more than `MOST`.
    """
    found = []
    for word in filter(None, (each.strip() for each in text.split(","))):
        match = _KEY.fullmatch(word)
        if match is None:
            raise ConfigError(
                f"runs names {word!r}; a run is a trial's number as in 3, with s for its short run "
                "alone, f for its full run, f1 for its next seed"
            )
        kind = RunKind.SHORT if match[2] else RunKind.FULL if match[3] else None
        found.append(Choice(int(match[1]), kind, int(match[4] or 0)))
    found = list(dict.fromkeys(found))
    if len(found) > MOST:
        raise ConfigError(f"runs names {len(found)} of them; at most {MOST} can be told apart")
    return found


def load(engine: Engine, name: str, chosen: Sequence[Choice] = ()) -> Trainings:
    """The trainings *chosen* of the study called *name*.

    Without a choice those that are trained now, else the best. UnknownNameError without the study.
    """
    study = records.study(engine, name)
    by = "you"
    if not chosen:
        chosen, by = _default(engine, study)
    runs = courses.of_trials(engine, study.id, sorted({each.trial for each in chosen}))
    taken = {each: [run for run in runs if each.takes(run)] for each in chosen}
    held = [run.run_id for each in taken.values() for run in each]
    recorded: dict[int, list[Epoch]] = defaultdict(list)
    for epoch in courses.epochs(engine, sorted(set(held))):
        recorded[epoch.run_id].append(epoch)
    tracks = [_track(study, each, its, recorded) for each, its in taken.items() if its]
    return Trainings(
        study=study.name,
        state=str(study.state),
        metric=study.metric,
        direction=study.direction,
        baselines=_baselines(study.baselines),
        rungs=list(Rungs.model_validate(study.spec.get("rungs", {})).epochs),
        chosen_by=by,
        tracks=numbered(tracks),
        missing=[_missing(each, runs) for each, its in taken.items() if not its],
    )


def watched(chosen: Sequence[Choice]) -> list[int] | None:
    """The trials by which `courses.mark` knows that *chosen* has something new."""
    return sorted({each.trial for each in chosen}) or None


def numbered(tracks: Iterable[Track]) -> list[Track]:
    """*tracks* with their signs counted through from 1."""
    count, found = 0, []
    for track in tracks:
        signs = [replace(sign, number=count + nth) for nth, sign in enumerate(track.signs, 1)]
        count += len(signs)
        found.append(replace(track, signs=signs))
    return found


def choice_of(course: Course) -> Choice:
    """The whole training that *course* is, or is a part of."""
    if course.replicate:
        return Choice(course.trial, course.kind, course.replicate)
    return Choice(course.trial)


def label(choice: Choice, seed: int | None = None) -> str:
    """*choice* in words."""
    words = f"trial {choice.trial}"
    if choice.replicate:
        return f"{words}, seed {seed if seed is not None else f'+{choice.replicate}'}"
    return words if choice.kind is None else f"{words}, {choice.kind} run"


def options(engine: Engine, name: str, beginning: str, limit: int) -> dict[str, Any]:
    """What can be chosen: trials whose number begins with *beginning*, running first, then best.

    Raises ConfigError when *beginning* is no number.
    """
    if beginning and not re.fullmatch(r"[0-9]{1,9}", beginning):
        raise ConfigError(f"find is {beginning!r}; it takes the beginning of a trial's number")
    study = records.study(engine, name)
    maximize = study.direction == "maximize"
    found = courses.search(engine, study.id, beginning, limit, maximize)
    return {
        "metric": study.metric,
        "count": found.count,
        "options": [
            {
                "key": choice_of(each).key,
                "label": label(choice_of(each), each.seed),
                "kind": str(each.kind),
                "state": str(each.state),
                "epoch": each.epoch,
                "target_epochs": each.target_epochs,
                "value": finite(each.value),
            }
            for each in found.courses
        ],
    }


def _default(engine: Engine, study: StudyRecord) -> tuple[list[Choice], str]:
    """What to look at when nobody has said, and why."""
    running = courses.running(engine, study.id, _FOLLOWED)
    if running:
        return list(dict.fromkeys(map(choice_of, running))), "training now"
    goal = objective.goal_of(study.spec)
    trials, runs = records.trials(engine, study.id), records.runs(engine, study.id)
    measured = measures.last(engine, study.id, goal.keys)
    if goal.objective.second is not None:
        front = ranking.front(goal, trials, runs, measured)
        return [Choice(each.trial) for each in front[:_FOLLOWED]], "on the front"
    best = ranking.best(goal, trials, runs, measured)
    if best is not None:
        return [Choice(best.trial)], "the best so far"
    found = courses.search(engine, study.id, "", 1, study.direction == "maximize").courses
    begun = [choice_of(each) for each in found if each.epoch]
    return begun, "no trial has a result yet" if begun else "nothing has been trained yet"


def _track(
    study: StudyRecord,
    choice: Choice,
    runs: Sequence[Course],
    recorded: Mapping[int, Sequence[Epoch]],
) -> Track:
    newest = runs[-1]
    rows = {epoch.epoch: epoch.metrics for run in runs for epoch in recorded.get(run.run_id, ())}
    epochs = sorted(rows)
    names = dict.fromkeys(name for epoch in epochs for name in rows[epoch])
    metrics = {name: [finite(rows[epoch].get(name)) for epoch in epochs] for name in names}
    found = label(choice, newest.seed)
    validated = {
        epoch: value
        for epoch, value in zip(epochs, metrics.get(f"validation/{study.metric}", ()), strict=False)
        if value is not None
    }
    pick = max if study.direction == "maximize" else min
    best = pick(validated, key=lambda epoch: validated[epoch], default=None)
    promoted = len(runs) > 1 and runs[0].kind is RunKind.SHORT
    return Track(
        key=choice.key,
        label=found,
        trial=choice.trial,
        seed=newest.seed,
        state=str(newest.state),
        epoch=newest.epoch,
        target_epochs=newest.target_epochs,
        worker=newest.worker,
        width=newest.width,
        promoted_after=runs[0].epoch if promoted else None,
        value=validated[max(validated)] if validated else None,
        best=None if best is None else validated[best],
        best_epoch=best,
        epochs=epochs,
        metrics=metrics,
        signs=_signs(choice.key, found, [{"epoch": e, **rows[e]} for e in epochs]),
    )


def _signs(key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> list[Sign]:
    return [
        Sign(0, key, label, str(each.kind), each.subject, each.first, each.last, each.sentence)
        for each in diagnose(rows)
    ]


def _baselines(found: Mapping[str, Any]) -> dict[str, float]:
    """What a training has to be better than, by its name, as far as it was measured."""
    width = found.get("pca_width")
    return {
        f"{words} with {width} components" if name == "pca" and width else words: value
        for name, words in _BASELINES.items()
        if (value := finite(found.get(name))) is not None
    }


def _missing(choice: Choice, runs: Sequence[Course]) -> str:
    if any(run.trial == choice.trial for run in runs):
        return f"{label(choice)}: there is no such run; the trial was not promoted to it"
    return f"there is no trial {choice.trial} in this study"
