"""Slots side by side: every knob becomes one value per slot, and who may be computed together.

P slots.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cubeopt.trial import CubeShape, TrialSpec

_VECTOR = 16  # numbers in the widest vector of a CPU, and in 64 bytes of float32


class Columns(NamedTuple):
    """The knobs that a pass through the cube and its loss read, one value per slot."""

    halting_threshold: Float[Tensor, " P"]
    legacy_log: Bool[Tensor, " P"] | None  # who has that emergence; None if nobody does


def columns(specs: Sequence[TrialSpec | None], device: torch.device, dtype: torch.dtype) -> Columns:
    """The knobs of *specs*, one for each slot; idle slots (None) have the defaults."""
    idle = TrialSpec()
    held = [idle if spec is None else spec for spec in specs]
    limits = [spec.cube.halting_threshold for spec in held]
    legacy = [spec.loss.emergence == "legacy_log" for spec in held]
    return Columns(
        torch.tensor(limits, dtype=dtype, device=device),
        torch.tensor(legacy, device=device) if any(legacy) else None,
    )


def computes_together(shape: CubeShape, device: torch.device) -> bool:
    """Whether the slots of a pack go through the cube in one pass, or one after the other.

    On a CPU the last bits of a product depend on how its operands lie in memory, and those of a
    function (tanh, exp) on whether an element is in a whole vector. Only when every slot fills
    whole vectors does each compute the same; other shapes pay for equal bits with single passes.
    """
    cells, face, batch = shape.cells, shape.face_cells, shape.batch_size
    counts = (shape.state_size, shape.embedding_size, cells * batch, face * batch, batch * batch)
    return device.type != "cpu" or all(count % _VECTOR == 0 for count in counts)
