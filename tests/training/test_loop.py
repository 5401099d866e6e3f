"""A trial in a pack is the trial alone; it can be taken out and put back anywhere."""

import math
from dataclasses import replace

import pytest
import torch

from cubeopt import trial
from cubeopt.errors import ConfigError
from cubeopt.lattice.pack import computes_together
from cubeopt.training import losses
from cubeopt.training.loop import PackRun
from cubeopt.trial import LossKnobs, OptimKnobs

from .conftest import CPU, FEATURES, SMALL, WHOLE, spec, start, train

CHANGES = [
    {"seed": 1},
    {"seed": 2, "learning_rate": 1e-2, "diversity_weight": 0.0},
    {"seed": 3, "schedule": "cosine", "similarity_weight": 1.5, "gradient_clip": 0.1},
    {"seed": 4, "emergence": "legacy_log", "weight_decay": 0.3},
]
# With what there is beside the usual; each may be the neighbour of a trial without any of it.
RICH = [
    {"seed": 5, **FEATURES},
    {"seed": 6, **FEATURES, "weighting": "uncertainty", "gradient_accumulation": 3},
    {"seed": 7, **FEATURES, "weighting": "dynamic_average", "ema_decay": 0.0},
    {"seed": 8, "weighting": "annealed", "spatial_weight_end": 1.0, "ema_decay": 0.99},
]
TRIALS = [spec(**changes) for changes in CHANGES]


@pytest.fixture(params=["one pass", "slot by slot"])
def trials(request):
    """Four plain and four rich trials of a shape computed in one pass, or of one that is not."""
    base = WHOLE if request.param == "one pass" else SMALL
    made = [trial.from_flat({**base, **changes}) for changes in [*CHANGES, *RICH]]
    assert computes_together(made[0].shape, CPU) is (request.param == "one pass")
    return made


def test_a_pack_equals_its_trials_alone(feed64, trials):
    together = train(start(feed64, 8, dict(enumerate(trials))), 20)
    for slot, each in enumerate(trials):
        alone = train(start(feed64, 1, {0: each}), 20)
        torch.testing.assert_close(
            together.state(slot).weights, alone.state(0).weights, rtol=1e-10, atol=1e-10
        )


def assert_same(found, expected):
    """Two states of a trial, to the last bit."""
    assert (found.spec, found.step, found.plateau) == (
        expected.spec,
        expected.step,
        expected.plateau,
    )
    assert set(found.kept) == set(expected.kept)
    for name in ("weights", "mean", "square", "average", "gathered"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one is other is None or torch.equal(one, other), name
    for name, each in found.kept.items():
        torch.testing.assert_close(each, expected.kept[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("own", "slot", "mates"),
    [
        *((0, slot, mates) for slot in (0, 1, 3) for mates in ([], [3, 2, 1], [4, 5, 6])),
        *((own, 3, [1, 4, 5]) for own in (4, 5, 6, 7)),
        *((own, 1, []) for own in (4, 5, 6, 7)),
    ],
)
def test_at_one_width_neither_mates_nor_place_change_a_bit(feed, trials, own, slot, mates):
    plain = dict(enumerate(trials[:4])) | {0: trials[own]}
    expected = train(start(feed, 4, plain), 20)
    others = [free for free in range(4) if free != slot]
    places = {slot: trials[own]} | {
        place: trials[mate] for place, mate in zip(others, mates, strict=False)
    }
    found = train(start(feed, 4, places), 20)
    assert_same(found.state(slot), expected.state(0))
    assert found.evaluate("test", [slot])[slot] == expected.evaluate("test", [0])[0]


@pytest.mark.parametrize(
    ("own", "other"), [(0, 1), (0, 4), (0, 5), (4, 1), (4, 4), (5, 4), (6, 5), (7, 4)]
)
def test_a_neighbour_that_turns_to_nan_changes_no_bit(feed, trials, own, other):
    places = {0: trials[own], 1: trials[other]}
    expected = train(start(feed, 2, places), 12)
    run = start(feed, 2, places)
    run.arena[1, 5] = math.nan
    ends = [end for _ in range(12) for end in run.step()]
    assert_same(run.state(0), expected.state(0))
    assert {end.slot: end.diverged for end in ends} == {0: False, 1: True}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 2), (4, 5), (5, 4), (6, 6), (1, 4)])
