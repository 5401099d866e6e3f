"""Arms over the same seeds and batches, packed or alone, and what becomes of one that diverges."""

import dataclasses
import json
import threading

import pytest
import yaml

from cubeopt import trial
from cubeopt.data import dataset
from cubeopt.errors import InputError
from cubeopt.service import arms, comparison
from cubeopt.service.arms import Arm
from cubeopt.service.comparison import Request
from cubeopt.service.packs import Place
from cubeopt.training import device as devices
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun

SMALL = {
    "lattice_size": [2, 2, 3],
    "embedding_size": 24,
    "state_size": 4,
    "lattice_steps": 2,
    "functional_radius": 1.5,
    "distant_links": 1,
    "batch_size": 16,
    "epochs": 2,
    "dataset": "tiny",
    "data_seed": 5,
}
SEEDS = (0, 1, 2)
WILD = {"learning_rate": 1e3, "gradient_clip": 1e30}


def arm(tmp_path, name, **values):
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"real_training": {**SMALL, **values}}))
    return Arm(name, file, trial.from_flat({**SMALL, **values}))


def request(folder, compared, seeds=SEEDS, jobs=1):
    return Request(compared, seeds, "fvu", "a fingerprint", Place(folder, None, jobs))


def run(asked):
    return comparison.run(asked, threading.Event(), lambda at: None)


def alone(feed, spec):
    """The metrics of *spec* at its last epoch, trained by itself."""
    pack = PackRun(spec.shape, 1, feed)
    pack.fill(0, pack.fresh(spec))
    ends = [pack.step() for _ in range(spec.plan.epochs * pack.steps_per_epoch)]
    return ends[-1][0].metrics


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    return [
        arm(folder, "A"),
        arm(folder, "B", learning_rate=0.01),
        arm(folder, "C", state_size=8),
    ]


@pytest.fixture(scope="module")
def report(tiny_dataset, compared):
    return run(request(tiny_dataset, compared))


def test_arms_packed_give_the_values_that_each_training_gives_alone(report, compared, tiny_dataset):
    feed = Feed(dataset.load(tiny_dataset), compared[0].spec.plan.task, devices.prepare(None))
    for each, outcome in zip(compared, report.arms, strict=True):
        found = [alone(feed, each.trial(seed))["validation/fvu"] for seed in SEEDS]
        assert outcome.values == found
    assert len({value for each in report.arms for value in each.values}) == 9


def test_the_report_says_how_it_came_about(report, compared):
    assert [each.arm for each in report.arms] == ["A", "B", "C"]
    assert report.differing == {"learning_rate": [0.001, 0.01, 0.001], "state_size": [4, 4, 8]}
    first, second, third = report.arms
    assert first.weights == second.weights < third.weights
    for each, other in zip(report.comparisons, (second, third), strict=True):
        assert each.first == "A"
        pairs = [b - a for a, b in zip(first.values, other.values, strict=True)]
        assert each.differences == pairs
        assert each.evidence.mean == pytest.approx(sum(pairs) / 3)
    assert report.notes[:1] == [
        "3 pairs can never show p < 0.05: the smallest p they can reach with Holm's correction for "
        "2 comparisons is 0.5; give --seeds 7 or more"
    ]
    assert report.answered
    json.dumps(report.as_json(), allow_nan=False)


def test_trials_of_a_seed_have_the_same_seeds_and_each_seed_its_own_batches(compared):
    for one, other in ((compared[0], compared[1]), (compared[0], compared[2])):
        for seed in SEEDS:
            here, there = one.trial(seed), other.trial(seed)
            assert (here.seed, here.plan) == (there.seed, there.plan)
            assert (here.seed, here.plan.data_seed) == (seed, 5 + seed)
    last = dataclasses.replace(
        compared[0], spec=compared[0].spec.with_values({"data_seed": 2**31 - 1})
    )
    assert last.trial(1).plan.data_seed == 0


def seen(monkeypatch, folder, spec):
    """The batches that a training of *spec* is given."""
    feed = Feed(dataset.load(folder), spec.plan.task, devices.prepare(None))
    given, batch = [], feed.batch
    monkeypatch.setattr(feed, "batch", lambda *at: given.append(batch(*at)) or given[-1])
    alone(feed, spec)
    return given


