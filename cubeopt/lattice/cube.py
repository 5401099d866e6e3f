"""The cube: an embedding enters by one face, the cells exchange, it leaves by the opposite face.

P trials, B samples, D embedding size, C cells, F cells of a face, S state size, T steps, E experts.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.lattice import experts, geometry
from cubeopt.lattice.layers import Layout, Parameter, linear, linear_parameters
from cubeopt.lattice.pack import Column
from cubeopt.trial import CubeShape


@dataclass(frozen=True)
class Passage:
    """What one pass through P cubes gives."""

    output: Float[Tensor, "P B D"]
    gates: Float[Tensor, "P T E C B"]  # share of each expert, every step
    steps: Float[Tensor, "P B"]  # exchanges that each sample took; expected ones of learned halting
    ponder: Float[Tensor, " P"]  # mean cost of the steps that learned halting took, else 0
    change: Float[Tensor, " P"]  # mean square of the state's change, over steps, cells and samples
    roughness: Float[Tensor, " P"]  # mean square difference of the last states of adjacent cells


class Cube:
    """The computation shared by all trials of one shape; the weights come from an arena."""

    def __init__(self, shape: CubeShape, device: torch.device) -> None:
        self.shape = shape
        self.wiring = geometry.geometry(shape).to(device)
        self.layout = Layout(_parameters(shape, self.wiring))

    def forward(
        self,
        arena: Float[Tensor, "P N"],
        source: Float[Tensor, "P B D"],
        knobs: Column,
        kept: Float[Tensor, "P C B S"] | None = None,
    ) -> Passage:
        """Pass *source* (standardised embeddings) through the P cubes of *arena*.

        *knobs* are those of CubeKnobs; *kept* is what dropout multiplies the shown states with.
        """
        weights = self.layout.views(arena)
        state = self._enter(weights, source)
        gates, change = [], torch.zeros_like(arena[:, 0])
        for _ in range(self.shape.lattice_steps):
            move, share = self._exchange(weights, state)
            state = state + move
            gates.append(share)
            change = change + move.square().mean((1, 2, 3))
        return Passage(
            self._leave(weights, state),
            torch.stack(gates, dim=1),
            torch.full_like(source[:, :, 0], float(self.shape.lattice_steps)),
            torch.zeros_like(arena[:, 0]),
            change / self.shape.lattice_steps,
            self._roughness(state),
        )

    def _enter(
        self, weights: dict[str, Tensor], source: Float[Tensor, "P B D"]
    ) -> Float[Tensor, "P C B S"]:
        """Write the F numbers of the bottleneck on the F cells of the input face, one on each."""
        values = linear(weights, "enter", source).transpose(1, 2)
        trials, _, samples = values.shape
        written = values[..., None] * weights["enter.write"][:, None, None]
        empty = written.new_zeros(trials, self.shape.cells, samples, self.shape.state_size)
        return empty.index_copy(1, self.wiring.input_face, written)

    def _exchange(
        self, weights: dict[str, Tensor], state: Float[Tensor, "P C B S"]
    ) -> tuple[Float[Tensor, "P C B S"], Float[Tensor, "P 3 C B"]]:
        """One step: every cell listens, the gate mixes what the three experts propose."""
        # Bounded like a norm for large states, linear for small ones: a norm proper would keep
        # only the sign of the single number written on a cell.
        seen = state * torch.rsqrt(1.0 + state.square().mean(-1, keepdim=True))
        seen = seen + weights["place.vector"][:, :, None]
        share = experts.gate(weights, seen)
        local, functional, distant = share[..., None].unbind(1)
        move = local * experts.local(weights, self.wiring, seen)
        move = move + functional * experts.functional(weights, self.wiring, seen)
        move = move + distant * experts.distant(weights, self.wiring, seen)
        return move, share

    def _leave(
        self, weights: dict[str, Tensor], state: Float[Tensor, "P C B S"]
    ) -> Float[Tensor, "P B D"]:
        """Read one number from each cell of the output face and widen the F numbers to D."""
        face = state.index_select(1, self.wiring.output_face)
        values = (face * weights["leave.read"][:, None, None]).sum(-1)
        return linear(weights, "leave", values.transpose(1, 2))

    def _roughness(self, state: Float[Tensor, "P C B S"]) -> Float[Tensor, " P"]:
        grid = state.unflatten(1, self.wiring.size)
        along = [grid.diff(dim=axis).square().flatten(1).mean(1) for axis in (1, 2, 3)]
        return (along[0] + along[1] + along[2]) / 3.0


def _parameters(shape: CubeShape, wiring: geometry.Geometry) -> list[Parameter]:
    size, face = shape.state_size, shape.face_cells
    return [
        *linear_parameters("enter", shape.embedding_size, face),
        Parameter("enter.write", (size,), 1.0, decays=False),
        Parameter("place.vector", (shape.cells, size), 0.5, decays=False),
        *experts.parameters(shape, wiring),
        Parameter("leave.read", (size,), 1.0 / math.sqrt(size), decays=False),
        *linear_parameters("leave", face, shape.embedding_size),
    ]
