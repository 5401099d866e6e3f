"""What one trial is: the shape of its cube, its knobs and its plan.

A *shape* decides tensor sizes, so all trials of a pack share it.
A *knob* is a number or a named choice, so each trial of a pack has its own.
A *plan* says what data the trial sees and for how long.

In every file the three stand in one flat section, in the form that users know::

    lattice_size: [8, 8, 8]
    learning_rate: 0.001
    epochs: 50
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from cubeopt.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Positive = Annotated[int, Field(ge=1)]


_UNION_BRANCHES = frozenset({"int", "float", "str"})  # as pydantic names them in a path
# What a file has to hold there, where pydantic's own words are those of Python.
_KINDS = {
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"),
        "expected a mapping of names to values",
    ),
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list, as in [a, b]"),
}


class Task(StrEnum):
    """What the cube is asked to give back."""

    RECONSTRUCT = "reconstruct"  # each distinct sentence to itself, through the narrow face
    DIALOGUE = "dialogue"  # the answer's embedding from the question's
    NLI = "nli"  # the hypothesis from the premise; labelled
    SENTIMENT = "sentiment"  # a labelled sentence to itself


class Expert(StrEnum):
    """What may change the state of a cell."""

    LOCAL = "local"  # linear over the nearest cells
    FUNCTIONAL = "functional"  # messages from the middle tier
    DISTANT = "distant"  # a continuous-time cell over sparse long links


def _tasks(value: object) -> object:
    return _some_of(Task, value)


def _experts(value: object) -> object:
    return _some_of(Expert, value)


def _some_of(names: type[StrEnum], value: object) -> object:
    """One name or a list of them, as members in the order of *names*, each once."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not set(map(str, given)) <= set(names):
        raise ValueError(f"expected one or more of {', '.join(names)}, got {value!r}")
    if not given:
        raise ValueError(f"at least one {names.__name__.lower()} is needed")
    return tuple(name for name in names if name in given)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CubeShape(_Part):
    """Every size that decides the shape of a tensor."""

    # From YAML a list arrives where Python has a tuple.
    lattice_size: Annotated[tuple[int, int, int], Field(strict=False)] = (8, 8, 8)  # cells: x, y, z
    embedding_size: Positive = 768  # width of the dataset
    state_size: Annotated[int, Field(ge=1, le=4096)] = 32  # numbers in the state of a cell
    lattice_steps: Annotated[int, Field(ge=1, le=1000)] = 5  # exchanges between cells
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16  # samples a step
    # Which cells a cell listens to: by distance, or by shares of its links (the rest is distant).
    tiers: Literal["radius", "share"] = "radius"
    local_radius: Annotated[float, Field(gt=0.0)] = 1.0  # cells nearer than this are local
    functional_radius: Annotated[float, Field(gt=0.0)] = 2.0  # up to here they are functional
    distant_links: Positive = 8  # links of a cell to cells farther away
    links: Positive = 60  # of a cell, in all
    local_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.10
    functional_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.55
    # Where the numbers of the bottleneck are written, and where the cube is read.
    placement: Literal["opposite_faces", "same_face", "spread"] = "opposite_faces"
    # Of each cell that is read: one number, or its whole state.
    readout: Literal["value", "state"] = "state"
    # Which experts there are, and whether a gate mixes them or each has the same share.
    experts: Annotated[tuple[Expert, ...], BeforeValidator(_experts)] = tuple(Expert)
    gate: Literal["learned", "frozen"] = "learned"
    # When the cells stop: after lattice_steps, or before, sample by sample: when a step changes the
    # state by less than halting_threshold, or when a learned unit says so (Graves 2016).
    halting: Literal["fixed", "threshold", "learned"] = "fixed"

    @model_validator(mode="after")
    def _check(self) -> "CubeShape":
        if min(self.lattice_size) < 2 or max(self.lattice_size) > 64:
            raise ValueError(f"lattice_size must be 2 to 64 cells a side, got {self.lattice_size}")
        if self.functional_radius <= self.local_radius:
            raise ValueError(
                f"functional_radius ({self.functional_radius}) must exceed "
                f"local_radius ({self.local_radius})"
            )
        if self.local_share + self.functional_share >= 1.0:
            raise ValueError(
                f"local_share ({self.local_share}) and functional_share ({self.functional_share}) "
                "together must be below 1: the rest is distant"
            )
        return self

    @field_serializer("experts")
    def _names(self, experts: tuple[Expert, ...]) -> list[str]:
        return [str(expert) for expert in experts]

    @property
    def cells(self) -> int:
        x, y, z = self.lattice_size
        return x * y * z

    @property
    def face_cells(self) -> int:
        """Cells of one face: the width of the bottleneck."""
        return self.lattice_size[0] * self.lattice_size[1]


