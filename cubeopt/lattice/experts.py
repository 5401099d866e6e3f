"""Three experts that differ in kind, each with its gradient.

P trials, R rows (cells times samples), S state size, L links.

An expert sees what a cell and the neighbours in its tier show, and proposes a change of the cell's
state. Weights are shared by the cells, but for the strengths of their links; a learned place vector
tells the cells apart.

The gradients are written out because an exchange is where all the time goes: autograd would keep
twice as much, and add up the ten gradients of what is shown in passes of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Parameter, linear_parameters
from cubeopt.lattice.links import Links, hear, hear_backward
from cubeopt.trial import CubeShape, Expert

Weights = dict[str, Tensor]
Rows = Float[Tensor, "P R S"]
Kept = tuple[Tensor, ...]  # what the gradient needs

_EULER_STEPS = 2  # sub-steps in which the distant expert is integrated over one exchange
_LEAST_TIME = 0.5  # exchanges; half a sub-step would overshoot below it


@dataclass(frozen=True)
class Proposing:
    """How an expert proposes, and how the gradient of its proposal goes back.

    ``backward(of_proposal, kept, weights, wiring, shown, of_shown, of)`` adds to *of_shown* in
    place, and puts the gradients of the expert's weights into *of*, by name.
    """

    parameters: Callable[[CubeShape, Geometry], list[Parameter]]
    forward: Callable[[Weights, Geometry, Rows], tuple[Rows, Kept]]
    backward: Callable[[Rows, Kept, Weights, Geometry, Rows, Rows, Weights], None]


def _local_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    link = _link_parameter("local.link", wiring.local)
    return [link, *_listener("local", shape.state_size, gain=0.5)]


def _local(weights: Weights, wiring: Geometry, shown: Rows) -> tuple[Rows, Kept]:
    """Linear over the nearest cells, each link of its own strength."""
    heard = hear(wiring.local, weights["local.link"], shown)
    return _listen(weights, "local", heard).baddbmm_(shown, weights["local.weight"]), (heard,)


def _local_backward(
    of_proposal: Rows,
    kept: Kept,
    weights: Weights,
    wiring: Geometry,
    shown: Rows,
    of_shown: Rows,
    of: Weights,
) -> None:
    (heard,) = kept
    of["local.weight"] = shown.mT @ of_proposal
    of_shown.baddbmm_(of_proposal, weights["local.weight"].mT)
    of_heard = _listen_backward(of_proposal, heard, weights, "local", of)
    more, of["local.link"] = hear_backward(of_heard, wiring.local, weights["local.link"], shown)
    of_shown.add_(more)


def _functional_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    size = shape.state_size
    return [
        *linear_parameters("functional.message", size, size),
        *linear_parameters("functional.loudness", size, size),
        _link_parameter("functional.link", wiring.functional),
        *_listener("functional", size),
    ]


def _functional(weights: Weights, wiring: Geometry, shown: Rows) -> tuple[Rows, Kept]:
    """Messages from the middle tier (Gilmer et al. 2017), each over a link of its own strength.

    What a cell says, and how loud, depends on its state alone: message * sigmoid(loudness).
    """
    loudness = _linear(weights, "functional.loudness", shown).sigmoid_()
    message = _linear(weights, "functional.message", shown)
    said = message * loudness
    heard = hear(wiring.functional, weights["functional.link"], said)
    proposal = _listen(weights, "functional", heard)
    proposal.baddbmm_(shown, weights["functional.weight"]).tanh_()
    return proposal, (proposal, loudness, message, said, heard)


def _functional_backward(
    of_proposal: Rows,
    kept: Kept,
    weights: Weights,
    wiring: Geometry,
    shown: Rows,
    of_shown: Rows,
    of: Weights,
) -> None:
    proposal, loudness, message, said, heard = kept
    inner = torch.ops.aten.tanh_backward(of_proposal, proposal)
    of["functional.weight"] = shown.mT @ inner
    of_shown.baddbmm_(inner, weights["functional.weight"].mT)
    of_heard = _listen_backward(inner, heard, weights, "functional", of)
    of_said, of["functional.link"] = hear_backward(
        of_heard, wiring.functional, weights["functional.link"], said
    )
    of_loudness = torch.ops.aten.sigmoid_backward(of_said * message, loudness)
    _linear_backward(of_loudness, shown, weights, "functional.loudness", of_shown, of)
    of_message = of_said.mul_(loudness)
    _linear_backward(of_message, shown, weights, "functional.message", of_shown, of)


def _distant_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    size = shape.state_size
    return [
        _link_parameter("distant.link", wiring.distant),
        *_listener("distant", size),
        # Its square and a little more is the time constant of a number of the state: 1 at first.
        Parameter("distant.time", (size,), 0.0, fill=math.sqrt(1.0 - _LEAST_TIME), decays=False),
    ]


def _distant(weights: Weights, wiring: Geometry, shown: Rows) -> tuple[Rows, Kept]:
    """A continuous-time cell driven over sparse long links, integrated with Euler steps.

    du/dt = (tanh(W [u, heard] + b) - u) / time, from u = what the cell shows, over one exchange
    (Hasani et al. 2021 give the family of equations).
    """
    heard = hear(wiring.distant, weights["distant.link"], shown)
    drive = _listen(weights, "distant", heard)
    rate = _rate(weights)
    inside, kept = shown, []
    for _ in range(_EULER_STEPS):
        target = torch.baddbmm(drive, inside, weights["distant.weight"]).tanh_()
        way = target - inside
        kept += [inside, target, way]
        inside = torch.addcmul(inside, way, rate)
    return inside - shown, (heard, *kept)


def _distant_backward(
    of_proposal: Rows,
    kept: Kept,
    weights: Weights,
    wiring: Geometry,
    shown: Rows,
    of_shown: Rows,
    of: Weights,
) -> None:
    heard, *steps = kept
    weight, rate = weights["distant.weight"], _rate(weights)
    of_inside = of_proposal
    of_drive, of_weight = torch.zeros_like(shown), torch.zeros_like(weight)
    of_rate = torch.zeros_like(rate)
    for step in reversed(range(_EULER_STEPS)):
        inside, target, way = steps[3 * step : 3 * step + 3]
        of_rate += (of_inside * way).sum(1, keepdim=True)
        of_way = of_inside * rate
        inner = torch.ops.aten.tanh_backward(of_way, target)
        of_weight.baddbmm_(inside.mT, inner)
        of_drive += inner
        of_inside = (of_inside - of_way).baddbmm_(inner, weight.mT)
    of_shown.add_(of_inside).sub_(of_proposal)
    of["distant.weight"] = of_weight
    time = weights["distant.time"]
    of["distant.time"] = of_rate[:, 0] * -2.0 * time * rate[:, 0].square() * _EULER_STEPS
    of_heard = _listen_backward(of_drive, heard, weights, "distant", of)
    more, of["distant.link"] = hear_backward(
        of_heard, wiring.distant, weights["distant.link"], shown
    )
    of_shown.add_(more)


def _rate(weights: Weights) -> Float[Tensor, "P 1 S"]:
    """Of the way to its target, how much a number goes in one sub-step."""
    time = weights["distant.time"].square() + _LEAST_TIME
    return (1.0 / (time * _EULER_STEPS))[:, None]


PROPOSING = {
    Expert.LOCAL: Proposing(_local_parameters, _local, _local_backward),
    Expert.FUNCTIONAL: Proposing(_functional_parameters, _functional, _functional_backward),
    Expert.DISTANT: Proposing(_distant_parameters, _distant, _distant_backward),
}


def _link_parameter(name: str, links: Links) -> Parameter:
    """One strength for each link, so that a cell hears about as much as one speaker shows."""
    return Parameter(name, (len(links),), math.sqrt(links.cells / len(links)))


def _listener(name: str, size: int, gain: float = 1.0) -> list[Parameter]:
    """A linear layer over what a cell shows itself (weight) and over what it heard (heard)."""
    own = linear_parameters(name, size, size, gain / math.sqrt(2.0))
    return [*own, Parameter(f"{name}.heard", (size, size), own[0].scale)]


def _listen(weights: Weights, name: str, heard: Rows) -> Rows:
    """The part of a listener that does not depend on what the cell shows itself, with the bias."""
    return torch.baddbmm(weights[f"{name}.bias"][:, None], heard, weights[f"{name}.heard"])


def _listen_backward(inner: Rows, heard: Rows, weights: Weights, name: str, of: Weights) -> Rows:
    """The gradient of what was *heard*; those of the weights go into *of*."""
    of[f"{name}.bias"] = inner.sum(1)
    of[f"{name}.heard"] = heard.mT @ inner
    return inner @ weights[f"{name}.heard"].mT


def _linear(weights: Weights, name: str, shown: Rows) -> Rows:
    return torch.baddbmm(weights[f"{name}.bias"][:, None], shown, weights[f"{name}.weight"])


def _linear_backward(
    inner: Rows, shown: Rows, weights: Weights, name: str, of_shown: Rows, of: Weights
) -> None:
    of[f"{name}.bias"] = inner.sum(1)
    of[f"{name}.weight"] = shown.mT @ inner
    of_shown.baddbmm_(inner, weights[f"{name}.weight"].mT)
