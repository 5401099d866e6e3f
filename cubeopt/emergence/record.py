"""What is found in a cube, as plain values: all that tables and pictures of it show.

Lists by cell go in the order of the cells, z fastest. A *step* is one exchange; step 0 is the cube
as the input was written, before any. Numbers are rounded to what they mean.

None stands where there is nothing to say: a gate's choice in a step that no sample took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.emergence.findings import Finding


@dataclass(frozen=True)
class Step:
    """The cells at one step, means over the samples."""

    step: int
    taken: float  # share of the samples that took the exchange; 1 at step 0
    shares: Mapping[str, Sequence[float]] | None  # of each expert, by cell
    entropy: Sequence[float] | None  # of a choice's shares, in bits, by cell
    activity: Sequence[float]  # root mean square of a cell's state
    change: Sequence[float]  # root mean square of its move in the exchange; 0 at step 0


@dataclass(frozen=True)
class Tasks:
    """What the tasks have to do with the choice of an expert, by cell, over all steps."""

    bits: Sequence[float]  # mutual information of expert and task
    by_chance: float  # mean bits of a cell that 95 of 100 shufflings of the tasks stay below
    shares: Mapping[str, Mapping[str, Sequence[float]]]  # task, expert, by cell


@dataclass(frozen=True)
class Ring:
    """The cells at one distance from the nearest cell that is written."""

    distance: float  # in cells
    cells: int
    first_step: int | None  # at which news reaches one of them; None: never
    response: float  # root mean square over them, at the last step


@dataclass(frozen=True)
class News:
    """How a change travels: `response` is a cell's move over that of a changed cell at step 0.

    Both are root mean squares over samples and the numbers of a state: 1 is as far.
    """

    name: str  # "input", or the written cell that was changed, as "x,y,z"
    response: Sequence[Sequence[float]]  # step 0 to T, by cell
    first_step: int | None  # at which it reaches a cell that is read; None: never
    all_read: int | None  # at which it has reached all of them
    rings: Sequence[Ring]


@dataclass(frozen=True)
class Flow:
    """What becomes of small changes of the input."""

    size: float  # of the change, in shares of an embedding's typical size
    rows: int  # samples that were changed
    gain: float  # the output's change over the input's, both in standardised units
    at_read: float  # share of all change at the last step (sum of squares) in the cells read
    carried: Sequence[Sequence[float]]  # share of the output's change through a cell, by step
    news: Sequence[News]  # of the whole input first, then of some written cells alone


@dataclass(frozen=True)
class Emergence:
    """A trained cube looked at."""

    checkpoint: str
    epoch: int
    dataset: str
    dataset_fingerprint: str
    rows: int  # looked at, spread evenly over the validation split
    validation_rows: int
    size: tuple[int, int, int]  # cells along x, y and z
    placement: str
    gate: str
    halting: str
    experts: Sequence[str]
    written: Sequence[int]  # cells
    read: Sequence[int]
    metrics: Mapping[str, float]  # as training.gating defines them, over the rows looked at
    steps: Sequence[Step]
    tasks: Tasks | None  # of a cube with several tasks
    flow: Flow
    findings: Sequence[Finding]

    @property
    def cells(self) -> int:
        x, y, z = self.size
        return x * y * z

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


def from_json(row: Mapping[str, Any]) -> Emergence:
    """The inverse of `Emergence.as_json`."""
    values = dict(row)
    flow = dict(values["flow"])
    flow["news"] = [
        News(**{**each, "rings": [Ring(**ring) for ring in each["rings"]]}) for each in flow["news"]
    ]
    values["size"] = tuple(values["size"])
    values["steps"] = [Step(**each) for each in values["steps"]]
    values["tasks"] = None if values["tasks"] is None else Tasks(**values["tasks"])
    values["flow"] = Flow(**flow)
    values["findings"] = [Finding(**each) for each in values["findings"]]
    return Emergence(**values)
