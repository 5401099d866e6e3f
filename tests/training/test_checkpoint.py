"""A checkpoint continues to the same bits, and a damaged one is one clear error."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from cubeopt.data.normalisation import Normalisation
from cubeopt.errors import CheckpointError
from cubeopt.training import checkpoint
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.training.scale import Scale
from cubeopt.trial import Task

from .conftest import CPU, FEATURES, spec, standardised, start, train


def save(folder, run, slot, feed):
    facts = checkpoint.Facts(1, run.width, "f" * 64, {"validation/fvu": 0.5}, {"threads": 1})
    checkpoint.save(folder, run.state(slot), run.cube.layout, feed, facts)
    return facts


def test_training_continues_from_a_checkpoint_to_the_same_bits(feed, tmp_path):
    straight = train(start(feed, 2, {1: spec(seed=5)}), 20)
    before = train(start(feed, 2, {1: spec(seed=5)}), 9)
    facts = save(tmp_path / "a", before, 1, feed)
    run = PackRun(spec().shape, 2, feed)
    state, found = checkpoint.load(tmp_path / "a", run.cube.layout)
    assert found == facts
    run.fill(0, state)
    train(run, 11)
    assert torch.equal(run.state(0).weights, straight.state(1).weights)
    assert torch.equal(run.state(0).mean, straight.state(1).mean)


@pytest.mark.parametrize("weighting", ["gradnorm", "uncertainty", "dynamic_average"])
@pytest.mark.parametrize("steps", [9, 12])
def test_all_that_a_trial_remembers_is_in_its_checkpoint(feed, tmp_path, weighting, steps):
    each = spec(**{**FEATURES, "weighting": weighting})
    before = train(start(feed, 1, {0: each}), steps)
    save(tmp_path / "a", before, 0, feed)
    run = PackRun(each.shape, 1, feed)
    state, _ = checkpoint.load(tmp_path / "a", run.cube.layout)
    expected = before.state(0)
    assert state.plateau == expected.plateau
    assert (state.gathered is None) is (steps == 12)
    for name in ("average", "gathered"):
        one, other = getattr(state, name), getattr(expected, name)
        assert one is other is None or torch.equal(one, other)
    run.fill(0, state)
    train(run, 20)
    train(before, 20)
    for name in ("weights", "mean", "square", "average"):
        assert torch.equal(getattr(run.state(0), name), getattr(before.state(0), name))
    assert run.state(0).plateau == before.state(0).plateau


@pytest.mark.parametrize(("decay", "served"), [(0.0, "weights"), (0.9, "average")])
def test_it_says_which_weights_were_evaluated(feed, tmp_path, decay, served):
    run = train(start(feed, 1, {0: spec(ema_decay=decay)}), 6)
    save(tmp_path / "a", run, 0, feed)
    assert json.loads((tmp_path / "a" / "state.json").read_text())["serve"] == served
    tensors = load_file(tmp_path / "a" / "state.safetensors")
    parts = {name.partition("/")[0] for name in tensors}
    assert parts == {"weights", "mean", "square", "scale"} | ({"average"} if decay else set())


@pytest.mark.parametrize("choice", ["none", "l2", "standardise"])
def test_what_serving_needs_to_undo_is_kept_to_the_bit(dataset, tmp_path, choice):
    held = {
        "none": Normalisation(),
        "l2": Normalisation("l2", norm=2.75),
        "standardise": standardised(dataset.embeddings * torch.linspace(1.0, 2.0, 32)),
    }[choice]
    feed = Feed(replace(dataset, normalisation=held), [Task.DIALOGUE], CPU)
    save(tmp_path / "a", start(feed, 1, {0: spec()}), 0, feed)
    tensors = load_file(tmp_path / "a" / "state.safetensors")
    for side, scale in (("source", feed.source_scale), ("target", feed.target_scale)):
        read = Scale(tensors[f"scale/{side}_mean"], tensors[f"scale/{side}_deviation"])
        assert torch.equal(read.mean, scale.mean)
        assert torch.equal(read.deviation, scale.deviation)
    assert len(read.deviation.unique()) == (32 if choice == "standardise" else 1)
    facts = json.loads((tmp_path / "a" / "state.json").read_text())
    assert facts["normalisation"] == {"name": choice, "norm": 2.75 if choice == "l2" else None}


def test_nothing_but_the_checkpoint_is_left_in_its_folder(feed, tmp_path):
    run = start(feed, 1, {0: spec()})
    save(tmp_path / "epoch_1", run, 0, feed)
    save(tmp_path / "epoch_1", train(run, 3), 0, feed)  # takes the place of the older one
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_1"]
    assert checkpoint.load(tmp_path / "epoch_1", run.cube.layout)[0].step == 3


def test_a_folder_that_cannot_be_written_is_one_clear_error_and_leaves_nothing(feed, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write checkpoint"):
        save(tmp_path / "file" / "epoch_1", start(feed, 1, {0: spec()}), 0, feed)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _truncate(folder):
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _forget_tensors(folder):
    (folder / "state.safetensors").unlink()


def _not_json(folder):
    (folder / "state.json").write_text("{")


def _another_format(folder):
    facts = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(facts | {"format": 99}))


@pytest.mark.parametrize("damage", [_truncate, _forget_tensors, _not_json, _another_format])
def test_a_damaged_checkpoint_is_one_clear_error(feed, tmp_path, damage):
    run = start(feed, 1, {0: spec()})
    save(tmp_path / "a", run, 0, feed)
    damage(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"checkpoint .*a"):
        checkpoint.load(tmp_path / "a", run.cube.layout)


def test_a_checkpoint_of_another_shape_is_refused(feed, tmp_path):
    save(tmp_path / "a", start(feed, 1, {0: spec()}), 0, feed)
    other = PackRun(spec(state_size=7).shape, 1, feed)
    with pytest.raises(CheckpointError, match="damaged or of another shape"):
        checkpoint.load(tmp_path / "a", other.cube.layout)
