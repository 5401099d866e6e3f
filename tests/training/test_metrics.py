"""The objective says what the model does, not how its loss was weighted."""

import pytest
import torch

from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun, TrialState
from cubeopt.trial import Task

from .conftest import CPU, spec, start, train


def test_the_objective_does_not_move_when_only_loss_weights_change(feed):
    trained = train(start(feed, 1, {0: spec()}), 12).state(0)
    before = start(feed, 1, {})
    before.fill(0, trained)
    weights = {
        f"{term}_weight": 0.0
        for term in ("reconstruction", "similarity", "diversity", "emergence", "lattice", "spatial")
    }
    reweighted = TrialState(
        spec(**weights, emergence="legacy_log"),
        trained.step,
        trained.weights,
        trained.mean,
        trained.square,
    )
    after = start(feed, 1, {})
    after.fill(0, reweighted)
    first, second = (run.evaluate("validation")[0] for run in (before, after))
    for name in ("fvu", "cosine", "specialisation", "usage/local"):
        assert first[name] == second[name]


def outputs(run: PackRun, feed: Feed, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What the cube makes of a split in one piece, as embeddings, and what it should make."""
    source, target = feed.dataset.pairs(feed.task, split)
    embeddings = feed.dataset.embeddings.double()
    entered = feed.source_scale.apply(embeddings[source])
    output = run.cube.forward(run.arena, entered[None]).output[0]
    return feed.target_scale.undo(output), embeddings[target]


@pytest.mark.parametrize("task", list(Task))
def test_fvu_and_cosine_are_those_of_the_embeddings_themselves(dataset, task):
    feed = Feed(dataset, task, CPU, torch.float64)
    run = train(start(feed, 1, {0: spec()}), 12)
    output, target = outputs(run, feed, "validation")
    train_targets = dataset.embeddings[dataset.pairs(task, "train")[1]].double()
    spread = (target - train_targets.mean(0)).square().sum()
    row = run.evaluate("validation")[0]
    assert row["fvu"] == pytest.approx(float((output - target).square().sum() / spread))
    cosine = torch.nn.functional.cosine_similarity(output, target, dim=1).mean()
    assert row["cosine"] == pytest.approx(float(cosine), rel=1e-6)


def test_usage_is_in_percent_and_sums_to_a_hundred(feed):
    row = start(feed, 1, {0: spec()}).evaluate("validation")[0]
    usage = [value for name, value in row.items() if name.startswith("usage/")]
    assert sum(usage) == pytest.approx(100.0)
    assert all(5.0 < share < 95.0 for share in usage)


def test_predicting_the_mean_has_an_fvu_near_one(feed):
    run = start(feed, 1, {0: spec()})
    run.arena.zero_()
    row = run.evaluate("validation")[0]
    assert row["fvu"] == pytest.approx(1.0)
