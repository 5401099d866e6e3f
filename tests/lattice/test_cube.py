"""The cube against a slow one, written cell by cell."""

import math

import pytest
import torch

from cubeopt.lattice.cube import Cube
from cubeopt.trial import CubeShape

SHAPE = CubeShape(
    lattice_size=(2, 3, 4),
    embedding_size=9,
    state_size=16,
    lattice_steps=2,
    batch_size=3,
    distant_links=3,
)
CPU = torch.device("cpu")


def slow_cube(cube, weights, source):
    """One trial, one sample: the output, and the gates of each step and cell."""
    wiring, cells = cube.wiring, cube.shape.cells
    where = [tuple(p) for p in torch.cartesian_prod(*map(torch.arange, wiring.size)).tolist()]
    values = source @ weights["enter.weight"] + weights["enter.bias"]
    state = [torch.zeros(16, dtype=source.dtype) for _ in range(cells)]
    for value, cell in zip(values, wiring.input_face.tolist(), strict=True):
        state[cell] = value * weights["enter.write"]
    gates = []
    for _ in range(cube.shape.lattice_steps):
        seen = [
            s / torch.sqrt(1.0 + (s * s).mean()) + weights["place.vector"][cell]
            for cell, s in enumerate(state)
        ]
        moved = []
        for cell in range(cells):
            share = layer(weights, "gate", seen[cell]).softmax(0)
            gates.append(share)
            proposals = (
                slow_local(weights, wiring, where, seen, cell),
                slow_functional(weights, wiring, seen, cell),
                slow_distant(weights, wiring, seen, cell),
            )
            moved.append(sum(part * move for part, move in zip(share, proposals, strict=True)))
        state = [s + move for s, move in zip(state, moved, strict=True)]
    face = torch.stack([state[cell] @ weights["leave.read"] for cell in wiring.output_face])
    return face @ weights["leave.weight"] + weights["leave.bias"], torch.stack(gates)


def layer(weights, name, x):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def slow_local(weights, wiring, where, seen, cell):
    heard = torch.zeros_like(seen[cell])
    for index, offset in enumerate(wiring.local_offsets):
        place = tuple(a + b for a, b in zip(where[cell], offset, strict=True))
        if place in where:
            heard = heard + weights["local.neighbour"][index] * seen[where.index(place)]
    return layer(weights, "local", seen[cell]) + heard @ weights["local.heard"]


def slow_functional(weights, wiring, seen, cell):
    queries = [layer(weights, "functional.query", s).chunk(3) for s in seen]
    others = wiring.functional[cell].nonzero().flatten().tolist()
    scores = torch.stack([queries[cell][0] @ queries[o][1] / math.sqrt(16) for o in others])
    heard = sum(p * queries[o][2] for p, o in zip(scores.softmax(0), others, strict=True))
    return layer(weights, "functional", heard)


def slow_distant(weights, wiring, seen, cell):
    links = zip(weights["distant.link"][cell], wiring.distant[cell].tolist(), strict=True)
    heard = sum(weight * seen[other] for weight, other in links)
    inside = seen[cell]
    time = weights["distant.time"] ** 2 + 0.5
    for _ in range(2):
        target = torch.tanh(layer(weights, "distant", inside) + heard @ weights["distant.heard"])
        inside = inside + 0.5 * (target - inside) / time
    return inside - seen[cell]


@pytest.fixture(scope="module")
def cube():
    return Cube(SHAPE, CPU)


def arena_of(cube, seeds):
    return torch.stack([cube.layout.initial(seed) for seed in seeds]).double()


def test_forward_and_every_gradient_equal_those_of_the_slow_cube(cube):
    arena = arena_of(cube, [1, 2]).requires_grad_(True)
    source = torch.randn(2, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    passage = cube.forward(arena, source)
    slow = arena.detach().clone().requires_grad_(True)
    for p in range(2):
        named = cube.layout.named(slow[p])
        for b in range(3):
            output, gates = slow_cube(cube, named, source[p, b])
            torch.testing.assert_close(passage.output[p, b], output, rtol=1e-10, atol=1e-10)
            ordered = passage.gates[p, :, :, :, b].mT.reshape(-1, 3)
            torch.testing.assert_close(ordered, gates, rtol=1e-10, atol=1e-10)
            output.square().sum().backward(retain_graph=True)
    (found,) = torch.autograd.grad(passage.output.square().sum(), arena)
    torch.testing.assert_close(found, slow.grad, rtol=1e-10, atol=1e-10)


def without_moves(cube, seed):
    """Weights with which no expert moves a cell."""
    named = cube.layout.named(arena_of(cube, [seed])[0])
    for name in ("local", "functional", "distant"):
        named[f"{name}.weight"] = torch.zeros_like(named[f"{name}.weight"])
        named[f"{name}.bias"] = torch.zeros_like(named[f"{name}.bias"])
    named["local.heard"] = torch.zeros_like(named["local.heard"])
    named["distant.time"] = torch.full_like(named["distant.time"], 1e150)  # infinitely slow
    return named


def test_the_input_reaches_the_output_only_through_the_exchange_of_cells(cube):
    source = torch.randn(1, 3, 9, dtype=torch.float64)
    moving = arena_of(cube, [1])
    still = cube.layout.row(without_moves(cube, 1))[None]
    for arena, reaches in ((moving, True), (still, False)):
        one, other = cube.forward(arena, source).output, cube.forward(arena, source + 1).output
        assert torch.equal(one, other) is not reaches


def test_change_and_roughness_are_what_they_say(cube):
    still = without_moves(cube, 3)
    passage = cube.forward(cube.layout.row(still)[None], torch.ones(1, 3, 9, dtype=torch.float64))
    assert passage.change.item() == pytest.approx(0.0, abs=1e-12)
    values = torch.ones(9, dtype=torch.float64) @ still["enter.weight"] + still["enter.bias"]
    grid = torch.zeros(2, 3, 4, 16, dtype=torch.float64)
    grid[:, :, 0] = (values[:, None] * still["enter.write"]).view(2, 3, 16)
    expected = sum(grid.diff(dim=axis).square().mean() for axis in range(3)) / 3
    assert passage.roughness.item() == pytest.approx(expected.item())