def test_arms_of_other_shapes_see_the_same_batches(monkeypatch, compared, tiny_dataset):
    one, other = (seen(monkeypatch, tiny_dataset, each.trial(1)) for each in compared[::2])
    next_seed = seen(monkeypatch, tiny_dataset, compared[0].trial(2))
    assert len(one) == len(other) > 2
    for (source, target), (there, target_there) in zip(one, other, strict=True):
        assert source.equal(there)
        assert target.equal(target_there)
    assert not all(a.equal(b) for (a, _), (b, _) in zip(one, next_seed, strict=True))


def test_an_arm_that_diverges_is_named_and_leaves_its_neighbours_alone(
    tmp_path, compared, tiny_dataset, report
):
    wild = arm(tmp_path, "wild", **WILD)
    found = run(request(tiny_dataset, [compared[0], wild]))
    steady, lost = found.arms
    assert steady.values == report.arms[0].values
    assert (lost.values, lost.mean, lost.deviation) == ([None] * 3, None, None)
    assert lost.diverged.keys() == {0, 1, 2}
    (answer,) = found.comparisons
    assert (answer.verdict, answer.p, answer.evidence) == ("no answer", None, None)
    assert answer.words == (
        "no answer for wild against A: both stayed finite in 0 of 3 pairs, and two are needed"
    )
    assert found.notes[0].startswith("wild diverged with 3 of 3 seeds: 0 (epoch 1), 1 (epoch ")
    assert not found.answered
    json.dumps(found.as_json(), allow_nan=False)


def test_it_stops_when_it_is_told_to(tmp_path, tiny_dataset):
    endless = [
        arm(tmp_path, name, epochs=100_000, state_size=s) for name, s in (("A", 4), ("B", 8))
    ]
    stop = threading.Event()
    asked = request(tiny_dataset, endless, jobs=2)
    assert comparison.run(asked, stop, lambda at: stop.set()) is None


def names(compared, seeds, jobs):
    return [pack.name for pack, _ in comparison.shares(compared, range(seeds), jobs)]


def test_arms_of_one_shape_ride_together_unless_a_job_would_be_idle(compared):
    assert names(compared, 8, jobs=1) == ["A, B", "C"]
    assert names(compared, 8, jobs=2) == ["A, B", "C"]
    assert names(compared, 8, jobs=3) == ["A", "B", "C"]
    assert names(compared[:2], 8, jobs=2) == ["A", "B"]


def test_many_jobs_share_the_seeds_and_many_seeds_are_several_packs(compared):
    assert names(compared[:2], 4, jobs=4) == [
        *("A, seeds 0 to 1", "B, seeds 0 to 1", "A, seeds 2 to 3", "B, seeds 2 to 3")
    ]
    assert len(names(compared[:2], 4, jobs=64)) == 8
    assert names(compared[:2], 20, jobs=1) == ["A, B, seeds 0 to 15", "A, B, seeds 16 to 19"]


@pytest.mark.parametrize("seeds", [2, 7, 16, 40])
@pytest.mark.parametrize("jobs", [1, 2, 5, 100])
def test_every_arm_is_trained_once_with_every_seed(compared, seeds, jobs):
    shared = comparison.shares(compared, range(seeds), jobs)
    members = [each for _, group in shared for each in group]
    assert sorted(members) == [(name, seed) for name in "ABC" for seed in range(seeds)]
    by_name = {each.name: each for each in compared}
    for pack, group in shared:
        assert len({spec.shape for spec in pack.trials}) == 1
        assert list(pack.trials) == [by_name[name].trial(seed) for name, seed in group]
    assert len({pack.name for pack, _ in shared}) == len(shared)


def test_arms_are_called_by_their_files_and_by_the_path_where_that_is_not_enough(tmp_path):
    (tmp_path / "old").mkdir()
    here, there = arm(tmp_path, "A"), arm(tmp_path / "old", "A", learning_rate=0.01)
    other = arm(tmp_path, "B", learning_rate=0.02)
    assert [each.name for each in arms.read([here.file, other.file], None)] == ["A", "B"]
    found = arms.read([here.file, there.file], 9)
    assert [each.name for each in found] == [str(here.file), str(there.file)]
    assert {each.spec.plan.epochs for each in found} == {9}


def test_an_unknown_metric_is_an_error():
    with pytest.raises(InputError, match=r"--metric 'loss': expected one of fvu, cosine, top1"):
        comparison.metric_named("loss")
