"""How news travels: the input is changed a little, and every cell's state is watched.

Response: a second pass with the changed input (or with one written cell changed) beside the first;
the difference of the states at each step is what the change has become. It is exact: a cell that
the change cannot reach has a difference of exactly 0, because both passes add up the same numbers
in the same order.

What carries it: between two exchanges the states are all there is, so whatever reaches the output
goes through the cells of that step. The share of cell c at step t is
(gradient of the output's change by the state of c at t) . (change of that state), which is to first
order how much the output's change falls when the cell is held back ("activation patching", Vig et
al. 2020, Meng et al. 2022; its gradient form: Syed, Rager and Conmy 2023, arXiv 2310.10348).
The gradient is taken half way between the two passes, so the shares of a step sum to 1 but for an
error of second order (completeness, Sundararajan, Taly and Yan 2017). A share below 0 works
against the rest. Under learned halting a state also goes to the output directly, so later steps sum
to less.

T steps, Z = T + 1 states, C cells, B samples, S state size, D embedding size, W written cells.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from cubeopt.emergence.model import Model, spread
from cubeopt.emergence.record import Flow, News, Ring
from cubeopt.emergence.rounding import rounded
from cubeopt.lattice.geometry import positions

SIZE = 0.01  # of a change, in shares of an embedding's typical size
ROWS = 16  # changed, at most
SPOTS = 9  # written cells that are changed alone, at most
REACHED = 1e-9  # of a response: less is rounding (in float64)
_BYTES = 1 << 25  # of the states of one pass, at most; what the gradient keeps is 20 times as much
_SPOT_NUMBERS = 1 << 18  # responses to changes of written cells alone, at most
_SEED = 0

States = Float64[Tensor, "Z C B S"]


def flow(model: Model, tell: Callable[[float], None]) -> Flow:
    """Change the inputs of some rows of *model*; *tell* hears which share is done."""
    walk = _Walk(model)
    wiring = model.cube.wiring
    clean, output = walk.states(walk.source)
    push = _directions(walk.source) * SIZE * math.sqrt(walk.source.shape[1])
    changed, other = walk.states(walk.source + push)
    moved = changed - clean
    tell(0.2)
    carried = _carried(walk, walk.source + push / 2, moved, other - output)
    tell(0.5)
    news = [_news(model, "input", moved, wiring.written)]
    spots = _spots(model)
    for number, cell in enumerate(spots):
        moved_by_one = walk.states(walk.source, cell)[0] - clean
        news.append(_news(model, _name(model, cell), moved_by_one, torch.tensor([cell])))
        tell(0.5 + 0.5 * (number + 1) / len(spots))
    last = moved[-1].square().sum((1, 2))
    everywhere = float(last.sum())
    return Flow(
        size=SIZE,
        rows=len(walk.source),
        gain=rounded(float((other - output).norm() / push.norm()), 4),
        at_read=rounded(float(last[wiring.read].sum()) / everywhere, 4) if everywhere else 0.0,
        carried=[rounded(row, 3) for row in carried],
        news=news,
    )


class _Walk:
    """Passes of some rows through the cube in float64."""

    def __init__(self, model: Model) -> None:
        self._model, shape = model, model.cube.shape
        a_row = (shape.lattice_steps + 1) * shape.cells * shape.state_size * 8
        most = max(2, min(ROWS, _BYTES // a_row))
        self.source = model.source[spread(len(model.source), most)].double()
        self._weights = model.weights.double()
        self._threshold = model.halting_threshold(torch.float64)

    @torch.no_grad()
    def states(
        self, source: Float64[Tensor, "B D"], cell: int | None = None
    ) -> tuple[States, Float64[Tensor, "B D"]]:
        """All states and the output; the written *cell* is changed by SIZE where one is given."""
        states: list[Tensor] = []

        def seen(step: int, state: Tensor) -> Tensor:
            if step == 0 and cell is not None:
                state = self._changed(state, cell)
            states.append(state[0])
            return state

        output = self._forward(source, seen)
        return self._stacked(states), output

    def slopes(
        self, source: Float64[Tensor, "B D"], way: Float64[Tensor, "B D"]
    ) -> list[Tensor | None]:
        """The gradient of output . *way*, by the states of each step; None where it has none."""
        states: list[Tensor] = []

        def seen(step: int, state: Tensor) -> Tensor:
            states.append(state)
            return state

        # An input that asks for its gradient makes every state do so.
        output = self._forward(source.requires_grad_(), seen)
        found = list(torch.autograd.grad((output * way).sum(), states, allow_unused=True))
        return found + [None] * (self._model.cube.shape.lattice_steps + 1 - len(found))

    def _forward(
        self, source: Float64[Tensor, "B D"], seen: Callable[[int, Tensor], Tensor]
    ) -> Float64[Tensor, "B D"]:
        cube = self._model.cube
        passage = cube.forward(self._weights, source[None], self._threshold, touch=seen)
        (output,) = passage.output.unbind()
        return output

    def _stacked(self, states: list[Tensor]) -> States:
        """A state for every step, also those that nobody took."""
        spare = self._model.cube.shape.lattice_steps + 1 - len(states)
        return torch.stack([*states, *states[-1:] * spare])

    def _changed(self, state: Tensor, cell: int) -> Tensor:
        """The number written on *cell* is moved by SIZE of what is typical, or of 1."""
        write = self._model.cube.layout.views(self._weights)["enter.write"][0]
        typical = float(state[0, self._model.cube.wiring.written].square().mean().sqrt()) or 1.0
        length = float(write.square().mean().sqrt()) or 1.0
        state = state.clone()
        state[0, cell] += SIZE * typical / length * write
        return state


def _directions(source: Float64[Tensor, "B D"]) -> Float64[Tensor, "B D"]:
    """A random direction for each sample, always the same ones."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randn(source.shape, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def _carried(
    walk: _Walk, middle: Tensor, moved: States, change: Float64[Tensor, "B D"]
) -> list[Tensor]:
    """The share of the output's *change* that goes through each cell, by step; 0 of no change."""
    total = float(change.square().sum())
    if total == 0.0:
        return [torch.zeros(moved.shape[1], dtype=torch.float64) for _ in moved]
    slopes = walk.slopes(middle, change / total)
    return [
        torch.zeros(moved.shape[1], dtype=torch.float64)
        if slope is None
        else (slope[0] * each).sum((1, 2))
        for slope, each in zip(slopes, moved, strict=True)
    ]


