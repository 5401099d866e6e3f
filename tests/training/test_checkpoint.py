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


@pytest.mark.parametrize("values", [{}, {"ema_decay": 0.9, "weighting": "gradnorm"}])
def test_a_thinned_checkpoint_evaluates_to_the_same_and_is_not_continued(feed, tmp_path, values):
    run = train(start(feed, 1, {0: spec(**values)}), 9)
    facts = save(tmp_path / "a", run, 0, feed)
    whole = checkpoint.evaluated(tmp_path / "a")
    size = (tmp_path / "a" / "state.safetensors").stat().st_size
    checkpoint.thin(tmp_path / "a")
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "a").iterdir()}
    assert {each.name for each in before} == {"state.safetensors", "state.json"}
    kept = load_file(tmp_path / "a" / "state.safetensors")
    parts = {"weights", "scale", *(["average"] if values else [])}
    assert {name.partition("/")[0] for name in kept} == parts
    # Of weights, two moments and what a few features keep, the weights (and their average) stay.
    assert (tmp_path / "a" / "state.safetensors").stat().st_size < 0.6 * size
    thinned = checkpoint.evaluated(tmp_path / "a")
    assert thinned.facts == whole.facts == facts
    assert thinned.spec == whole.spec
    assert thinned.weights.keys() == whole.weights.keys()
    for name, each in whole.weights.items():
        assert torch.equal(thinned.weights[name], each)
    assert torch.equal(thinned.source_scale.mean, whole.source_scale.mean)
    assert checkpoint.save_interval(tmp_path / "a") == 5
    with pytest.raises(CheckpointError, match="was thinned: it can be analysed, but no training"):
        checkpoint.load(tmp_path / "a", run.cube.layout)
    checkpoint.thin(tmp_path / "a")  # once more: nothing is written
    assert before == {each: each.stat().st_mtime_ns for each in (tmp_path / "a").iterdir()}


def test_a_thinning_that_was_interrupted_is_finished_by_the_next(feed, tmp_path, monkeypatch):
    run = train(start(feed, 1, {0: spec()}), 9)
    save(tmp_path / "a", run, 0, feed)
    expected = checkpoint.evaluated(tmp_path / "a").weights

    def fail(tensors):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.safetensors.torch, "save", fail)
        with pytest.raises(CheckpointError, match=r"cannot thin checkpoint .* No space left"):
            checkpoint.thin(tmp_path / "a")
    # It is marked, so nobody trains on from it, and what it has can still be looked at.
    with pytest.raises(CheckpointError, match="was thinned"):
        checkpoint.load(tmp_path / "a", run.cube.layout)
    assert checkpoint.evaluated(tmp_path / "a").weights.keys() == expected.keys()
    checkpoint.thin(tmp_path / "a")
    assert not [name for name in load_file(tmp_path / "a" / "state.safetensors") if "mean/" in name]


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_what_cannot_be_thinned_is_one_clear_error(feed, tmp_path, name):
    save(tmp_path / "a", train(start(feed, 1, {0: spec()}), 9), 0, feed)
    (tmp_path / "a" / name).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"checkpoint \S*a( is|:)"):
        checkpoint.thin(tmp_path / "a")
