"""The objective says what the model does, not how its loss was weighted."""

from dataclasses import replace

import pytest
import torch

from cubeopt.data import retrieval
from cubeopt.data.dataset import TASKS, Rows
from cubeopt.training import gating, metrics, sampled
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun, TrialState
from cubeopt.trial import Task

from .conftest import CPU, spec, standardised, start, train

OBJECTIVES = ("fvu", "cosine", "top1", "mrr", "effective_rank", "specialisation")
TASK_SETS = [[Task.RECONSTRUCT], [Task.DIALOGUE], [Task.RECONSTRUCT, Task.DIALOGUE, Task.NLI]]


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
    for name in (*OBJECTIVES, "gate_entropy", "specialisation/cell", "usage/local"):
        assert first[name] == second[name]


def outputs(run: PackRun, feed: Feed, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """What the cube makes of *rows* in one piece, as embeddings, and what it should make."""
    embeddings = feed.dataset.embeddings.double()
    entered = feed.source_scale.apply(embeddings[rows.source])
    output = run.cube.forward(run.arena, entered[None], run._knobs([0]).halting_threshold).output[0]
    return feed.target_scale.undo(output), embeddings[rows.target]


@pytest.mark.parametrize("tasks", TASK_SETS)
@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_fvu_and_cosine_are_those_of_the_stored_embeddings(dataset, tasks, normalisation):
    if normalisation == "standardise":
        uneven = dataset.embeddings * torch.linspace(0.2, 3.0, 32)
        dataset = replace(dataset, embeddings=uneven, normalisation=standardised(uneven))
    feed = Feed(dataset, tasks, CPU, torch.float64)
    run = train(start(feed, 1, {0: spec()}), 12)
    rows = dataset.rows(tasks, "validation")
    output, target = outputs(run, feed, rows)
    mean = dataset.embeddings.double()[dataset.rows(tasks, "train").target].mean(0)
    errors, spread = (output - target).square().sum(1), (target - mean).square().sum(1)
    cosine = torch.nn.functional.cosine_similarity(output, target, dim=1)
    found = run.evaluate("validation")[0]
    assert found["fvu"] == pytest.approx(float(errors.sum() / spread.sum()))
    assert found["cosine"] == pytest.approx(float(cosine.mean()), rel=1e-6)
    by_task = [name for name in found if name.startswith(("fvu/", "cosine/"))]
    assert len(by_task) == (2 * len(tasks) if len(tasks) > 1 else 0)
    for task in tasks if len(tasks) > 1 else []:
        held = rows.task == TASKS.index(task)
        assert found[f"fvu/{task}"] == pytest.approx(float(errors[held].sum() / spread[held].sum()))
        assert found[f"cosine/{task}"] == pytest.approx(float(cosine[held].mean()), rel=1e-6)


def test_each_corpus_is_judged_on_its_own_rows(dataset):
    tasks = [Task.DIALOGUE, Task.NLI]  # a corpus each; a third has no rows of these
    feed = Feed(dataset, tasks, CPU, torch.float64)
    run = train(start(feed, 2, {0: spec(), 1: spec(seed=1)}), 12)
    whole = run.evaluate("validation")[1]
    found = run.by_corpus(1, "validation")
    assert set(found) == {"talks", "snli"}
    for corpus, task in (("talks", Task.DIALOGUE), ("snli", Task.NLI)):
        assert found[corpus]["rows"] == len(dataset.rows([task], "validation"))
        for metric in ("fvu", "cosine"):
            assert found[corpus][metric] == pytest.approx(whole[f"{metric}/{task}"], rel=1e-12)


@pytest.mark.parametrize("limit", [4096, 9])
@pytest.mark.parametrize("tasks", TASK_SETS)
def test_retrieval_and_rank_are_those_of_the_split_in_one_piece(dataset, tasks, limit, monkeypatch):
    monkeypatch.setattr(retrieval, "LIMIT", limit)
    feed = Feed(dataset, tasks, CPU, torch.float64)
    run = train(start(feed, 1, {0: spec()}), 12)
    rows = dataset.rows(tasks, "validation")
    output, target = outputs(run, feed, rows)
    some = [k * len(output) // min(limit, len(output)) for k in range(min(limit, len(output)))]
    output, target, task = output[some], target[some], rows.task[some]
    likeness = torch.cosine_similarity(output[:, None], target[None], dim=2)
    ranks = []
    for row, own in enumerate(rows.target[some].tolist()):
        others = {
            int(each): likeness[row, k]
            for k, each in enumerate(rows.target[some])
            if task[k] == task[row]
        }
        right = others.pop(own)
        ranks.append(1 + sum(bool(other >= right) for other in others.values()))
    found = run.evaluate("validation")[0]
    groups = {f"/{each}": task == TASKS.index(each) for each in tasks} if len(tasks) > 1 else {}
    for name, held in {"": torch.ones_like(task, dtype=torch.bool), **groups}.items():
        chosen = torch.tensor(ranks)[held].double()
        assert found[f"top1{name}"] == pytest.approx(float((chosen == 1).double().mean()))
        assert found[f"mrr{name}"] == pytest.approx(float((1.0 / chosen).mean()))
        expected = sampled.effective_rank(output[held])
        assert found[f"effective_rank{name}"] == pytest.approx(expected, rel=1e-6)
    assert max(ranks) > 1
    assert len([name for name in found if name.startswith("top1/")]) == len(groups)


@pytest.mark.parametrize("tasks", TASK_SETS)
def test_the_gates_of_a_split_are_judged_together(dataset, tasks):
    feed = Feed(dataset, tasks, CPU, torch.float64)
    run = train(start(feed, 1, {0: spec()}), 12)
    rows = dataset.rows(tasks, "validation")
    entered = feed.source_scale.apply(dataset.embeddings.double()[rows.source])
    passage = run.cube.forward(run.arena, entered[None], run._knobs([0]).halting_threshold)
    whole = gating.metrics(
        gating.sums(passage.gates, rows.task, tasks), ["local", "functional", "distant"]
    )
    found = run.evaluate("validation")[0]
    for name, value in whole.items():
        assert found[name] == pytest.approx(float(value), rel=1e-9, abs=1e-12)
    assert found["steps"] == pytest.approx(float(passage.steps.double().mean()))


def test_a_trial_in_a_pack_has_the_metrics_it_has_alone(dataset):
    feed = Feed(dataset, TASK_SETS[-1], CPU, torch.float64)
    run = train(start(feed, 3, {p: spec(seed=p) for p in range(3)}), 12)
    arena = run.arena.clone()
    arena[1, 5] = torch.nan
    together = metrics.evaluate(run.cube, arena, feed, run._knobs([0, 1, 2]), "test")
    for p in (0, 2):
        (alone,) = metrics.evaluate(run.cube, arena[[p]], feed, run._knobs([p]), "test")
        assert set(together[p]) == set(alone)
        assert together[p] == pytest.approx(alone, rel=1e-9, abs=1e-12)
    assert not any(together[1][name] == together[1][name] for name in ("fvu", "effective_rank"))


def test_a_task_without_rows_in_the_sample_has_no_retrieval(dataset, monkeypatch):
    monkeypatch.setattr(retrieval, "LIMIT", 2)
    feed = Feed(dataset, TASK_SETS[-1], CPU, torch.float64)
    row = start(feed, 1, {0: spec()}).evaluate("validation")[0]
    assert {name for name in row if name.startswith("top1")} == {
        *("top1", "top1/reconstruct", "top1/dialogue")
    }
    assert "fvu/nli" in row


def test_metrics_do_not_depend_on_the_pieces_a_split_is_taken_in(dataset):
    feed = Feed(dataset, [Task.DIALOGUE, Task.NLI], CPU, torch.float64)
    found = []
    for batch_size in (5, 24):
        each = spec(batch_size=batch_size)
        found.append(start(feed, 1, {0: each}).evaluate("validation")[0])
    for name in (*OBJECTIVES, "fvu/nli", "mrr/dialogue", "loss/reconstruction", "gate_entropy"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-10)


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
    assert row["effective_rank"] == 0.0
