"""The cube: an embedding is written on some cells, all exchange, it is read from others.

P trials, B samples, D embedding size, C cells, F cells of a face, S state size, T steps, E experts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cubeopt.lattice import exchange, geometry, halting
from cubeopt.lattice.exchange import Exchange, Exchanging, exchanging
from cubeopt.lattice.experts import Weights
from cubeopt.lattice.layers import Gradients, Layout, Parameter, linear, linear_parameters
from cubeopt.lattice.roughness import Roughness
from cubeopt.trial import CubeShape

# Bytes of what all steps would keep for the gradient; beyond, each step is computed a second time.
_MOST_KEPT = {"cpu": 2 << 30, "cuda": 8 << 30}
_KEPT_STATES = 22  # states that one step keeps, counted roughly

# Sees the states after so many exchanges, 0 to T, and gives those with which the cube goes on.
Touch = Callable[[int, Float[Tensor, "P C B S"]], Float[Tensor, "P C B S"]]


@dataclass(frozen=True)
class Passage:
    """What one pass through P cubes gives."""

    output: Float[Tensor, "P B D"]
    gates: Float[Tensor, "P T E C B"]  # share of each expert, every step; 0 where none was taken
    active: Float[Tensor, "P T B"]  # 1 where a sample took a step
    steps: Float[Tensor, "P B"]  # how many it took
    ponder: Float[Tensor, " P"]  # mean cost of the steps that learned halting took, else 0
    change: Float[Tensor, " P"]  # mean square of the state's change, over steps, cells and samples
    roughness: Float[Tensor, " P"]  # mean square difference of the last states of adjacent cells


class Cube:
    """The computation shared by all trials of one shape; the weights come from an arena."""

    def __init__(self, shape: CubeShape, device: torch.device) -> None:
        self.shape = shape
        self.wiring = geometry.geometry(shape).to(device)
        self.layout = Layout(_parameters(shape, self.wiring))
        self._roughness = Roughness(shape.lattice_size)
        # A GPU would have to be waited for to know whether anybody goes on; it takes all steps.
        self.stops_early = device.type == "cpu"

    def forward(
        self,
        arena: Float[Tensor, "P N"],
        source: Float[Tensor, "P B D"],
        halting_threshold: Float[Tensor, " P"],
        kept: Float[Tensor, "P C B S"] | None = None,
        touch: Touch = lambda _, state: state,
    ) -> Passage:
        """Pass *source* (standardised embeddings) through the P cubes of *arena*.

        *halting_threshold* is a knob of each; *kept* is what dropout multiplies the shown states
        with. *touch* looks at the states on their way, or changes them.
        """
        gradients = Gradients()
        weights = self.layout.opened(arena, gradients)
        state = touch(0, self._enter(weights, source))
        walk = _Walk(self.shape, state, halting_threshold)
        exchange = self._exchanging(weights, gradients, state)
        for step in range(self.shape.lattice_steps):
            if self.stops_early and walk.over():
                break
            made = exchange(walk.state, kept, walk.going)
            made = made._replace(state=touch(step + 1, made.state))
            walk.take(weights, self.wiring, made, last=step == self.shape.lattice_steps - 1)
        state = walk.result()
        gates, active = walk.record()
        return Passage(
            self._leave(weights, state),
            gates,
            active,
            active.sum(1),
            walk.ponder(),
            walk.change(),
            self._roughness(state),
        )

    def _enter(self, weights: Weights, source: Float[Tensor, "P B D"]) -> Float[Tensor, "P C B S"]:
        """Write the F numbers of the bottleneck on F cells, one on each."""
        values = linear(weights, "enter", source).transpose(1, 2)
        trials, _, samples = values.shape
        written = values[..., None] * weights["enter.write"][:, None, None]
        empty = written.new_zeros(trials, self.shape.cells, samples, self.shape.state_size)
        return empty.index_copy(1, self.wiring.written, written)

    def _exchanging(
        self, weights: Weights, gradients: Gradients, state: Float[Tensor, "P C B S"]
    ) -> Exchanging:
        """One step as a function; of large lattices it keeps only the state for the gradient."""
        rows = state.shape[1] * state.shape[2]
        exchange = exchanging(self.shape, self.wiring, weights, gradients, rows)
        bytes_kept = state.nbytes * self.shape.lattice_steps * _KEPT_STATES
        if not torch.is_grad_enabled() or bytes_kept <= _MOST_KEPT[state.device.type]:
            return exchange
        return lambda *given: Exchange(
            *checkpoint(exchange, *given, use_reentrant=False, preserve_rng_state=False)
        )

    def _leave(self, weights: Weights, state: Float[Tensor, "P C B S"]) -> Float[Tensor, "P B D"]:
        """Read one number from each of F cells, or their whole states, and widen them to D."""
        face = state.index_select(1, self.wiring.read)
        if self.shape.readout == "value":
            values = (face * weights["leave.read"][:, None, None]).sum(-1).transpose(1, 2)
        else:
            values = face.transpose(1, 2).flatten(2)
        return linear(weights, "leave", values)


class _Walk:
    """The samples on their way through the steps, and which of them still go on."""

    def __init__(
        self, shape: CubeShape, state: Float[Tensor, "P C B S"], threshold: Float[Tensor, " P"]
    ) -> None:
        self._shape, self._threshold = shape, threshold
        self.state = state
        self._all = torch.ones_like(state[:, 0, :, 0], dtype=torch.bool)
        self.going = None if shape.halting == "fixed" else self._all
        self._pondering = halting.Pondering(state) if shape.halting == "learned" else None
        self._gates: list[Tensor] = []
        self._changes: list[Float[Tensor, " P"]] = []
        self._active: list[Bool[Tensor, "P B"]] = []

    def over(self) -> bool:
        """Whether no sample of any trial goes on."""
        return self.going is not None and not bool(self.going.any())

    def take(self, weights: Weights, wiring: geometry.Geometry, made: Exchange, last: bool) -> None:
        """Go where the exchange led, and see who goes on from there."""
        going = self._all if self.going is None else self.going
        self._active.append(going)
        self._gates.append(made.share)
        self._changes.append(made.change)
        before, self.state = self.state, made.state
        if self._pondering is not None:
            read = self.state.index_select(1, wiring.read)
            self.going = self._pondering.take(weights, self.state, read, going, last)
        elif self.going is not None:
            self.going = going & ~halting.settled(before, self.state, self._threshold)

    def result(self) -> Float[Tensor, "P C B S"]:
        return self.state if self._pondering is None else self._pondering.state

    def change(self) -> Float[Tensor, " P"]:
        numbers = self._shape.lattice_steps * self.state[0].numel()
        return torch.stack(self._changes, 1).sum(1) / numbers

    def ponder(self) -> Float[Tensor, " P"]:
        if self._pondering is None:
            return self.state.new_zeros(len(self.state))
        return self._pondering.cost()

    def record(self) -> tuple[Float[Tensor, "P T E C B"], Float[Tensor, "P T B"]]:
        """Gates and who was active, with zeros for steps that nobody took.

        So a trial's record has one form, whether its neighbours in a pack needed more steps or not.
        """
        spare = self._shape.lattice_steps - len(self._gates)
        gates = torch.stack([*self._gates, *[torch.zeros_like(self._gates[0])] * spare], 1)
        idle = [torch.zeros_like(self._active[0])] * spare
        return gates, torch.stack([*self._active, *idle], 1).to(gates.dtype)


def _parameters(shape: CubeShape, wiring: geometry.Geometry) -> list[Parameter]:
    size, face = shape.state_size, shape.face_cells
    numbers = face if shape.readout == "value" else face * size
    read = Parameter("leave.read", (size,), 1.0 / math.sqrt(size), decays=False)
    return [
        *linear_parameters("enter", shape.embedding_size, face),
        Parameter("enter.write", (size,), 1.0, decays=False),
        *exchange.parameters(shape, wiring),
        *halting.parameters(shape),
        *([read] if shape.readout == "value" else []),
        *linear_parameters("leave", numbers, shape.embedding_size),
    ]
