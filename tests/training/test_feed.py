"""What a pack is fed depends on seed, epoch and step alone."""

import pytest
import torch

from cubeopt.data.dataset import Dataset, batch_rows
from cubeopt.errors import DataError
from cubeopt.training.feed import Feed
from cubeopt.trial import Task

from .conftest import CPU


@pytest.mark.parametrize("task", list(Task))
def test_standardised_training_rows_have_mean_nought_and_mean_square_one(dataset, task):
    feed = Feed(dataset, task, CPU, torch.float64)
    batches = [feed.batch({0: (0, step)}, 1, 1) for step in range(45)]
    for side in (0, 1):
        rows = torch.cat([batch[side][0] for batch in batches])
        assert rows.mean(0).abs().max().item() == pytest.approx(0.0, abs=1e-6)
        assert rows.square().mean().item() == pytest.approx(1.0, abs=1e-6)


def test_undo_gives_the_embeddings_back(feed, dataset):
    scale = feed.target_scale
    rows = dataset.embeddings.double()
    torch.testing.assert_close(scale.undo(scale.apply(rows)), rows)


def test_slots_at_the_same_place_share_their_batch_and_others_do_not(feed):
    places = {0: (0, 7), 2: (0, 7), 3: (0, 13), 4: (1, 7)}
    source, target = feed.batch(places, width=5, batch_size=8)
    assert torch.equal(source[0], source[2])
    assert not torch.equal(source[0], source[3])
    assert not torch.equal(source[0], source[4])
    assert torch.equal(source, target)  # reconstruction
    alone, _ = feed.batch({0: (0, 13)}, width=1, batch_size=8)
    assert torch.equal(alone[0], source[3])


def test_batches_follow_the_order_of_their_epoch(feed, dataset):
    rows, _ = dataset.pairs(Task.RECONSTRUCT, "train")
    standard = feed.source_scale.apply(dataset.embeddings.double()).float()
    for step in (0, 5, 6, 20):
        order = batch_rows(45, 8, seed=3, epoch=step // 6)
        source, _ = feed.batch({0: (3, step)}, width=1, batch_size=8)
        assert torch.equal(source[0], standard[rows[order[step % 6]]])


def test_parts_cover_a_split_once_in_pieces_of_nearly_equal_size(feed, dataset):
    parts = list(feed.parts("validation", batch_size=5))
    assert [len(raw) for _, _, raw in parts] == [4, 4, 4]
    _, targets = dataset.pairs(Task.RECONSTRUCT, "validation")
    assert torch.equal(torch.cat([raw for _, _, raw in parts]), dataset.embeddings[targets])


def test_rows_that_are_all_equal_are_refused(dataset):
    same = Dataset(
        dataset.folder,
        dataset.fingerprint,
        dataset.manifest,
        torch.ones_like(dataset.embeddings),
        dataset.rows,
    )
    with pytest.raises(DataError, match="all training rows are equal"):
        Feed(same, Task.RECONSTRUCT, CPU)