class CubeKnobs(_Part):
    """What a trial's cube does with what it is given, beside its shape."""

    input_noise: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0  # deviation, 1 is the embeddings'
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # of what cells show to others
    halting_threshold: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1  # relative change of a step


class LossKnobs(_Part):
    """Weight of each term of the loss; a reconstruction of 1 is "no better than the mean"."""

    reconstruction_weight: Weight = 1.0
    similarity_weight: Weight = 0.5
    diversity_weight: Weight = 0.2
    emergence_weight: Weight = 0.1
    lattice_weight: Weight = 0.01
    spatial_weight: Weight = 0.01
    ponder_weight: Weight = 0.01  # of the steps that learned halting takes
    emergence: Literal["mutual_information", "legacy_log"] = "mutual_information"
    # How the weights change while training: not at all; from the values above to those below over
    # the full run; or by the terms themselves, as factors to the weights (see training.weighting).
    weighting: Literal["fixed", "annealed", "uncertainty", "dynamic_average", "gradnorm"] = "fixed"
    reconstruction_weight_end: Weight | None = None  # None: as at the beginning
    similarity_weight_end: Weight | None = None
    diversity_weight_end: Weight | None = None
    emergence_weight_end: Weight | None = None
    lattice_weight_end: Weight | None = None
    spatial_weight_end: Weight | None = None
    dynamic_average_temperature: Annotated[float, Field(gt=0.0, le=1e3)] = 2.0
    gradnorm_asymmetry: Annotated[float, Field(ge=0.0, le=10.0)] = 1.5
    gradnorm_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.025

    @model_validator(mode="after")
    def _check(self) -> "LossKnobs":
        ends = [name for name in type(self).model_fields if name.endswith("_weight_end")]
        given = [name for name in ends if getattr(self, name) is not None]
        if given and self.weighting != "annealed":
            raise ValueError(f"{given[0]} needs weighting: annealed, got {self.weighting}")
        return self


