"""A study file: read it strictly, turn a point of its space into a TrialSpec."""

import functools
import graphlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field, ValidationError, model_validator

from cubeopt import trial
from cubeopt.errors import ConfigError, StudyError
from cubeopt.search import configuration, objective, samplers, space
from cubeopt.search.objective import Constraints, Goal, Objective
from cubeopt.search.samplers import Cmaes, Grid, Mfgp, Sampler, Tpe
from cubeopt.search.space import Point, Range, Section
from cubeopt.trial import TrialSpec

# What becomes of a worker whose code is not that which the study was created with: it says so,
# is refused, or neither.
Code = Literal["warn", "strict", "ignore"]
_NEVER_SEARCHED = frozenset(
    {
        *("dataset", "task", "epochs", "embedding_size", "data_seed"),
        *("save_checkpoint_every", "log_interval", "validation_interval"),
    }
)
_MOST = 1_000_000_000  # of anything a budget counts; what is beyond it is a slip of the pen
_SAMPLER_PATH = re.compile(rf"^sampler\.({'|'.join(samplers.NAMES)})\b")


class Rungs(Section):
    """At which epochs trials are compared, and what share goes on; the last one ends the trial.

    *patience*: a trial is cut at the first rung where it fails the rule's test after having failed
    it at each of the *patience* rungs before; 0 cuts at the first failure.
    """

    epochs: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] = (1, 2, 5)
    rule: Literal["asha", "median", "none"] = "asha"
    reduction_factor: Annotated[float, Field(gt=1.0)] = 3.0  # asha: one in so many goes on
    min_trials: Annotated[int, Field(ge=1)] = 1  # results at a rung, from which on it may cut
    patience: Annotated[int, Field(ge=0)] = 0  # failed tests in a row that are forgiven

    @model_validator(mode="after")
    def _check(self) -> "Rungs":
        if self.epochs[0] < 1 or list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"epochs must rise and start at 1 or more, got {list(self.epochs)}")
        compared = len(self.epochs) - 1
        if self.patience and self.patience >= compared:
            raise ValueError(
                f"patience {self.patience} would cut nobody: trials are compared at {compared} "
                "rungs, all but the last; give more epochs, or less patience"
            )
        return self


