"""Which checkpoints of a run are kept, whoever wrote them and whenever they wake up."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cubeopt import saved, trial
from cubeopt.data import dataset as datasets
from cubeopt.errors import CheckpointError
from cubeopt.service.shelf import Shelf
from cubeopt.training import checkpoint
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun

SPEC = {
    "lattice_size": [2, 2, 3],
    "embedding_size": 24,
    "state_size": 4,
    "lattice_steps": 2,
    "functional_radius": 1.5,
    "distant_links": 1,
    "batch_size": 16,
    "dataset": "tiny",
    "save_checkpoint_every": 2,
}


class Kept:
    """A run, its shelf, and what lies there."""

    def __init__(self, folder: Any, tiny: Any, kind: str) -> None:
        feed = Feed(datasets.load(tiny), [trial.Task.RECONSTRUCT], torch.device("cpu"))
        spec = trial.from_flat(SPEC)
        self.run = PackRun(spec.shape, 1, feed)
        self.run.fill(0, self.run.fresh(spec))
        self.shelf, self.kind = Shelf(folder, {}), kind
        self.folder = folder / saved.folder("s", 3, kind, 0)

    def put(self, epoch: int, token: int, batches: int = 0) -> str:
        state = self.run.state(0)
        step = epoch * self.run.steps_per_epoch + batches
        self.run.fill(0, type(state)(**{**vars(state), "step": step}))
        claim: Any = SimpleNamespace(
            study="s", trial_number=3, kind=self.kind, replicate=0, token=token,
            dataset_fingerprint="f" * 64,
        )  # fmt: skip
        return self.shelf.put(self.run, claim, 0, {})

    def record(self, epoch: int, token: int, batches: int = 0) -> None:
        self.shelf.forget_older(self.put(epoch, token, batches), token)

    @property
    def names(self) -> dict[str, bool]:
        """What lies there, and whether it is thinned."""
        return {
            each.name: json.loads((each / "state.json").read_text()).get("thinned", False)
            for each in self.folder.iterdir()
        }


@pytest.fixture
def kept(tmp_path, tiny_dataset):
    return lambda kind="full": Kept(tmp_path, tiny_dataset, kind)


def test_a_full_run_keeps_its_save_points_thinned_and_its_newest_whole(kept):
    it = kept()
    for epoch in (2, 4, 6):
        it.record(epoch, 1)
    assert it.names == {"epoch_00002.t1": True, "epoch_00004.t1": True, "epoch_00006.t1": False}
    checkpoint.load(it.folder / "epoch_00006.t1", it.run.cube.layout)
    with pytest.raises(CheckpointError, match="was thinned"):
        checkpoint.load(it.folder / "epoch_00004.t1", it.run.cube.layout)
    assert [*saved.of_epochs(it.folder)] == [2, 4, 6]


def test_a_short_run_keeps_only_its_newest(kept):
    it = kept("short")
    for epoch in (1, 2, 3, 4):
        it.record(epoch, 1)
    assert it.names == {"epoch_00004.t1": False}


def test_what_was_written_between_save_points_is_forgotten(kept):
    it = kept()
    it.record(2, 1)
    it.record(3, 1, batches=1)  # given back in the middle of an epoch
    assert it.names == {"epoch_00002.t1": True, "epoch_00003_batch_00001.t1": False}
    it.record(3, 2)  # and at the end of one that is no save point
    assert it.names == {"epoch_00002.t1": True, "epoch_00003.t2": False}
    it.record(4, 2)
    assert it.names == {"epoch_00002.t1": True, "epoch_00004.t2": False}
    it.record(4, 2, batches=1)
    assert it.names["epoch_00004.t2"] is True


def test_of_one_epoch_the_snapshot_of_the_last_lease_is_kept(kept):
    it = kept()
    it.record(2, 1)
    it.put(4, 1)  # nobody heard of it: the next attempt goes on from epoch 2
    it.record(4, 2)
    assert it.names == {"epoch_00002.t1": True, "epoch_00004.t2": False}
    it.put(4, 1)  # a zombie's, late
    it.record(6, 2)
    assert it.names == {"epoch_00002.t1": True, "epoch_00004.t2": True, "epoch_00006.t2": False}


def test_a_sleeper_takes_nothing_from_its_successor(kept):
    it = kept()
    it.record(2, 1)
    path = it.put(4, 1)  # recorded; then it sleeps before it tidies up
    for epoch in (6, 8):
        it.record(epoch, 2)
    before = it.names
    assert before["epoch_00004.t1"] is True
    it.shelf.forget_older(path, 1)
    assert it.names == before
    # Nor when its own has been cleared away meanwhile.
    path = it.put(9, 1, batches=1)
    it.record(10, 2)
    before = it.names
    it.shelf.forget_older(path, 1)
    assert it.names == before
    assert set(before.values()) == {True, False}


def test_a_snapshot_that_cannot_be_written_costs_the_run_nothing(kept, caplog):
    it = kept()
    it.record(2, 1)
    (it.folder / "epoch_00002.t1" / "state.safetensors").write_bytes(b"damaged")
    it.record(4, 1)
    assert it.names == {"epoch_00004.t1": False}
    assert "no snapshot is kept: cannot thin checkpoint" in caplog.text
