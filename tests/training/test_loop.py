"""A trial in a pack is the trial alone; it can be taken out and put back anywhere."""

import math

import pytest
import torch

from cubeopt import trial
from cubeopt.errors import ConfigError
from cubeopt.lattice.pack import computes_together
from cubeopt.training.loop import PackRun
from cubeopt.trial import LossKnobs, OptimKnobs

from .conftest import CPU, SMALL, WHOLE, spec, start, train

CHANGES = [
    {"seed": 1},
    {"seed": 2, "learning_rate": 1e-2, "diversity_weight": 0.0},
    {"seed": 3, "schedule": "cosine", "similarity_weight": 1.5, "gradient_clip": 0.1},
    {"seed": 4, "emergence": "legacy_log", "weight_decay": 0.3},
]
TRIALS = [spec(**changes) for changes in CHANGES]


@pytest.fixture(params=["one pass", "slot by slot"])
def trials(request):
    """Four trials of a shape that is computed in one pass, or of one that is not."""
    base = WHOLE if request.param == "one pass" else SMALL
    made = [trial.from_flat({**base, **changes}) for changes in CHANGES]
    assert computes_together(made[0].shape, CPU) is (request.param == "one pass")
    return made


def test_a_pack_equals_its_trials_alone(feed64, trials):
    together = train(start(feed64, 4, dict(enumerate(trials))), 20)
    for slot, each in enumerate(trials):
        alone = train(start(feed64, 1, {0: each}), 20)
        torch.testing.assert_close(
            together.state(slot).weights, alone.state(0).weights, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("mates", [[], [1], [3, 2, 1]])
@pytest.mark.parametrize("slot", [0, 1, 3])
def test_at_one_width_neither_mates_nor_place_change_a_bit(feed, trials, mates, slot):
    expected = train(start(feed, 4, dict(enumerate(trials))), 20)
    others = [free for free in range(4) if free != slot]
    places = {slot: trials[0]} | {
        place: trials[mate] for place, mate in zip(others, mates, strict=False)
    }
    found = train(start(feed, 4, places), 20)
    assert torch.equal(found.state(slot).weights, expected.state(0).weights)
    assert torch.equal(found.state(slot).square, expected.state(0).square)
    assert found.evaluate("test", [slot])[slot] == expected.evaluate("test", [0])[0]


def test_a_neighbour_that_turns_to_nan_changes_no_bit(feed, trials):
    expected = train(start(feed, 2, {0: trials[0], 1: trials[1]}), 12)
    run = start(feed, 2, {0: trials[0], 1: trials[1]})
    run.arena[1, 5] = math.nan
    ends = [end for _ in range(12) for end in run.step()]
    assert torch.equal(run.state(0).weights, expected.state(0).weights)
    assert {end.slot: end.diverged for end in ends} == {0: False, 1: True}


def test_a_slot_refilled_in_the_middle_of_an_epoch_trains_as_if_alone(feed, trials):
    run = train(start(feed, 3, {0: trials[0], 1: trials[1]}), 4)
    run.empty(1)
    run.fill(1, run.fresh(trials[2]))
    train(run, 15)
    refilled = train(start(feed, 3, {1: trials[2]}), 15).state(1)
    assert torch.equal(run.state(1).weights, refilled.weights)
    stayed = train(start(feed, 3, {0: trials[0]}), 19).state(0)
    assert torch.equal(run.state(0).weights, stayed.weights)


def test_each_slot_reports_at_the_end_of_its_own_epoch(feed):
    run = train(start(feed, 2, {0: TRIALS[0]}), 4)
    run.fill(1, run.fresh(TRIALS[1]))
    ends = [(end.slot, end.epoch) for _ in range(8) for end in run.step()]
    assert run.steps_per_epoch == 6
    assert ends == [(0, 1), (1, 1), (0, 2)]


def test_a_state_taken_out_continues_to_the_same_bits(feed, trials):
    straight = train(start(feed, 2, {0: trials[0]}), 17)
    taken = train(start(feed, 2, {0: trials[0], 1: trials[1]}), 8).state(0)
    run = PackRun(taken.spec.shape, 2, feed)
    run.fill(1, taken)
    train(run, 9)
    assert torch.equal(run.state(1).weights, straight.state(0).weights)
    assert run.steps_done(1) == 17


KNOBS = [*LossKnobs.model_fields, *OptimKnobs.model_fields, "seed", "data_seed", "epochs"]


def changed(name):
    value = spec(epochs=2).flat()[name]
    other = {"emergence": "legacy_log", "schedule": "cosine"}.get(name)
    if other is None:
        other = value + 1 if isinstance(value, int) else value * 1.5
    # A short warm-up of no whole step is none; a clip above every norm cuts nothing.
    return {name: 0.5 if name in ("warmup_fraction", "decay_fraction", "gradient_clip") else other}


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_changes_its_own_trial_and_no_other(feed, name):
    # A run of two epochs, to its last step: the schedule's decay begins late.
    steps = 2 * 6
    base = {"epochs": 2} | ({"gradient_clip": 0.05} if name == "gradient_clip" else {})
    plain = train(start(feed, 2, {0: spec(**base), 1: spec(**base)}), steps)
    mixed = train(start(feed, 2, {0: spec(**base), 1: spec(**{**base, **changed(name)})}), steps)
    assert torch.equal(mixed.state(0).weights, plain.state(0).weights)
    assert not torch.equal(mixed.state(1).weights, plain.state(1).weights)


def test_every_module_receives_gradient(feed):
    run = start(feed, 1, {0: spec()})
    (end,) = [end for _ in range(6) for end in run.step()]
    norms = {
        name: value for name, value in end.metrics.items() if name.startswith("train/gradient_norm")
    }
    assert set(norms) == {
        f"train/gradient_norm/{name}" for name in ("all", *run.cube.layout.modules)
    }
    assert all(value > 1e-6 for value in norms.values()), norms


def test_training_lowers_the_loss_and_beats_the_mean(feed):
    run = start(feed, 1, {0: spec(epochs=30, learning_rate=1e-2)})
    ends = [end for _ in range(30 * 6) for end in run.step()]
    fvu = [end.metrics["validation/fvu"] for end in ends]
    assert fvu[0] > 0.9
    assert fvu[-1] < 0.5


def test_an_embedding_of_another_width_is_refused(feed):
    with pytest.raises(ConfigError, match=r"embedding_size is 25, but the dataset rows has .* 32"):
        PackRun(spec(embedding_size=25).shape, 1, feed)


def test_a_trial_of_another_shape_is_refused(feed):
    run = start(feed, 1, {})
    with pytest.raises(ConfigError, match="a pack has one shape"):
        run.fill(0, run.fresh(spec(state_size=7)))


def test_an_epoch_tells_its_learning_rate_and_how_busy_the_device_was(feed):
    values = {"schedule": "cosine", "warmup_fraction": 0.0, "learning_rate": 0.01, "epochs": 2}
    run = start(feed, 2, {0: spec(**values)})
    ends = [end for _ in range(12) for end in run.step()]
    # Of the batches 6 and 12 of 12, counted from 0.
    expected = [0.005 * (1.0 + math.cos(math.pi * done / 12)) for done in (5, 11)]
    assert [end.metrics["learning_rate"] for end in ends] == pytest.approx(expected)
    assert all(0.0 < end.metrics["device_utilisation"] < 1000.0 for end in ends)


def test_the_running_numbers_become_those_of_the_epoch(feed):
    run = start(feed, 2, {1: TRIALS[0]})
    assert run.running(1) == {}
    train(run, 5)
    numbers = run.running(1)
    (end,) = run.step()
    assert set(end.metrics) >= {f"train/{name}" for name in numbers}
    whole = end.metrics["train/loss/reconstruction"]
    assert numbers["loss/reconstruction"] == pytest.approx(whole, rel=0.2)
    assert run.running(1) == {}
