"""What is compared is the same content; the times themselves are nobody's promise."""

import json
import math

import pytest
import torch

from cubeopt.bench import feeding
from cubeopt.training.feed import Feed
from cubeopt.trial import CubeShape, Task

CPU = torch.device("cpu")
SHAPE = CubeShape(
    lattice_size=(2, 2, 3),
    embedding_size=16,
    state_size=4,
    lattice_steps=2,
    batch_size=8,
    functional_radius=1.5,
    distant_links=1,
)


def as_sets(batches):
    """Each batch's pairs, and those of all batches, as bytes."""
    return sorted(
        source.numpy().tobytes() + target.numpy().tobytes()
        for sources, targets in batches
        for source, target in zip(sources, targets, strict=True)
    )


@pytest.mark.parametrize("task", [Task.RECONSTRUCT, Task.DIALOGUE])
def test_an_epoch_of_the_loader_is_an_epoch_of_the_feed_to_the_bit(task):
    feed = Feed(feeding.trimmed(feeding.synthetic(40, 16), task), [task], CPU)
    fed = [
        (source[0], target[0])
        for source, target in (feed.batch({0: (5, step)}, 1, 8) for step in range(10, 15))
    ]
    loaded = list(feeding.loader(feed, 8))
    assert [len(source) for source, _ in loaded] == [8] * 5
    assert as_sets(loaded) == as_sets(fed)


def test_random_rows_are_as_many_as_asked_for_in_both_tasks():
    dataset = feeding.synthetic(40, 16)
    for task in (Task.RECONSTRUCT, Task.DIALOGUE):
        assert dataset.counts([task]) == {"train": 40, "validation": 1, "test": 1}
        rows = dataset.rows([task], "train")
        assert torch.equal(rows.source, rows.target) == (task is Task.RECONSTRUCT)


def test_a_large_dataset_is_trimmed_only_in_what_it_trains_on(monkeypatch):
    monkeypatch.setattr(feeding, "MOST_ROWS", 25)
    dataset = feeding.synthetic(40, 16)
    less = feeding.trimmed(dataset, Task.DIALOGUE)
    assert less.counts([Task.DIALOGUE]) == {"train": 25, "validation": 1, "test": 1}
    for split, count in (("train", 25), ("test", 1)):
        whole, part = (each.rows([Task.DIALOGUE], split) for each in (dataset, less))
        assert torch.equal(part.target, whole.target[:count])


def test_a_report_has_every_case_of_every_task_and_is_one_json_document():
    told = []
    report = feeding.measure(
        feeding.synthetic(40, 16), CPU, rounds=2, shape=SHAPE, tell=lambda *at: told.append(at)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]  # the first one warms up
    assert report.train_rows == {"reconstruct": 40, "dialogue": 40}
    assert len({(each.task, each.case) for each in report.timings}) == len(report.timings) == 18
    for each in (*report.timings, *report.ratios):
        middle = each.microseconds if isinstance(each, feeding.Timing) else each.value
        assert 0.0 < each.low <= middle <= each.high < math.inf
    content = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert len(content["ratios"]) == len(report.ratios) == 20


def test_a_ratio_is_taken_round_by_round_and_held_against_its_goal():
    times = {(Task.NLI, name): [1.0, 2.0, 4.0] for name in (feeding.COPY, feeding.STUDY)}
    others = (feeding.FRESH, feeding.AGAIN, feeding.SAME, feeding.APART)
    times |= {(Task.NLI, name): [100.0] * 3 for name in others}
    times |= {(Task.NLI, name): [5000.0] * 3 for name in (feeding.STEP, feeding.PACK_STEP)}
    times[Task.NLI, feeding.LOADER] = [30.0, 40.0, 60.0]
    found = {ratio.what: ratio for ratio in feeding._ratios(Task.NLI, times)}
    study = found["DataLoader / feed, in the short trials of a study"]
    assert (study.low, study.value, study.high) == (17.5, 20.0, 25.0)
    assert study.met
    times[Task.NLI, feeding.LOADER] = [30.0, 39.9, 60.0]
    found = {ratio.what: ratio for ratio in feeding._ratios(Task.NLI, times)}
    assert not found["DataLoader / feed, in the short trials of a study"].met
    assert found["8 DataLoaders / feed, 8 slots apart"].value == pytest.approx(3.192)
    assert not found["DataLoader / feed, for the first time"].met
    assert found["feed, for the first time / step"].value == pytest.approx(0.02)
    assert not found["feed, for the first time / step"].met
    assert found["DataLoader / bare copy of the rows"].met is None


def test_the_study_asks_for_the_epochs_that_a_third_of_its_trials_reach(monkeypatch):
    feed = Feed(feeding.trimmed(feeding.synthetic(40, 16), Task.DIALOGUE), [Task.DIALOGUE], CPU)
    study = dict(feeding.cases(feed, SHAPE))[feeding.STUDY]
    asked, batch = [], feed.batch
    monkeypatch.setattr(feed, "batch", lambda *at: (asked.append(at[0][0]), batch(*at))[1])
    assert study(7) > 0.0
    assert {seed for seed, _ in asked} == {4007}
    epochs = [step // 5 for _, step in asked]
    assert [epochs.count(epoch) // 5 for epoch in range(5)] == [100, 34, 12, 12, 12]
    assert len(asked) == 170 * 5
