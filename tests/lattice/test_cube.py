"""The cube against a slow one, written cell by cell."""

import itertools
import math

import pytest
import torch

from cubeopt.lattice import pack
from cubeopt.lattice.cube import Cube
from cubeopt.trial import CubeKnobs, CubeShape, Expert, TrialSpec

SIZES = {
    "lattice_size": (2, 3, 4),
    "embedding_size": 9,
    "state_size": 8,
    "lattice_steps": 3,
    "batch_size": 3,
    "distant_links": 3,
}
CPU = torch.device("cpu")
VARIANTS = [
    {},
    {"readout": "value"},
    {"placement": "same_face"},
    {"placement": "spread", "readout": "value"},
    {"gate": "frozen"},
    {"halting": "threshold"},
    {"halting": "learned"},
    {"halting": "learned", "gate": "frozen", "readout": "value"},
    {"tiers": "share", "links": 20},
    *({"experts": [expert]} for expert in Expert),
    *({"experts": pair, "halting": "threshold"} for pair in itertools.combinations(Expert, 2)),
]


def shaped(**values):
    return CubeShape.model_validate({**SIZES, **values}, strict=False)


def columns(*knobs):
    specs = [TrialSpec(cube=CubeKnobs(**each)) for each in knobs]
    return pack.columns(specs, CPU, torch.float64).halting_threshold


class SlowCube:
    """One trial, one sample at a time, one cell at a time, gradients by autograd."""

    def __init__(self, cube, weights, threshold=0.0):
        self.shape, self.wiring, self.w = cube.shape, cube.wiring, weights
        self.threshold = threshold
        self.tiers = {
            Expert.LOCAL: cube.wiring.local,
            Expert.FUNCTIONAL: cube.wiring.functional,
            Expert.DISTANT: cube.wiring.distant,
        }

    def forward(self, source, kept):
        """Output, gates of each step taken, its states' mean square change, ponder cost."""
        values = source @ self.w["enter.weight"] + self.w["enter.bias"]
        zero = torch.zeros(self.shape.state_size, dtype=source.dtype)
        state = [zero for _ in range(self.shape.cells)]
        for value, cell in zip(values, self.wiring.written.tolist(), strict=True):
            state[cell] = value * self.w["enter.write"]
        gates, change, total, mean, cost = [], 0.0, 0.0, None, 0.0
        for step in range(self.shape.lattice_steps):
            share, moves = self.exchange(state, kept)
            gates.append(share)
            before, state = state, [s + move for s, move in zip(state, moves, strict=True)]
            change = change + torch.stack(moves).square().mean()
            if self.shape.halting == "threshold":
                size = torch.stack(before).norm()
                if torch.stack(moves).norm() < self.threshold * size:
                    break
            if self.shape.halting == "learned":
                chance = self.chance(state)
                halts = total + chance >= 0.99 or step == self.shape.lattice_steps - 1
                part = 1.0 - total if halts else chance
                mixed = [part * s for s in state]
                mean = mixed if mean is None else [a + b for a, b in zip(mean, mixed, strict=True)]
                cost = cost + 1.0 + (part if halts else 0.0)
                total = total + chance
                if halts:
                    state = mean
                    break
        return self.leave(state), gates, change / self.shape.lattice_steps, cost, state

    def chance(self, state):
        read = [state[cell] for cell in self.wiring.read.tolist()]
        shown = torch.stack([s / torch.sqrt(1.0 + (s * s).mean()) for s in read]).mean(0)
        return torch.sigmoid(shown @ self.w["halt.weight"] + self.w["halt.bias"])[0]

    def exchange(self, state, kept):
        shown = [
            s / torch.sqrt(1.0 + (s * s).mean()) * kept[cell] + self.w["place.vector"][cell]
            for cell, s in enumerate(state)
        ]
        propose = {
            Expert.LOCAL: self.local,
            Expert.FUNCTIONAL: self.functional,
            Expert.DISTANT: self.distant,
        }
        shares, moves = [], []
        for cell in range(self.shape.cells):
            share = self.share(shown[cell])
            shares.append(share)
            parts = zip(share, self.shape.experts, strict=True)
            moves.append(sum(part * propose[expert](shown, cell) for part, expert in parts))
        return torch.stack(shares), moves

    def share(self, shown):
        count = len(self.shape.experts)
        if count == 1 or self.shape.gate == "frozen":
            return torch.full((count,), 1.0 / count, dtype=shown.dtype)
        return self.layer("gate", shown).softmax(0)

    def layer(self, name, x):
        return x @ self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def heard(self, expert, said, cell):
        links = self.tiers[expert]
        heard = torch.zeros_like(said[0])
        for link in (links.listener == cell).nonzero().flatten().tolist():
            heard = heard + self.w[f"{expert}.link"][link] * said[int(links.speaker[link])]
        return heard @ self.w[f"{expert}.heard"]

    def local(self, shown, cell):
        return self.layer("local", shown[cell]) + self.heard(Expert.LOCAL, shown, cell)

    def functional(self, shown, cell):
        speech = [self.layer("functional.speech", s).chunk(2) for s in shown]
        said = [message * loudness.sigmoid() for message, loudness in speech]
        heard = self.heard(Expert.FUNCTIONAL, said, cell)
        return torch.tanh(self.layer("functional", shown[cell]) + heard)

    def distant(self, shown, cell):
        heard = self.heard(Expert.DISTANT, shown, cell)
        time = self.w["distant.time"] ** 2 + 0.5
        inside = shown[cell]
        for _ in range(2):
            target = torch.tanh(self.layer("distant", inside) + heard)
            inside = inside + 0.5 * (target - inside) / time
        return inside - shown[cell]

    def leave(self, state):
        face = torch.stack([state[cell] for cell in self.wiring.read.tolist()])
        numbers = face @ self.w["leave.read"] if self.shape.readout == "value" else face.flatten()
        return numbers @ self.w["leave.weight"] + self.w["leave.bias"]