def _news(model: Model, name: str, moved: States, changed: Int64[Tensor, " W"]) -> News:
    sizes = moved.square().mean((2, 3)).sqrt()
    start = float(sizes[0, changed].square().mean().sqrt())
    response = sizes / start if start else torch.zeros_like(sizes)
    reached = response > REACHED
    read = reached[:, model.cube.wiring.read]
    return News(
        name,
        [rounded(row) for row in response * reached],
        _first(read.any(1)),
        _first(read.all(1)),
        _rings(model, response * reached, changed),
    )


def _rings(model: Model, response: Tensor, changed: Int64[Tensor, " W"]) -> list[Ring]:
    """Response by distance from the nearest cell that was changed."""
    where = positions(model.cube.shape.lattice_size)
    squared = torch.stack(
        [(where - where[cell]).square().sum(1) for cell in changed.tolist()]
    ).amin(0)
    rings = []
    for distance in sorted(set(squared.tolist())):
        mine = response[:, squared == distance]
        size = float(mine[-1].square().mean().sqrt())
        first = _first((mine > 0.0).any(1))
        rings.append(Ring(rounded(math.sqrt(distance), 4), mine.shape[1], first, rounded(size)))
    return rings


def _first(marks: Tensor) -> int | None:
    """The first step with a mark."""
    found = marks.nonzero()
    return int(found[0]) if len(found) else None


def _spots(model: Model) -> Sequence[int]:
    """Written cells evenly over the face: its corners, its middle, and between."""
    shape, written = model.cube.shape, model.cube.wiring.written
    numbers = (shape.lattice_steps + 1) * shape.cells
    side = math.isqrt(max(1, min(SPOTS, _SPOT_NUMBERS // numbers)))
    width, height, _ = shape.lattice_size
    columns, rows = (_even(count, side) for count in (width, height))
    return [int(written[x * height + y]) for x in columns for y in rows]


def _even(count: int, most: int) -> list[int]:
    """At most *most* of *count* places, from the first to the last; of one, the middle."""
    if most == 1:
        return [count // 2]
    taken = min(count, most)
    return sorted({round(place * (count - 1) / (taken - 1)) for place in range(taken)})


def _name(model: Model, cell: int) -> str:
    return ",".join(map(str, positions(model.cube.shape.lattice_size)[cell].tolist()))
