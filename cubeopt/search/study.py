"""A study file: read it strictly, turn a point of its space into a TrialSpec."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cubeopt import trial
from cubeopt.errors import ConfigError, StudyError
from cubeopt.search import configuration
from cubeopt.trial import TrialSpec

Metric = Literal["fvu", "cosine", "top1", "mrr", "effective_rank", "specialisation"]
DIRECTIONS: dict[Metric, Literal["minimize", "maximize"]] = {
    "fvu": "minimize",  # fraction of variance unexplained
    "cosine": "maximize",  # of output and target
    "top1": "maximize",  # share of the outputs that find their own target in the split
    "mrr": "maximize",  # mean reciprocal rank of the own target
    "effective_rank": "maximize",  # directions along which the outputs vary
    "specialisation": "maximize",  # bits that the gate's choice tells of cell, sample and step
}
_NEVER_SEARCHED = frozenset(
    {
        *("dataset", "task", "epochs", "embedding_size", "data_seed"),
        *("save_checkpoint_every", "log_interval", "validation_interval"),
    }
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(_Section):
    """One searched value: an interval (*low*, *high*) or a list of *choices*."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[tuple[int | float | str, ...] | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choices or low and high, not both")
            if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
                raise ValueError(
                    f"choices need at least two values, each one once, got {list(self.choices)}"
                )
            return self
        if self.low is None or self.high is None:
            raise ValueError("a searched value needs low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"empty range: low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, got {self.low}")
        return self

    def distribution(self, whole: bool) -> BaseDistribution:
        """Where Optuna draws it from; *whole* numbers only where the value is a count."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(float(self.low), float(self.high), log=self.log)

    def ends(self) -> list[Any]:
        """The values between which, or among which, it is drawn."""
        return list(self.choices) if self.choices is not None else [self.low, self.high]


class Objective(_Section):
    """The validation metric that decides; no searched knob scales it."""

    metric: Metric = "fvu"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return DIRECTIONS[self.metric]


class Sampler(_Section):
    """Which Optuna sampler proposes trials."""

    name: Literal["tpe", "random"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    startup_trials: Annotated[int, Field(ge=0)] = 10  # drawn at random before the model (tpe)


class Rungs(_Section):
    """At which epochs trials are compared, and what share goes on; the last one ends the trial."""

    epochs: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] = (1, 2, 5)
    rule: Literal["asha", "median", "none"] = "asha"
    reduction_factor: Annotated[float, Field(gt=1.0)] = 3.0  # asha: one in so many goes on
    min_trials: Annotated[int, Field(ge=1)] = 1  # results at a rung, from which on it may cut

    @model_validator(mode="after")
    def _check(self) -> "Rungs":
        if self.epochs[0] < 1 or list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"epochs must rise and start at 1 or more, got {list(self.epochs)}")
        return self


class Promotion(_Section):
    """How many of the best completed trials are carried on to the full run."""

    top: Annotated[int, Field(ge=0)] = 1


class Budget(_Section):
    """Where the study ends."""

    trials: Annotated[int, Field(ge=1)] = 20


class StudySpec(_Section):
    """What a YAML file in studies/ says."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    base: dict[str, Any] = {}
    search: Annotated[dict[str, Range], Field(min_length=1)]
    objective: Objective = Objective()
    sampler: Sampler = Sampler()
    rungs: Rungs = Rungs()
    promotion: Promotion = Promotion()
    budget: Budget = Budget()

    @property
    def base_trial(self) -> TrialSpec:
        return trial.from_flat(self.base, f"study {self.name}: base")

    @property
    def full_epochs(self) -> int:
        return self.base_trial.plan.epochs

    @property
    def short_epochs(self) -> int:
        return self.rungs.epochs[-1]

    def distributions(self) -> dict[str, BaseDistribution]:
        # The type of the value decides, not how its ends are written: 0 to 1 may be a weight.
        values = self.base_trial.flat()
        return {
            name: searched.distribution(whole=isinstance(values[name], int))
            for name, searched in self.search.items()
        }

    def trial(self, params: Mapping[str, Any], number: int) -> TrialSpec:
        """The base with *params* put in; unless searched or set, the seed is the trial's number."""
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


def parse(content: Mapping[str, Any], where: str) -> StudySpec:
    """Check *content*, the mapping of a study file; *where* names it in an error."""
    try:
        spec = StudySpec.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{where}: {trial.first_problem(error)}{_hint(error)}") from error
    try:
        base = trial.from_flat(spec.base, f"{where}: base")
        _check_search(spec, base, where)
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


def _check_search(spec: StudySpec, base: TrialSpec, where: str) -> None:
    """Each searched name exists and may be searched; its ends, alone and in pairs, are valid.

    Pairs, since a rule of TrialSpec ties at most two values together.
    """
    known = trial.value_names() - _NEVER_SEARCHED
    for name, searched in spec.search.items():
        if name in _NEVER_SEARCHED:
            raise StudyError(
                f"{where}: search.{name}: {name} is one for the whole study; set it in base"
            )
        if name not in known:
            raise StudyError(
                f"{where}: search: unknown key {name!r}{trial.did_you_mean(name, known)}"
            )
        for end in searched.ends():
            _check_point(base, {name: end}, where)
    for (name, searched), (other, its) in itertools.combinations(spec.search.items(), 2):
        for ends in itertools.product(searched.ends(), its.ends()):
            _check_point(base, dict(zip((name, other), ends, strict=True)), where)


def _check_point(base: TrialSpec, values: dict[str, Any], where: str) -> None:
    try:
        base.with_values(values)
    except ConfigError as error:
        names = " with ".join(f"search.{name}" for name in values)
        reason = str(error).removeprefix("configuration: ").removeprefix(f"{next(iter(values))}: ")
        raise StudyError(f"{where}: {names}: {reason}") from error


def _hint(error: ValidationError) -> str:
    unknown = [
        each["loc"] for each in error.errors(include_url=False) if each["type"] == "extra_forbidden"
    ]
    if not unknown or len(unknown[0]) != 1:
        return ""
    return trial.did_you_mean(str(unknown[0][0]), frozenset(StudySpec.model_fields))


def better(value: float, other: float, direction: str) -> bool:
    """Whether *value* beats *other*; a NaN beats nothing."""
    if math.isnan(value):
        return False
    if math.isnan(other):
        return True
    return value < other if direction == "minimize" else value > other