def test_a_slot_refilled_in_the_middle_of_an_epoch_trains_as_if_alone(feed, trials, before, after):
    run = train(start(feed, 3, {0: trials[0], 1: trials[before]}), 4)
    run.empty(1)
    run.fill(1, run.fresh(trials[after]))
    train(run, 15)
    refilled = train(start(feed, 3, {1: trials[after]}), 15).state(1)
    assert_same(run.state(1), refilled)
    stayed = train(start(feed, 3, {0: trials[0]}), 19).state(0)
    assert_same(run.state(0), stayed)


def test_each_slot_reports_at_the_end_of_its_own_epoch(feed):
    run = train(start(feed, 2, {0: TRIALS[0]}), 4)
    run.fill(1, run.fresh(TRIALS[1]))
    ends = [(end.slot, end.epoch) for _ in range(8) for end in run.step()]
    assert run.steps_per_epoch == 6
    assert ends == [(0, 1), (1, 1), (0, 2)]


@pytest.mark.parametrize(
    ("own", "taken_at"), [(0, 6), (0, 8), (4, 6), (4, 15), (5, 8), (5, 15), (6, 15), (7, 8)]
)
def test_a_state_taken_out_continues_to_the_same_bits(feed, trials, own, taken_at):
    straight = start(feed, 2, {0: trials[own]})
    expected = [end.metrics for _ in range(20) for end in straight.step()]
    taken = train(start(feed, 2, {0: trials[own], 1: trials[1]}), taken_at).state(0)
    run = PackRun(taken.spec.shape, 2, feed)
    run.fill(1, taken)
    found = [end.metrics for _ in range(20 - taken_at) for end in run.step()]
    assert_same(run.state(1), straight.state(0))
    assert run.steps_done(1) == 20
    for name, value in found[-1].items():
        if name.startswith(("train/", "validation/")):
            assert value == expected[-1][name], name


CUBE = ["input_noise", "dropout"]
KNOBS = [*CUBE, *LossKnobs.model_fields, *OptimKnobs.model_fields, "seed", "data_seed", "epochs"]
HARDLY_MOVES = {"schedule": "plateau", "plateau_patience": 0, "learning_rate": 1e-8, "epochs": 3}
# What a knob needs beside it, so that it can have an effect within two epochs.
NEEDS = {
    "gradient_clip": {"gradient_clip": 0.05},
    "dynamic_average_temperature": {"weighting": "dynamic_average", "epochs": 3},
    "gradnorm_asymmetry": {"weighting": "gradnorm", "gradnorm_rate": 0.5},
    "gradnorm_rate": {"weighting": "gradnorm"},
    "halting_threshold": {"halting": "threshold"},
    "ponder_weight": {"halting": "learned"},
    "plateau_factor": HARDLY_MOVES,
    "plateau_patience": HARDLY_MOVES,
}
OTHERS = {
    "emergence": "legacy_log",
    "schedule": "cosine",
    "weighting": "uncertainty",
    # A short warm-up of no whole step is none; a clip above every norm cuts nothing.
    **dict.fromkeys(["warmup_fraction", "decay_fraction", "gradient_clip"], 0.5),
    **dict.fromkeys(["input_noise", "dropout", "ema_decay"], 0.5),
    "gradnorm_asymmetry": 0.0,
    "halting_threshold": 0.5,
}