class Promotion(Section):
    """Which completed trials are carried on to the full run, and over how many seeds.

    *top*: so many of the best, when all short runs have ended; the default is 1.
    *reduction_factor*: one in so many, as the results come: of n completed trials the best
    floor(n / reduction_factor) are promoted unless they were before, and nobody waits (the
    promotion of asynchronous successive halving, Li et al. 2018, algorithm 2).
    *seeds*: full runs of each promoted trial. The first has the trial's own seed and goes on from
    its checkpoint; the others have the seeds that follow it and begin at nothing.
    """

    top: Annotated[int, Field(ge=0)] | None = None
    reduction_factor: Annotated[float, Field(gt=1.0)] | None = None
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="before")
    @classmethod
    def _one_rule(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        top, factor = given.get("top"), given.get("reduction_factor")
        if top is not None and factor is not None:
            raise ValueError(
                f"top ({top}) waits for all trials, reduction_factor ({factor}) promotes as "
                "results come; give one of them"
            )
        return {**given, "top": 1} if top is None and factor is None else given


class Budget(Section):
    """Where the study ends: at the first of these that is spent. What counts:

    *trials*: all that were asked for. *epochs*: all that were recorded, of short and full runs.
    *hours*: the time in the state 'running' since the first run was claimed; not while the study is
    paused, stopped or failed. *device_hours*: the time that workers held runs of it, each worker's
    once however many runs there are in its pack.
    """

    trials: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    epochs: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    hours: Annotated[float, Field(gt=0.0, le=_MOST)] | None = None
    device_hours: Annotated[float, Field(gt=0.0, le=_MOST)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Budget":
        if all(value is None for value in self.model_dump().values()):
            raise ValueError(
                "a study needs an end; give at least one of trials, epochs, hours and device_hours"
            )
        return self


class StudySpec(Section):
    """What a YAML file in studies/ says."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    base: dict[str, Any] = Field(default_factory=dict)
    search: Annotated[dict[str, Range], Field(min_length=1)]
    objective: Objective = Objective()
    constraints: Constraints = ()
    sampler: Sampler = Tpe()
    rungs: Rungs = Rungs()
    promotion: Promotion = Promotion()
    budget: Budget = Budget(trials=20)
    code: Code = "warn"

    @property
    def base_trial(self) -> TrialSpec:
        return trial.from_flat(self.base, f"study {self.name}: base")

    @property
    def goal(self) -> Goal:
        return Goal(self.objective, self.constraints)

    @property
    def full_epochs(self) -> int:
        return self.base_trial.plan.epochs

    @property
    def short_epochs(self) -> int:
        return self.rungs.epochs[-1]

    @property
    def conditional(self) -> bool:
        """Whether some trials have values that others lack."""
        return any(each.when for each in self.search.values())

    def distributions(self) -> dict[str, BaseDistribution]:
        # The type of the value decides, not how its ends are written: 0 to 1 may be a weight.
        values = self.base_trial.flat()
        return {
            name: searched.distribution(whole=isinstance(values[name], int))
            for name, searched in self.search.items()
        }

    def points(self) -> list[Point] | None:
        """Every point of the space, or of the grid over it; None when they cannot be listed."""
        values = {name: self._values(name, each) for name, each in self.distributions().items()}
        found = {name: some for name, some in values.items() if some is not None}
        return space.listed(self.search, found) if len(found) == len(values) else None

    def trials(self) -> int | None:
        """How many trials the study has at most: its budget, or the whole grid if that is less.

        None where another budget ends it.
        """
        if not isinstance(self.sampler, Grid):
            return self.budget.trials
        points = len(self.points() or ())
        return points if self.budget.trials is None else min(self.budget.trials, points)

    def _values(self, name: str, distribution: BaseDistribution) -> list[Any] | None:
        if isinstance(self.sampler, Grid) and name in self.sampler.points:
            return space.spaced(distribution, self.sampler.points[name])
        return space.every_value(distribution)

    def trial(self, params: Mapping[str, Any], number: int) -> TrialSpec:
        """The base with *params* put in, which may be some of those searched.

        Unless searched or set, the seed is the trial's number.
        """
        values = dict(params)
        if "seed" not in values and "seed" not in self.base:
            values["seed"] = number
        return self.base_trial.with_values(values)


def load(path: Path, name: str | None = None) -> StudySpec:
    """Read a study file; *name* replaces the one in the file.

    Raises StudyError naming the file, the key and the rule.
    """
    content = configuration.read_mapping(path)
    if name is not None:
        content["name"] = name
    return parse(content, str(path))


def stored(content: Mapping[str, Any]) -> StudySpec:
    """The study whose file stands in the storage, checked when it was created; cheap when asked
    for again.
    """
    return _stored(json.dumps(content, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _stored(content: str) -> StudySpec:
    return parse(json.loads(content), "study")


def parse(content: Mapping[str, Any], where: str) -> StudySpec:
    """Check *content*, the mapping of a study file; *where* names it in an error."""
    try:
        spec = StudySpec.model_validate(content)
    except ValidationError as error:
        # The path of an error goes through the name of the sampler; the file's does not.
        problem = _SAMPLER_PATH.sub("sampler", trial.first_problem(error))
        raise StudyError(f"{where}: {problem}{_hint(error)}") from error
    try:
        base = trial.from_flat(spec.base, f"{where}: base")
        _check_search(spec, base, where)
        _check_constraints(spec, base, where)
        _check_sampler(spec, where)
    except StudyError:
        raise
    except ConfigError as error:
        raise StudyError(str(error)) from error
    if spec.short_epochs > spec.full_epochs:
        raise StudyError(
            f"{where}: rungs.epochs ends at {spec.short_epochs}, but the full run (base.epochs) "
            f"has only {spec.full_epochs}"
        )
    interval = base.plan.validation_interval
    if any(epoch % interval for epoch in spec.rungs.epochs):
        raise StudyError(
            f"{where}: rungs.epochs {list(spec.rungs.epochs)} must be multiples of "
            f"base.validation_interval ({interval}): a rung compares validation results"
        )
    return spec


def redrawn(files: Sequence[Mapping[str, Any]]) -> int:
    """How often the space or the sampler changed over the *files* of a study, the oldest first."""
    parts = [(each["search"], each.get("sampler")) for each in files]
    return sum(one != other for one, other in itertools.pairwise(parts))


def planned(content: Mapping[str, Any]) -> int | None:
    """How many trials a study in the storage has at most, as `StudySpec.trials`.

    *content* is its file, checked before.
    """
    if content.get("sampler", {}).get("name") == "grid":
        return parse(content, f"study {content['name']}").trials()
    trials = content.get("budget", {}).get("trials")
    return None if trials is None else int(trials)


def _check_search(spec: StudySpec, base: TrialSpec, where: str) -> None:
    """Each searched name exists and may be searched; its ends, alone and in pairs, are valid.

    Pairs, since a rule of TrialSpec ties at most two values together.
    """
    known = trial.value_names() - _NEVER_SEARCHED
    for name in spec.search:
        if name in _NEVER_SEARCHED:
            raise StudyError(
                f"{where}: search.{name}: {name} is one for the whole study; set it in base"
            )
        if name not in known:
            raise StudyError(
                f"{where}: search: unknown key {name!r}{trial.did_you_mean(name, known)}"
            )
    _check_conditions(spec.search, where)
    for name in spec.search:
        if not any(name in point for point in space.corners(spec.search, [name])):
            raise StudyError(f"{where}: search.{name}.when: no trial can meet this condition")
    singles = [(name,) for name in spec.search]
    for names in [*singles, *itertools.combinations(spec.search, 2)]:
        for point in space.corners(spec.search, names):
            if set(names) <= set(point):
                _check_point(base, names, point, where)


def _check_conditions(search: space.Search, where: str) -> None:
    """A condition names searched choices, some of them, and no two wait for each other."""
    for name, searched in search.items():
        for parent, some in searched.when.items():
            at = f"{where}: search.{name}.when"
            if parent not in search:
                hint = trial.did_you_mean(parent, search)
                raise StudyError(f"{at}: {parent!r} is not searched{hint}")
            choices = search[parent].choices
            if choices is None:
                raise StudyError(f"{at}: {parent} is an interval; a condition needs choices")
            for value in some:
                if value not in choices:
                    raise StudyError(
                        f"{at}.{parent}: {value!r} is not among the choices {list(choices)}"
                    )
    try:
        space.ordered(search)
    except graphlib.CycleError as error:
        cycle = " needs ".join(reversed(error.args[1]))
        raise StudyError(f"{where}: search: conditions go in a circle: {cycle}") from error


def _check_point(base: TrialSpec, names: Sequence[str], point: Point, where: str) -> None:
    """A *point*, the values of *names* and what they need, makes a trial."""
    try:
        base.with_values(point)
    except ConfigError as error:
        said = " with ".join(f"search.{name}" for name in names)
        reason = str(error).removeprefix("configuration: ").removeprefix(f"{names[0]}: ")
        raise StudyError(f"{where}: {said}: {reason}") from error


def _check_constraints(spec: StudySpec, base: TrialSpec, where: str) -> None:
    """Each names what trials are measured by, and some trial can meet them all."""
    known = objective.reported(base, spec.search)
    for each in spec.constraints:
        if each.name not in known:
            hint = trial.did_you_mean(each.name, known) or f"; there are {', '.join(sorted(known))}"
            raise StudyError(f"{where}: constraints: no metric is called {each.name!r}{hint}")
    conflict = objective.contradiction(spec.constraints)
    if conflict is not None:
        raise StudyError(f"{where}: constraints: {conflict}")


def _check_sampler(spec: StudySpec, where: str) -> None:
    """What a sampler asks of the objective and of the space."""
    if isinstance(spec.sampler, Cmaes | Mfgp) and spec.objective.second is not None:
        raise StudyError(
            f"{where}: sampler {spec.sampler.name} takes one objective, not two "
            f"({' and '.join(spec.objective.names)}); take tpe, gp or nsgaii"
        )
    if isinstance(spec.sampler, Cmaes):
        _check_cmaes(spec, where)
    if not isinstance(spec.sampler, Grid):
        return
    for name in spec.sampler.points:
        if name not in spec.search:
            hint = trial.did_you_mean(name, spec.search)
            raise StudyError(f"{where}: sampler.points: {name!r} is not searched{hint}")
        if spec.search[name].choices is not None:
            raise StudyError(f"{where}: sampler.points: {name} has choices; a grid takes them all")
    for name, distribution in spec.distributions().items():
        if name not in spec.sampler.points and space.every_value(distribution) is None:
            raise StudyError(
                f"{where}: sampler grid needs to know how many values of {name} to try; say it in "
                f"sampler.points, as in points: {{{name}: 5}}"
            )
    if spec.points() is None:
        raise StudyError(
            f"{where}: the grid has more than {space.MAX_LISTED} points; give fewer in "
            "sampler.points or search, or take the sampler qmc"
        )


def _check_cmaes(spec: StudySpec, where: str) -> None:
    numbers = [each for each in spec.search.values() if each.choices is None and not each.when]
    if len(numbers) < 2:
        raise StudyError(
            f"{where}: sampler cmaes needs at least two searched intervals (low, high) without "
            f"a condition, got {len(numbers)}; take tpe, gp or random"
        )


def _hint(error: ValidationError) -> str:
    unknown = [
        each["loc"] for each in error.errors(include_url=False) if each["type"] == "extra_forbidden"
    ]
    if not unknown:
        return ""
    *path, name = map(str, unknown[0])
    section: type[Section] = StudySpec
    for part in path:
        kind = section.model_fields[part].annotation if part in section.model_fields else None
        if not isinstance(kind, type) or not issubclass(kind, Section):
            return ""  # a sampler's: its message lists what there is
        section = kind
    return trial.did_you_mean(name, frozenset(section.model_fields))


def better(value: float, other: float, direction: str) -> bool:
    """Whether *value* beats *other*; a NaN beats nothing."""
    if math.isnan(value):
        return False
    if math.isnan(other):
        return True
    return value < other if direction == "minimize" else value > other
