"""What a pack is fed depends on seed, epoch and step alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cubeopt.data.dataset import SPLITS, TASKS
from cubeopt.data.order import Mixture, batches, mixture
from cubeopt.errors import DataError
from cubeopt.training import feed as feed_module
from cubeopt.training.feed import Feed
from cubeopt.trial import Task

from .conftest import CORPORA, CPU, standardised

TASK_SETS = [[Task.RECONSTRUCT], [Task.DIALOGUE], [Task.RECONSTRUCT, Task.DIALOGUE, Task.NLI]]


def every_batch(feed, batch_size, seed=0, epochs=2):
    """Sources and targets of all steps, one by one."""
    steps = epochs * feed.steps_per_epoch(batch_size)
    pairs = [feed.batch({0: (seed, step)}, 1, batch_size) for step in range(steps)]
    return [torch.cat(side) for side in zip(*pairs, strict=True)]


def mapped(dataset, folder, dtype):
    """*dataset* with its sentences in a file, as a dataset that was loaded has them."""
    path = folder / f"{dtype}.npy"
    np.save(path, dataset.embeddings.to(dtype).numpy())
    return replace(dataset, embeddings=torch.from_numpy(np.load(path, mmap_mode="c")))


@pytest.mark.parametrize("tasks", TASK_SETS)
@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_training_rows_have_mean_nought_and_mean_square_one(dataset, tasks, normalisation):
    if normalisation == "standardise":
        dataset = replace(dataset, normalisation=standardised(dataset.embeddings * 3 + 1))
    feed = Feed(dataset, tasks, CPU, torch.float64)
    for rows in every_batch(feed, batch_size=1, epochs=1):
        assert len(rows) == feed.train_rows == 45 * len(tasks)
        assert rows.mean(0).abs().max().item() == pytest.approx(0.0, abs=1e-12)
        assert rows.square().mean().item() == pytest.approx(1.0, abs=1e-12)


def test_one_deviation_for_all_numbers_but_with_standardise_in_proportion_to_their_own(dataset):
    plain = Feed(dataset, [Task.DIALOGUE], CPU).target_scale
    assert len(plain.deviation.unique()) == 1
    own = standardised(dataset.embeddings)
    scale = Feed(replace(dataset, normalisation=own), [Task.DIALOGUE], CPU).target_scale
    ratio = scale.deviation / own.deviation
    torch.testing.assert_close(ratio, ratio[:1].expand(32))
    assert torch.equal(scale.mean, plain.mean)


def test_undo_gives_the_embeddings_back(feed, dataset):
    scale = feed.target_scale
    rows = dataset.embeddings.double()
    torch.testing.assert_close(scale.undo(scale.apply(rows)), rows)


@pytest.mark.parametrize("tasks", TASK_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("batch_size", [8, 7])
def test_resident_and_mapped_feeds_give_the_same_bits(dataset, tmp_path, tasks, dtype, batch_size):
    held = mapped(dataset, tmp_path, dtype)
    resident, streamed = Feed(held, tasks, CPU), Feed(held, tasks, CPU, resident_bytes=0)
    assert (resident.table.resident, streamed.table.resident) == (True, False)
    pairs = zip(every_batch(resident, batch_size), every_batch(streamed, batch_size), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    for split in SPLITS:
        for one, other in zip(resident.parts(split, 5), streamed.parts(split, 5), strict=True):
            for name in ("source", "target", "stored", "task", "corpus"):
                assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_table_is_resident_where_it_fits_to_the_byte(dataset):
    size = dataset.embeddings.nbytes
    assert Feed(dataset, [Task.NLI], CPU, resident_bytes=size).table.resident
    assert not Feed(dataset, [Task.NLI], CPU, resident_bytes=size - 1).table.resident


def test_only_sentences_in_use_are_held(dataset):
    more = torch.cat([torch.full((500, 32), 1e9), dataset.embeddings])
    columns = dict(dataset.columns)
    columns |= {name: columns[name] + 500 for name in ("source", "target")}
    wider = replace(dataset, embeddings=more, columns=columns)
    feed = Feed(wider, [Task.DIALOGUE], CPU, resident_bytes=dataset.embeddings.nbytes)
    assert feed.table.resident
    plain = every_batch(Feed(dataset, [Task.DIALOGUE], CPU), 8)
    for one, other in zip(every_batch(feed, 8), plain, strict=True):
        assert torch.equal(one, other)


def test_half_precision_is_only_how_sentences_are_stored(dataset):
    half = replace(dataset, embeddings=dataset.embeddings.half())
    same = replace(dataset, embeddings=dataset.embeddings.half().float())
    pairs = [every_batch(Feed(each, [Task.DIALOGUE], CPU), 8) for each in (half, same)]
    for one, other in zip(*pairs, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("tasks", TASK_SETS)
@pytest.mark.parametrize("batch_size", [8, 7])
def test_a_batch_is_the_same_in_any_slot_of_any_pack(dataset, tasks, batch_size):
    feed = Feed(dataset, tasks, CPU)
    places = {0: (0, 7), 2: (0, 7), 3: (0, 13), 4: (1, 7)}
    sides = feed.batch(places, 6, batch_size)
    for slot, place in places.items():
        alone = Feed(dataset, tasks, CPU).batch({0: place}, 1, batch_size)
        for side, row in zip(sides, alone, strict=True):
            assert torch.equal(side[slot], row[0])
    assert not torch.equal(sides[0][0], sides[0][3])
    assert not torch.equal(sides[0][0], sides[0][4])
    assert all(side.is_contiguous() and side.data_ptr() % 64 == 0 for side in sides)


@pytest.mark.parametrize("tasks", TASK_SETS)
def test_slots_at_one_place_see_one_batch_without_a_copy(dataset, tasks):
    feed = Feed(dataset, tasks, CPU)
    alone = feed.batch({0: (0, 7)}, 1, 8)
    for side, row in zip(feed.batch({1: (0, 7), 2: (0, 7)}, 4, 8), alone, strict=True):
        assert side.shape == (4, 8, 32)
        assert side.data_ptr() == row.data_ptr()
        assert all(torch.equal(each, row[0]) for each in side)


@pytest.mark.parametrize("batch_size", [8, 7, 1000])
def test_it_starts_at_any_step_of_any_epoch(dataset, batch_size):
    tasks = [Task.DIALOGUE, Task.NLI]
    weighted = replace(dataset, weights={"talks": 2.5, "snli": 0.75})
    walked = every_batch(Feed(weighted, tasks, CPU), batch_size, seed=4, epochs=5)
    for step in range(len(walked[0]) - 1, -1, -1):
        fresh = Feed(weighted, tasks, CPU).batch({0: (4, step)}, 1, batch_size)
        for one, other in zip(fresh, walked, strict=True):
            assert torch.equal(one[0], other[step])
            assert one.data_ptr() % 64 == 0


@pytest.mark.parametrize("tasks", TASK_SETS)
def test_batches_follow_the_order_of_their_epoch(dataset, tasks):
    feed = Feed(dataset, tasks, CPU)
    rows, steps = dataset.rows(tasks, "train"), feed.steps_per_epoch(8)
    mixed = mixture(rows.corpus, dict.fromkeys(range(3), 1.0))
    standard = [
        scale.apply(dataset.embeddings.double()[side]).float()
        for scale, side in ((feed.source_scale, rows.source), (feed.target_scale, rows.target))
    ]
    for step in (0, steps - 1, steps, 3 * steps + 2):
        order = batches(mixed.order(3, step // steps), 8)[step % steps]
        for found, wanted in zip(feed.batch({0: (3, step)}, 1, 8), standard, strict=True):
            torch.testing.assert_close(found[0], wanted[order], rtol=1e-5, atol=1e-6)


def test_corpora_come_in_proportion_to_their_weights(dataset):
    tasks = [Task.RECONSTRUCT, Task.NLI]
    feed = Feed(replace(dataset, weights={"lone": 1.0, "snli": 3.5}), tasks, CPU, torch.float64)
    rows = dataset.rows(tasks, "train")
    wanted = feed.target_scale.apply(dataset.embeddings.double()[rows.target])
    entered = feed.source_scale.apply(dataset.embeddings.double()[rows.source])
    known = torch.cat([entered, wanted], 1)
    seen = torch.cat(every_batch(feed, 1, epochs=3), 2)[:, 0]
    row = torch.cdist(seen, known).argmin(1)
    torch.testing.assert_close(seen, known[row])
    assert torch.bincount(rows.corpus[row].long()).tolist() == [3 * 20, 0, 3 * 70]  # of 90 rows


@pytest.mark.parametrize("passing", [1, 1 << 20])
@pytest.mark.parametrize("kept", [0, 1, 11, 36])  # batches, of twelve an epoch
def test_what_is_kept_is_bounded_and_changes_nothing(dataset, monkeypatch, kept, passing):
    batch = 2 * 4 * 32 * 4  # bytes
    plain = every_batch(Feed(dataset, [Task.DIALOGUE], CPU), 4, epochs=3)
    monkeypatch.setattr(feed_module, "_AHEAD_BYTES", 4 * batch)
    monkeypatch.setattr(feed_module, "_BATCHES_MOST", kept * batch)
    monkeypatch.setattr(feed_module, "_PASSING_KEPT", passing)
    monkeypatch.setattr(feed_module, "_ORDERS_KEPT", 1)
    feed = Feed(dataset, [Task.DIALOGUE], CPU)
    for _ in range(2):
        for one, other in zip(every_batch(feed, 4, epochs=3), plain, strict=True):
            assert torch.equal(one, other)
    assert len(feed._batches) == kept // 4
    assert len(feed._orders) == 1
    assert len(feed._passing) == (0 if kept == 36 else 1 if passing == 1 else 3)


def test_a_batch_is_gathered_once_for_all_trials_that_ask_for_it(dataset, monkeypatch):
    drawn = []
    order = Mixture.order
    monkeypatch.setattr(Mixture, "order", lambda self, *at: (drawn.append(at), order(self, *at))[1])
    feed = Feed(dataset, [Task.DIALOGUE], CPU)
    first, _ = feed.batch({0: (0, 3)}, 1, 8)
    again, _ = feed.batch({0: (0, 3)}, 1, 8)
    assert first.data_ptr() == again.data_ptr()
    every_batch(feed, 8, epochs=2)
    every_batch(feed, 8, epochs=2)
    assert drawn == [(0, 0), (0, 1)]


def test_parts_cover_a_split_once_in_pieces_of_nearly_equal_size(dataset):
    tasks = [Task.RECONSTRUCT, Task.NLI]
    feed = Feed(dataset, tasks, CPU)
    parts = list(feed.parts("validation", batch_size=9))
    assert [len(part.stored) for part in parts] == [8, 8, 8]
    rows = dataset.rows(tasks, "validation")
    assert torch.equal(torch.cat([part.stored for part in parts]), dataset.embeddings[rows.target])
    assert torch.equal(torch.cat([part.task for part in parts]), rows.task)
    assert torch.equal(torch.cat([part.corpus for part in parts]), rows.corpus)
    target = torch.cat([part.target for part in parts]).double()
    scaled = feed.target_scale.apply(dataset.embeddings[rows.target].double())
    torch.testing.assert_close(target, scaled, rtol=1e-5, atol=1e-6)


def test_rows_that_are_all_equal_are_refused(dataset):
    for value in (1.0, 0.1):
        same = replace(dataset, embeddings=torch.full_like(dataset.embeddings, value))
        with pytest.raises(DataError, match="all training rows are equal"):
            Feed(same, [Task.RECONSTRUCT], CPU)


def test_a_task_without_rows_in_a_split_is_refused(dataset):
    kept = (dataset.columns["task"] != TASKS.index(Task.NLI)) | (dataset.columns["split"] != 1)
    without = {name: column[kept] for name, column in dataset.columns.items()}
    with pytest.raises(DataError, match=r"no rows for task 'nli' in split validation; .*--task nl"):
        Feed(replace(dataset, columns=without), [Task.DIALOGUE, Task.NLI], CPU)
    with pytest.raises(DataError, match="no rows for the task sentiment"):
        Feed(dataset, [Task.SENTIMENT], CPU)


def test_weights_that_leave_nothing_to_train_on_are_refused(dataset):
    silent = replace(dataset, weights={**dict.fromkeys(CORPORA.values(), 1.0), "snli": 0.0})
    with pytest.raises(DataError, match=r"every corpus with training rows is 0 \(snli\)"):
        Feed(silent, [Task.NLI], CPU)
    assert Feed(silent, [Task.DIALOGUE, Task.NLI], CPU).train_rows == 90
