"""Three experts that differ in kind, and the gate that mixes them.

P trials, C cells, B samples, S state size, E experts.

Each expert sees the state of a cell and of the neighbours in its tier, and proposes a change of the
cell's state. Weights are shared by the cells; a learned place vector tells the cells apart.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Parameter, linear, linear_parameters
from cubeopt.lattice.stencil import stencil
from cubeopt.trial import CubeShape

EXPERTS = ("local", "functional", "distant")
_HEAD_SIZE = 16  # numbers a head of the attention compares
_EULER_STEPS = 2  # sub-steps in which the distant expert is integrated over one exchange
_LEAST_TIME = 0.5  # exchanges; half a sub-step would overshoot below it


def parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    """The weights of the three experts and the gate."""
    size = shape.state_size
    offsets, links = len(wiring.local_offsets), shape.distant_links
    return [
        Parameter("local.neighbour", (offsets, size), 1.0 / math.sqrt(offsets)),
        *_listener("local", size, gain=0.5),
        *linear_parameters("functional.query", size, 3 * size),
        *linear_parameters("functional", size, size, gain=0.5),
        Parameter("distant.link", (shape.cells, links), 1.0 / math.sqrt(links)),
        *_listener("distant", size),
        # Its square and a little more is the time constant of a number of the state: 1 at first.
        Parameter("distant.time", (size,), 0.0, fill=math.sqrt(1.0 - _LEAST_TIME), decays=False),
        *linear_parameters("gate", size, len(EXPERTS)),
    ]


def local(
    weights: dict[str, Tensor], wiring: Geometry, state: Float[Tensor, "P C B S"]
) -> Float[Tensor, "P C B S"]:
    """Linear over the nearest cells: each direction has its own weight per number of the state.

    Beyond the border of the lattice the state is zero.
    """
    grid = state.unflatten(1, wiring.size)
    heard = stencil(grid, weights["local.neighbour"], wiring.local_offsets).flatten(1, 3)
    return linear(weights, "local", state, start=_hear(weights, "local", heard))


def functional(
    weights: dict[str, Tensor], wiring: Geometry, state: Float[Tensor, "P C B S"]
) -> Float[Tensor, "P C B S"]:
    """Attention over the middle tier (Vaswani et al. 2017), masked to its links."""
    trials, cells, samples, size = state.shape
    heads = max(1, size // _HEAD_SIZE) if size % _HEAD_SIZE == 0 else 1
    queries = linear(weights, "functional.query", state)
    # Samples times heads on one axis keeps the product four-dimensional: the fast kernel needs it.
    query, key, value = (
        part.reshape(trials, cells, samples * heads, size // heads).transpose(1, 2)
        for part in queries.chunk(3, dim=-1)
    )
    heard = F.scaled_dot_product_attention(query, key, value, attn_mask=wiring.functional)
    return linear(weights, "functional", heard.transpose(1, 2).reshape(state.shape))


def distant(
    weights: dict[str, Tensor], wiring: Geometry, state: Float[Tensor, "P C B S"]
) -> Float[Tensor, "P C B S"]:
    """A continuous-time cell driven over sparse long links, integrated with Euler steps.

    du/dt = (tanh(W [u, heard] + b) - u) / time, from u = state over one exchange (Hasani et al.
    2021 give the family of equations).
    """
    trials, cells = state.shape[:2]
    links = weights["distant.link"]
    wires = links.new_zeros(trials, cells, cells)
    wires = wires.scatter(2, wiring.distant.expand(trials, -1, -1), links)
    heard = (wires @ state.flatten(2)).unflatten(2, state.shape[2:])
    drive = _hear(weights, "distant", heard)
    time = weights["distant.time"].square() + _LEAST_TIME
    rate = 1.0 / (time * _EULER_STEPS)[:, None, None]
    inside = state
    for _ in range(_EULER_STEPS):
        target = torch.tanh(linear(weights, "distant", inside, start=drive))
        inside = inside + (target - inside) * rate
    return inside - state


def gate(weights: dict[str, Tensor], state: Float[Tensor, "P C B S"]) -> Float[Tensor, "P 3 C B"]:
    """The share of each expert in the change of each cell; the shares of a cell sum to 1."""
    # Experts before cells: a softmax over a last axis of three would not use the vector units.
    scores = torch.baddbmm(
        weights["gate.bias"][..., None], weights["gate.weight"].mT, state.flatten(1, 2).mT
    )
    return scores.softmax(1).unflatten(2, state.shape[1:3])


def _listener(name: str, size: int, gain: float = 1.0) -> list[Parameter]:
    """A linear layer over a cell's own state (weight) and over what it heard (heard)."""
    own = linear_parameters(name, size, size, gain / math.sqrt(2.0))
    return [*own, Parameter(f"{name}.heard", (size, size), own[0].scale)]


def _hear(
    weights: dict[str, Tensor], name: str, heard: Float[Tensor, "P C B S"]
) -> Float[Tensor, "P C B S"]:
    """The part of a listener that does not depend on the cell's own state, bias included."""
    out = torch.baddbmm(
        weights[f"{name}.bias"][:, None], heard.flatten(1, 2), weights[f"{name}.heard"]
    )
    return out.unflatten(1, heard.shape[1:3])
