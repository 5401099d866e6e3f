"""A cube as a checkpoint has it, and validation rows to look at it with.

B samples, D embedding size, N weights.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cubeopt.data import dataset as datasets
from cubeopt.data.dataset import Dataset
from cubeopt.errors import CheckpointError, DataError
from cubeopt.lattice.cube import Cube
from cubeopt.settings import Settings
from cubeopt.training import checkpoint
from cubeopt.training.checkpoint import Evaluated
from cubeopt.training.scale import Scale
from cubeopt.trial import TrialSpec

ROWS = 256  # looked at, at most: more would move a mean share by less than a point
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Model:
    """One cube and the rows it is shown, in the cube's units."""

    cube: Cube
    weights: Float[Tensor, "1 N"]
    spec: TrialSpec
    source: Float[Tensor, "B D"]
    task: UInt8[Tensor, " B"]  # its place in dataset.TASKS
    validation_rows: int
    epoch: int
    fingerprint: str  # of the dataset

    def halting_threshold(self, dtype: torch.dtype) -> Float[Tensor, " 1"]:
        return torch.tensor([self.spec.cube.halting_threshold], dtype=dtype)


def opened(folder: Path, settings: Settings, known: Dataset | None = None) -> tuple[Model, Dataset]:
    """The cube in the checkpoint *folder*, and the dataset that it was trained on.

    *known* is taken if it is that dataset, so that it need not be read again. CheckpointError when
    the checkpoint is missing or damaged, DataError when its dataset is not here or is another.
    """
    found = checkpoint.evaluated(folder)
    wanted = found.facts.dataset_fingerprint
    held = known if known is not None and known.fingerprint == wanted else None
    held = held or _dataset(found, settings)
    return model(found, held, folder), held


def model(found: Evaluated, held: Dataset, folder: Path) -> Model:
    """What *found* in *folder* computes on rows of *held*."""
    cube = Cube(found.spec.shape, _CPU)
    try:
        weights = cube.layout.row(found.weights)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {folder} is of another shape: {error}") from error
    if not bool(weights.isfinite().all()):
        raise CheckpointError(f"checkpoint {folder} has weights that are NaN or infinite")
    rows = held.rows(found.spec.plan.task, "validation")
    places = spread(len(rows), ROWS)
    return Model(
        cube,
        weights[None],
        found.spec,
        _standardised(held.embeddings[rows.source[places]], found.source_scale),
        rows.task[places],
        len(rows),
        found.facts.epoch,
        held.fingerprint,
    )


def spread(count: int, most: int) -> Tensor:
    """The places of at most *most* of *count* rows, evenly spread."""
    taken = min(count, most)
    return torch.arange(taken) * count // taken


def _standardised(rows: Tensor, scale: Scale) -> Float[Tensor, "B D"]:
    """As `training.feed` does it: the same bits."""
    mean, factor = scale.mean.float(), scale.deviation.reciprocal().float()
    return rows.float().sub_(mean).mul_(factor)


def _dataset(found: Evaluated, settings: Settings) -> Dataset:
    name, wanted = found.spec.plan.dataset, found.facts.dataset_fingerprint
    folder = settings.dataset_dir(name)
    try:
        held = datasets.load(folder)
    except DataError as error:
        raise DataError(
            f"the cube was trained on the dataset {name!r}, which cannot be read here: {error}"
        ) from error
    if held.fingerprint != wanted:
        raise DataError(
            f"the cube was trained on a dataset with fingerprint {wanted[:12]}, but {folder} has "
            f"{held.fingerprint[:12]}; build that dataset again, or set CUBEOPT_HOME to its storage"
        )
    return held