class OptimKnobs(_Part):
    """AdamW, its clip and its schedule over the full run."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1e3)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.01
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0  # largest norm of a trial's gradient
    gradient_accumulation: Annotated[int, Field(ge=1, le=10_000)] = 1  # batches to an update
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # of the weights that are evaluated
    schedule: Literal[
        "warmup_stable_decay",
        "cosine",
        "cosine_restarts",
        "linear",
        "one_cycle",
        "constant",
        "plateau",
    ] = "warmup_stable_decay"
    warmup_fraction: Fraction = 0.02  # of all steps of the full run
    decay_fraction: Fraction = 0.2  # of all steps of the full run (warmup_stable_decay)
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5  # of the rate, when it is cut
    plateau_patience: Annotated[int, Field(ge=0, le=1_000_000)] = 3  # validations without gain

    @model_validator(mode="after")
    def _check(self) -> "OptimKnobs":
        if self.warmup_fraction + self.decay_fraction > 1.0:
            raise ValueError(
                f"warmup_fraction ({self.warmup_fraction}) and decay_fraction "
                f"({self.decay_fraction}) together must not exceed 1"
            )
        return self


class Plan(_Part):
    """What the trial sees, for how long, and how often we look."""

    dataset: Annotated[str, Field(min_length=1)] = "dialogue_combined"
    task: Annotated[tuple[Task, ...], BeforeValidator(_tasks)] = (Task.RECONSTRUCT,)
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 50  # the full run; schedules span it
    data_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of the order of batches
    save_checkpoint_every: Positive = 5  # epochs
    log_interval: Positive = 10  # batches
    validation_interval: Positive = 1  # epochs

    @field_serializer("task")
    def _one_or_more(self, tasks: tuple[Task, ...]) -> str | list[str]:
        names = [str(task) for task in tasks]
        return names[0] if len(names) == 1 else names


class TrialSpec(_Part):
    """One point of the search space, whole enough to be trained again."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of the initial weights
    shape: CubeShape = CubeShape()
    cube: CubeKnobs = CubeKnobs()
    loss: LossKnobs = LossKnobs()
    optim: OptimKnobs = OptimKnobs()
    plan: Plan = Plan()

    def flat(self) -> dict[str, Any]:
        """All values in one mapping, as they stand in a file."""
        parts = self.model_dump(mode="json")
        values = {"seed": parts.pop("seed")}
        for part in parts.values():
            values.update(part)
        return values

    def with_values(self, values: Mapping[str, Any]) -> "TrialSpec":
        """This trial with *values*, keyed by flat name, put in."""
        return from_flat({**self.flat(), **values})

    def pack_key(self, dataset_fingerprint: str) -> str:
        """Equal for trials that may share a pack: one shape, the same tasks, one dataset."""
        identity = [self.shape.model_dump(mode="json"), self.plan.task, dataset_fingerprint]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def from_flat(values: Mapping[str, Any], where: str = "configuration") -> TrialSpec:
    """Build a TrialSpec from flat *values*; *where* names the file in an error."""
    homes = _homes()
    nested: dict[str, Any] = {part: {} for part in set(homes.values()) if part}
    for name, value in values.items():
        if name not in homes:
            raise ConfigError(f"{where}: unknown key {name!r}{did_you_mean(str(name), homes)}")
        part = homes[name]
        if part:
            nested[part][name] = value
        else:
            nested[name] = value
    try:
        return TrialSpec.model_validate(nested)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_problem(error)}") from error


def value_names() -> frozenset[str]:
    """Every flat name a file may set."""
    return frozenset(_homes())


def first_problem(error: ValidationError) -> str:
    """One line for the first broken rule: the key, the rule, the value."""
    problems = error.errors(include_url=False)
    # A misspelt key is the cause when its right spelling is missing.
    unknown = [each for each in problems if each["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    if problem["loc"] and problem["loc"][-1] in _UNION_BRANCHES:
        # Of a union, the last branch has the message that speaks for all: "a number".
        place = problem["loc"][:-1]
        problem = [each for each in problems if each["loc"][:-1] == place][-1]
    path = [str(part) for part in problem["loc"] if part not in _UNION_BRANCHES]
    if path and path[0] in set(_homes().values()):
        path = path[1:]  # the parts are ours; the file is flat
    key = ".".join(path)
    message = _KINDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if problem["type"] in ("value_error", "missing") or not path:
        return f"{key}: {message}" if path else message
    return f"{key}: {message} (got {problem['input']!r})"


def did_you_mean(name: str, known: Mapping[str, Any] | frozenset[str]) -> str:
    """A hint for a misspelt *name*, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@cache
def _homes() -> dict[str, str]:
    """Flat name -> the part of TrialSpec it lives in ('' for the spec itself)."""
    homes: dict[str, str] = {}
    for part, field in TrialSpec.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name in kind.model_fields:
                assert name not in homes, f"{name} is declared twice"
                homes[name] = part
        else:
            homes[part] = ""
    return homes
