"""Random numbers that depend on nothing but a trial's seed, their purpose, its step and a place.

No generator is advanced, so a trial meets the same noise in every slot and pack, on every device,
and wherever training was begun again. The integers are those of splitmix64 (Steele, Lea and Flood
2014): the i-th number of a stream is its mixing function of *key* + i * gamma.

G slots, B samples, D embedding size, C cells, S state size, K numbers of a slot.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cubeopt.training import device as devices
from cubeopt.trial import CubeShape, TrialSpec

_BITS = 24  # of each number: what float32 holds exactly
_SIGNED = 1 << 63


@dataclass(frozen=True)
class Place:
    """Whose noise is asked for, and at which of its steps."""

    spec: TrialSpec
    step: int


class InputNoise(NamedTuple):
    """What is added to the input of G trials."""

    streams: Int64[Tensor, " G"]
    size: Float[Tensor, " G"]  # 0 where nothing is


class Dropout(NamedTuple):
    """What G trials leave out of the shown states."""

    streams: Int64[Tensor, " G"]
    limit: Int64[Tensor, " G"]  # numbers below it are left out; 0 where nothing is
    scale: Float[Tensor, " G"]  # of what is kept


def input_noise(
    places: Sequence[Place | None], dtype: torch.dtype, device: torch.device
) -> InputNoise | None:
    """The `input_noise` of these trials at their steps; None if none of them has any."""
    sizes = [0.0 if place is None else place.spec.cube.input_noise for place in places]
    if not any(sizes):
        return None
    return InputNoise(keys("input", places, device), devices.tensor(sizes, dtype, device))


def dropout(
    places: Sequence[Place | None], dtype: torch.dtype, device: torch.device
) -> Dropout | None:
    """The `dropout` of these trials at their steps; None if none of them has any."""
    rates = [0.0 if place is None else place.spec.cube.dropout for place in places]
    if not any(rates):
        return None
    limits = [round(rate * 2**_BITS) for rate in rates]
    scales = [1.0 / (1.0 - rate) for rate in rates]
    return Dropout(
        keys("dropout", places, device),
        devices.tensor(limits, torch.int64, device),
        devices.tensor(scales, dtype, device),
    )


def with_input_noise(
    source: Float[Tensor, "G B D"], noise: InputNoise | None
) -> Float[Tensor, "G B D"]:
    """*source* and each trial's size times a standard normal, brought to its old size."""
    if noise is None:
        return source
    size = noise.size[:, None, None]
    drawn = normals(noise.streams, source[0].numel(), source.dtype)
    return (source + size * drawn.view(source.shape)) / (1.0 + size.square()).sqrt()


def kept(shape: CubeShape, drops: Dropout | None) -> Float[Tensor, "G C B S"] | None:
    """What dropout multiplies the shown states with, the same at all steps of the lattice.

    0 or 1 / (1 - p), in one mask for the whole sequence (Gal and Ghahramani 2016).
    """
    if drops is None:
        return None
    sizes = (shape.cells, shape.batch_size, shape.state_size)
    drawn = integers(drops.streams, math.prod(sizes))
    return ((drawn >= drops.limit[:, None]) * drops.scale[:, None]).view(-1, *sizes)


def keys(purpose: str, places: Sequence[Place | None], device: torch.device) -> Int64[Tensor, " G"]:
    """The stream of each trial for *purpose* at its step."""
    values = [
        0 if place is None else _key(place.spec.seed, purpose, place.step) for place in places
    ]
    return devices.tensor(values, torch.int64, device)


def normals(streams: Int64[Tensor, " G"], count: int, dtype: torch.dtype) -> Float[Tensor, "G K"]:
    """*count* standard normals of each stream (Box and Muller 1958)."""
    half = -(-count // 2)
    first, second = integers(streams, 2 * half).to(dtype).split(half, dim=1)
    radius = (-2.0 * ((first + 1.0) * 2.0**-_BITS).log()).sqrt()
    angle = second * (2.0 * math.pi * 2.0**-_BITS)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def integers(streams: Int64[Tensor, " G"], count: int) -> Int64[Tensor, "G K"]:
    """*count* integers of each stream, even over 0 to 2**24 - 1; two from each 64 bits."""
    half = -(-count // 2)
    index = torch.arange(1, half + 1, device=streams.device)
    mixed = streams[:, None] + index * _wrapped(0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted(mixed, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _wrapped(0x94D049BB133111EB)
    mixed = mixed ^ _shifted(mixed, 31)
    low = (mixed >> 16) & (2**_BITS - 1)
    return torch.cat([_shifted(mixed, 64 - _BITS), low], dim=1)[:, :count]


def _key(seed: int, purpose: str, step: int) -> int:
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _shifted(bits: Int64[Tensor, "*any"], places: int) -> Int64[Tensor, "*any"]:
    """*bits* to the right, with zeros from the left: torch repeats the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _wrapped(unsigned: int) -> int:
    """The signed integer of the same 64 bits."""
    return unsigned - 2 * _SIGNED if unsigned >= _SIGNED else unsigned