def arena_of(cube, seeds):
    return torch.stack([cube.layout.initial(seed) for seed in seeds]).double()


def random(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("values", VARIANTS, ids=str)
def test_the_passage_and_every_gradient_equal_those_of_the_slow_cube(values):
    shape = shaped(**values)
    cube = Cube(shape, CPU)
    arena = arena_of(cube, [1, 2]) * 1.5
    if shape.halting == "learned":
        cube.layout.views(arena)["halt.bias"].copy_(torch.tensor([[2.0], [0.1]]))
    arena.requires_grad_(True)
    source = random(2, 3, 9).requires_grad_(True)
    kept = random(2, 24, 3, 8, seed=1).abs()
    thresholds = (0.5, 0.3)
    knobs = columns(*({"halting_threshold": each} for each in thresholds))
    passage = cube.forward(arena, source, knobs, kept)
    weight = random(9, seed=2)
    total = (passage.output @ weight).sum() + passage.gates.square().sum()
    total = total + passage.change.sum() + passage.ponder.sum() + passage.roughness.sum()

    slow_total, taken = torch.zeros((), dtype=torch.float64), set()
    slow_arena = arena.detach().clone().requires_grad_(True)
    slow_source = source.detach().clone().requires_grad_(True)
    for p, b in itertools.product(range(2), range(3)):
        slow = SlowCube(cube, cube.layout.named(slow_arena[p]), thresholds[p])
        output, gates, change, cost, state = slow.forward(slow_source[p, b], kept[p, :, b])
        torch.testing.assert_close(passage.output[p, b], output, rtol=1e-10, atol=1e-10)
        found = passage.gates[p, : len(gates), :, :, b].mT
        torch.testing.assert_close(found, torch.stack(gates), rtol=1e-10, atol=1e-10)
        assert passage.steps[p, b].item() == len(gates)
        assert passage.active[p, :, b].tolist() == [1.0] * len(gates) + [0.0] * (3 - len(gates))
        taken.add(len(gates))
        slow_total = slow_total + output @ weight + torch.stack(gates).square().sum()
        grid = torch.stack(state).view(2, 3, 4, 8)
        rough = sum(grid.diff(dim=axis).square().mean() for axis in range(3)) / 3
        slow_total = slow_total + (change + cost + rough) / 3
    torch.testing.assert_close(total, slow_total, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(total, (arena, source))
    expected = torch.autograd.grad(slow_total, (slow_arena, slow_source))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    if shape.halting != "fixed" and len(shape.experts) > 1:
        assert min(taken) < 3, "nobody halted early: the case shows nothing"


def test_samples_halt_each_at_its_own_step():
    cube = Cube(shaped(halting="threshold", lattice_steps=12), CPU)
    source = random(1, 16, 9) * torch.logspace(-2, 2, 16).double()[:, None]
    passage = cube.forward(arena_of(cube, [3]), source, columns({"halting_threshold": 0.35}))
    assert set(passage.steps[0].tolist()) == {1.0, 3.0}


def test_a_trial_takes_the_same_steps_to_the_bit_whatever_its_neighbours_need():
    shape = shaped(halting="threshold", lattice_steps=10)
    cube = Cube(shape, CPU)
    arena, source = arena_of(cube, [3, 4]), random(1, 3, 9).expand(2, -1, -1)
    quick, slow = {"halting_threshold": 10.0}, {"halting_threshold": 0.0}
    alone = cube.forward(arena[:1], source[:1], columns(quick))
    packed = cube.forward(arena, source, columns(quick, slow))
    assert alone.steps.tolist() == [[1.0] * 3]
    assert packed.steps[1].tolist() == [10.0] * 3
    for name in ("output", "gates", "active", "steps", "change", "roughness"):
        assert torch.equal(getattr(alone, name)[0], getattr(packed, name)[0]), name


def test_learned_halting_takes_all_steps_at_first():
    cube = Cube(shaped(halting="learned", lattice_steps=6), CPU)
    passage = cube.forward(arena_of(cube, [1]), random(1, 3, 9), columns({}))
    assert passage.steps.min().item() >= 5.0
    assert 6.0 <= passage.ponder.item() <= 7.0


def test_a_large_lattice_that_computes_each_step_twice_has_the_same_gradient(monkeypatch):
    cube = Cube(shaped(), CPU)
    arena, source = arena_of(cube, [1, 2]), random(2, 3, 9)
    kept = random(2, 24, 3, 8, seed=1).abs()
    found = []
    for most in (1 << 40, 0):
        monkeypatch.setattr("cubeopt.lattice.cube._MOST_KEPT", {"cpu": most})
        leaf = arena.clone().requires_grad_(True)
        output = cube.forward(leaf, source, columns({}, {}), kept).output
        found.append(torch.autograd.grad(output.square().sum(), leaf)[0])
    assert torch.equal(*found)


def without_moves(cube, seed):
    """Weights with which no expert moves a cell."""
    named = cube.layout.named(arena_of(cube, [seed])[0])
    for name in ("local", "functional", "distant"):
        for part in ("weight", "bias", "heard"):
            named[f"{name}.{part}"] = torch.zeros_like(named[f"{name}.{part}"])
    named["distant.time"] = torch.full_like(named["distant.time"], 1e150)  # infinitely slow
    return named


@pytest.mark.parametrize("readout", ["value", "state"])
def test_the_input_reaches_the_output_only_through_the_exchange_of_cells(readout):
    cube = Cube(shaped(readout=readout), CPU)
    source = random(1, 3, 9)
    moving = arena_of(cube, [1])
    still = cube.layout.row(without_moves(cube, 1))[None]
    for arena, reaches in ((moving, True), (still, False)):
        one, other = (cube.forward(arena, x, columns({})).output for x in (source, source + 1))
        assert torch.equal(one, other) is not reaches


def test_change_and_roughness_are_what_they_say():
    cube = Cube(shaped(), CPU)
    still = without_moves(cube, 3)
    ones = torch.ones(1, 3, 9, dtype=torch.float64)
    passage = cube.forward(cube.layout.row(still)[None], ones, columns({}))
    assert passage.change.item() == pytest.approx(0.0, abs=1e-12)
    values = torch.ones(9, dtype=torch.float64) @ still["enter.weight"] + still["enter.bias"]
    grid = torch.zeros(2, 3, 4, 8, dtype=torch.float64)
    grid[:, :, 0] = (values[:, None] * still["enter.write"]).view(2, 3, 8)
    expected = sum(grid.diff(dim=axis).square().mean() for axis in range(3)) / 3
    assert passage.roughness.item() == pytest.approx(expected.item())


def test_links_are_as_strong_at_first_that_a_cell_hears_about_one_speaker():
    cube = Cube(CubeShape(lattice_size=(6, 6, 6)), CPU)
    named = cube.layout.named(cube.layout.initial(0))
    for expert in Expert:
        links = getattr(cube.wiring, expert)
        loudest = torch.zeros(216).index_add(0, links.listener, named[f"{expert}.link"].square())
        assert math.isclose(loudest.mean().item(), 1.0, rel_tol=0.1)
