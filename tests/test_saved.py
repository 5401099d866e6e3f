"""Names of checkpoints, there and back."""

from pathlib import Path

import pytest

from cubeopt import saved
from cubeopt.saved import Saved


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("epoch_00050.t7", Saved(50, 0, 7)),
        ("epoch_00050_batch_00017.t12", Saved(50, 17, 12)),
        (".epoch_00050.t7.x81k", None),
        ("epoch_00050", None),
        ("a note", None),
    ],
)
def test_a_name_says_what_it_is_of(name, found):
    assert saved.parse(name) == found
    assert found is None or found.name == name


def test_a_run_has_a_folder_and_a_full_one_is_known_by_it():
    assert saved.folder("s", 3, "full", 2) == Path("s/trial_00003/full_2")
    full = [saved.folder("s", 3, *each) for each in (("full", 0), ("full", 1), ("short", 0))]
    assert [saved.is_of_full_run(each) for each in full] == [True, True, False]


def test_of_an_epoch_the_last_leases_checkpoint_counts(tmp_path):
    for name in ("epoch_00002.t9", "epoch_00002.t10", "epoch_00004_batch_00001.t1", "x"):
        (tmp_path / name).mkdir()
    assert saved.of_epochs(tmp_path) == {2: tmp_path / "epoch_00002.t10"}
    assert saved.of_epochs(tmp_path / "none") == {}
