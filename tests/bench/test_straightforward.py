"""The plain code computes what the packs compute; only then is a ratio of their times one."""

import pytest
import torch

from cubeopt.bench import stepping, straightforward
from cubeopt.bench.straightforward import StraightCube, Tiers
from cubeopt.lattice.cube import Cube
from cubeopt.lattice.pack import columns
from cubeopt.trial import CubeShape, TrialSpec

CPU = torch.device("cpu")
SHAPE = CubeShape(
    lattice_size=(3, 3, 4),
    embedding_size=16,
    state_size=16,
    lattice_steps=3,
    batch_size=8,
    distant_links=2,
)


@pytest.mark.parametrize("tiers", [Tiers.DENSE, Tiers.SPARSE])
@pytest.mark.parametrize("readout", ["value", "state"])
def test_the_plain_cube_is_the_same_function(tiers, readout):
    shape = SHAPE.model_copy(update={"readout": readout})
    cube = Cube(shape, CPU)
    row = cube.layout.initial(3).double()
    source = torch.randn(8, 16, dtype=torch.float64)
    knobs = columns([TrialSpec(shape=shape)], CPU, torch.float64)
    expected = cube.forward(row[None], source[None], knobs.halting_threshold)
    found = StraightCube(cube, row, tiers)(source)
    for name in ("output", "gates", "active", "steps", "ponder", "change", "roughness"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("tiers", [Tiers.DENSE, Tiers.SPARSE])
def test_the_plain_step_is_the_same_step(tiers):
    run = stepping.packed(SHAPE, 1, CPU)
    spec = TrialSpec(shape=SHAPE)
    schedule = spec.with_values({"schedule": "constant", "warmup_fraction": 0.0})
    run.empty(0)
    run.fill(0, run.fresh(schedule))
    row = run.state(0).weights
    cube = StraightCube(run.cube, row, tiers)
    adamw = straightforward.optimizer(cube, schedule.optim)
    plain = []
    for number in range(3):
        source, target = run.feed.batch({0: (0, number)}, 1, 8)
        plain.append(straightforward.step(cube, adamw, source[0], target[0], schedule))
        run.step()
        assert run.running(0)["loss/total"] == pytest.approx(sum(plain) / len(plain), rel=1e-5)
    named = run.cube.layout.named(run.state(0).weights)
    # Decay pulls matrices only in a pack, and everything in the plain code: look at matrices.
    for name in ("enter.weight", "functional.speech.weight", "gate.weight", "leave.weight"):
        torch.testing.assert_close(cube[name].detach(), named[name], rtol=1e-3, atol=1e-5)


def test_attention_is_another_function_of_the_same_size():
    cube = Cube(SHAPE, CPU)
    plain = StraightCube(cube, cube.layout.initial(0), Tiers.ATTENTION)
    assert plain(torch.randn(8, 16)).output.shape == (1, 8, 16)