def changed(name):
    value = spec(epochs=2).flat()[name]
    if name.endswith("_weight_end"):
        return {name: 3.0}
    if name in OTHERS:
        return {name: OTHERS[name]}
    return {name: value + 1 if isinstance(value, int) else value * 1.5}


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_changes_its_own_trial_and_no_other(feed, name):
    needs = {"weighting": "annealed"} if name.endswith("_weight_end") else NEEDS.get(name, {})
    base = {"epochs": 2, **needs}
    # To the last step of the run: the schedule's decay begins late.
    steps = 6 * base["epochs"]
    plain = train(start(feed, 2, {0: spec(**base), 1: spec(**base)}), steps)
    mixed = train(start(feed, 2, {0: spec(**base), 1: spec(**{**base, **changed(name)})}), steps)
    assert_same(mixed.state(0), plain.state(0))
    after, before = mixed.state(1), plain.state(1)
    if name == "ema_decay":  # moves what is evaluated, and not the training
        assert torch.equal(after.weights, before.weights)
        assert not torch.equal(after.average, before.weights)
    else:
        assert not torch.equal(after.weights, before.weights)


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


def test_the_update_ratio_is_the_size_of_the_last_change_over_that_of_the_weights(feed):
    run = train(start(feed, 2, {0: spec(), 1: spec(seed=1, gradient_accumulation=4)}), 5)
    before = [run.cube.layout.named(run.arena[slot].clone()) for slot in (0, 1)]
    for end in run.step():
        after = run.cube.layout.named(run.arena[end.slot])
        norms = {"all": [0.0, 0.0]} | {name: [0.0, 0.0] for name in run.cube.layout.modules}
        for name, view in after.items():
            old = before[end.slot][name]
            for module in ("all", name.rpartition(".")[0]):
                norms[module][0] += float((view - old).square().sum())
                norms[module][1] += float(old.square().sum())
        for module, (change, size) in norms.items():
            expected = math.sqrt(change / size)
            assert end.metrics[f"train/update_ratio/{module}"] == pytest.approx(expected, rel=1e-3)
            assert 0.0 < expected < 0.1


def test_gradient_norms_are_means_over_the_updates(feed64):
    each = spec(gradient_accumulation=4, gradient_clip=1e9)
    run, norms = start(feed64, 2, {0: spec(), 1: each}), []
    first, step = run._optim, run._optim.step

    def spy(arena, gradient, pace, resting):
        if not resting:
            norms.append(float(gradient[1].norm()))
        step(arena, gradient, pace, resting)

    first.step = spy
    ends = {end.slot: end.metrics for _ in range(6) for end in run.step()}
    assert len(norms) == 2
    assert ends[1]["train/gradient_norm/all"] == pytest.approx(sum(norms) / 2, rel=1e-6)


def test_the_average_is_evaluated_where_there_is_one(feed):
    run = train(start(feed, 2, {0: spec(ema_decay=0.9), 1: spec()}), 12)
    state = run.state(0)
    averaged = start(feed, 2, {})
    averaged.fill(0, replace(state, spec=spec(), weights=state.average, average=None))
    found, plain = (run.evaluate("validation")[slot] for slot in (0, 1))
    assert found == averaged.evaluate("validation")[0]
    assert plain != found
    assert torch.equal(state.weights, run.state(1).weights)


def test_noise_and_dropout_are_for_training_alone(feed):
    plain, noisy = (start(feed, 1, {0: spec(**each)}) for each in ({}, FEATURES))
    assert noisy.evaluate("test") == plain.evaluate("test")


def test_the_noise_of_a_trial_is_in_what_it_is_shown_and_not_in_what_it_is_asked(feed, monkeypatch):
    seen = []
    terms = losses.terms

    def spy(passage, source, target, knobs):
        seen.append((source.clone(), target.clone()))
        return terms(passage, source, target, knobs)

    monkeypatch.setattr(losses, "terms", spy)
    for each in (spec(), spec(input_noise=1.0)):
        start(feed, 1, {0: each}).step()
    for clean, noisy in zip(*seen, strict=True):
        assert torch.equal(clean, noisy)


def test_a_pack_without_features_carries_none_of_their_weight(feed):
    run = train(start(feed, 2, {0: trial.from_flat({**SMALL, **FEATURES}), 1: spec()}), 2)
    assert run._accumulation._sums is not None
    assert run._averaging._rows is not None
    run.empty(0)
    train(run, 2)
    assert run._accumulation._sums is None
    assert run._averaging._rows is None


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
