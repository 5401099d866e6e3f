"""A worker trains what waits, to the same numbers as one trial alone, and loses nothing."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sqlalchemy import text

from cubeopt import saved, trial
from cubeopt.data import dataset
from cubeopt.db import measures, queue, records
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.errors import DeviceLostError, UnknownNameError
from cubeopt.report import summary, winner
from cubeopt.service.events import Happening
from cubeopt.service.host import CoordinatorHost
from cubeopt.training import checkpoint
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun

from .conftest import coordinating, until


def finished(engine, record):
    return records.study(engine, record.name), records.runs(engine, record.id)


def test_a_study_ends_with_every_trial_ended_and_the_best_promoted(engine, create, work):
    record = create()
    with coordinating(engine):
        work()
    study, runs = finished(engine, record)
    assert study.state is StudyState.COMPLETE
    short = [run for run in runs if run.kind is RunKind.SHORT]
    assert [run.trial_number for run in short] == list(range(6))
    assert {run.state for run in short} == {RunState.COMPLETE, RunState.PRUNED}
    (full,) = [run for run in runs if run.kind is RunKind.FULL]
    completed = {r.trial_number: r.value for r in short if r.state is RunState.COMPLETE}
    assert full.trial_number == min(completed, key=completed.get)
    assert (full.state, full.epoch, full.width) == (RunState.COMPLETE, 6, 2)
    assert 0.0 < full.test_value < 2.0


def test_each_epoch_of_each_run_is_recorded_once_and_in_order(engine, create, work):
    record = create()
    with coordinating(engine):
        work()
    _, runs = finished(engine, record)
    epochs = records.epochs(engine, record.id)
    for run in runs:
        found = [each.epoch for each in epochs if each.run_id == run.id]
        first = 4 if run.kind is RunKind.FULL else 1
        assert found == list(range(first, run.epoch + 1))


def test_over_several_tasks_the_metrics_of_each_are_recorded_and_a_continued_run_is_the_same(
    engine, settings, create, work, tiny_study
):
    base = {**tiny_study["base"], "task": ["dialogue", "reconstruct"]}
    record = create(base=base, budget={"trials": 1}, rungs={"epochs": [2]})
    assert record.dataset_rows["train"] == 160 + 80
    with coordinating(engine):
        work()
    _, runs = finished(engine, record)
    (full,) = [run for run in runs if run.kind is RunKind.FULL]
    assert (full.state, full.spec["task"]) == (RunState.COMPLETE, ["reconstruct", "dialogue"])
    (last,) = [e for e in records.epochs(engine, record.id) if e.epoch == 6]
    parts = [last.metrics[f"validation/fvu/{task}"] for task in ("reconstruct", "dialogue")]
    assert min(parts) < last.metrics["validation/fvu"] == last.value < max(parts)
    spec = trial.from_flat(full.spec)
    loaded = dataset.load(settings.data_dir / "tiny")
    straight = PackRun(spec.shape, full.width, Feed(loaded, spec.plan.task, torch.device("cpu")))
    straight.fill(0, straight.fresh(spec))
    for _ in range(6 * straight.steps_per_epoch):
        ends = straight.step()
    assert last.value == ends[0].metrics["validation/fvu"]


def test_a_promoted_run_equals_the_same_config_trained_straight_through(
    engine, settings, create, work
):
    record = create()
    with coordinating(engine):
        work()
    _, runs = finished(engine, record)
    (full,) = [run for run in runs if run.kind is RunKind.FULL]
    spec = trial.from_flat(full.spec)
    loaded = dataset.load(settings.data_dir / "tiny")
    straight = PackRun(spec.shape, full.width, Feed(loaded, spec.plan.task, torch.device("cpu")))
    straight.fill(0, straight.fresh(spec))
    for _ in range(6 * straight.steps_per_epoch):
        ends = straight.step()
    folder = settings.checkpoints_dir / full.checkpoint
    state, _ = checkpoint.load(folder, straight.cube.layout)
    assert torch.equal(state.weights, straight.state(0).weights)
    assert torch.equal(state.square, straight.state(0).square)
    assert full.value == ends[0].metrics["validation/fvu"]
    assert full.test_value == straight.evaluate("test")[0]["fvu"]


def test_a_stopped_worker_gives_its_runs_back_and_the_next_goes_on(engine, create, work):
    record = create(rungs={"epochs": [1, 2, 3], "rule": "none"})
    stop = threading.Event()
    with coordinating(engine):
        told = work(stop, lambda event: stop.set() if event.epoch == 2 else None)
        assert told[-1].what is Happening.RELEASED
        assert not [r for r in records.runs(engine, record.id) if r.state is RunState.RUNNING]
        work()
    study, runs = finished(engine, record)
    assert study.state is StudyState.COMPLETE
    attempts = records.attempts(engine, record.id)
    preempted = [each for each in attempts if each.end_class is EndClass.PREEMPTED]
    assert {each.trial_number for each in preempted} == {0, 1}
    again = [each for each in attempts if each.trial_number == 0 and each.token == 2]
    assert [each.from_epoch for each in again if each.kind is RunKind.SHORT] == [2]
    assert all(run.failures == 0 for run in runs)


def test_results_do_not_depend_on_interruptions(engine, create, work):
    rungs = {"epochs": [1, 2, 3], "rule": "none"}
    calm = create(name="calm", rungs=rungs)
    with coordinating(engine):
        work()
        troubled = create(name="troubled", rungs=rungs)
        for _ in range(4):
            stop, seen = threading.Event(), []

            def interrupt(event, seen=seen, stop=stop):
                seen.append(event)
                if sum(each.what is Happening.EPOCH for each in seen) == 3:
                    stop.set()

            work(stop, interrupt)
        work()
    values = [
        [(run.trial_number, run.kind, run.value, run.test_value) for run in finished(engine, r)[1]]
        for r in (calm, troubled)
    ]
    assert values[0] == values[1]


def test_the_coordinator_is_looked_after_at_every_step_not_only_between_epochs(
    create, engine, work, monkeypatch
):
    create(budget={"trials": 1}, promotion={"top": 0})
    happened, step = [], PackRun.step
    monkeypatch.setattr(PackRun, "step", lambda run: happened.append("step") or step(run))
    monkeypatch.setattr(CoordinatorHost, "ensure", lambda host: happened.append("look"))
    with coordinating(engine):
        work()
    steps = [at for at, what in enumerate(happened) if what == "step"]
    assert len(steps) > 3
    assert {happened[at + 1] for at in steps} == {"look"}


def test_a_run_whose_training_raises_is_retried_and_then_failed_with_its_traceback(
    engine, create, work, monkeypatch
):
    record = create(budget={"trials": 1}, promotion={"top": 0})

    def broken(self):
        raise RuntimeError("the device fell off the bus")

    monkeypatch.setattr(PackRun, "step", broken)
    with coordinating(engine):
        told = work()
    study, (run,) = finished(engine, record)
    assert run.state is RunState.FAILED
    assert run.failures == 3
    assert study.state is StudyState.FAILED
    errors = [each.error for each in records.attempts(engine, record.id)]
    assert len(errors) == 3
    assert all("the device fell off the bus" in error for error in errors)
    assert "has failed" in told[-1].detail


def test_the_trial_that_breaks_its_pack_fails_alone_and_its_neighbours_lose_nothing(
    engine, create, work, monkeypatch
):
    changes = {"rungs": {"epochs": [1, 2, 3], "rule": "none"}, "budget": {"trials": 3}}
    changes["promotion"] = {"top": 0}
    calm = create(name="calm", **changes)
    with coordinating(engine):
        work(pack=3)
    record, step = create(**changes), PackRun.step

    def fussy(self):
        if any(self._held(slot).spec == guilty and self._held(slot).step for slot in self.busy):
            raise RuntimeError("not with this one")
        return step(self)

    guilty = trial.from_flat(records.runs(engine, calm.id)[1].spec)
    monkeypatch.setattr(PackRun, "step", fussy)
    with coordinating(engine):
        work(pack=3)
    values = [
        {run.trial_number: run for run in finished(engine, each)[1] if run.kind is RunKind.SHORT}
        for each in (calm, record)
    ]
    found = values[1][1]
    assert (found.state, found.failures) == (RunState.FAILED, 3)
    for number in (0, 2):
        assert values[1][number].value == values[0][number].value
        assert (values[1][number].state, values[1][number].failures) == (RunState.COMPLETE, 0)
    attempts = records.attempts(engine, record.id)
    ends = {
        number: [a.end_class for a in attempts if a.trial_number == number] for number in range(3)
    }
    assert ends[1] == [EndClass.PREEMPTED, *[EndClass.ERROR] * 3]
    assert ends[0][:2] == ends[2][:2] == [EndClass.PREEMPTED, EndClass.DONE]
    assert "not with this one" in attempts[0].error


def test_a_broken_device_ends_the_worker_and_gives_its_runs_back(engine, create, work, monkeypatch):
    record = create(budget={"trials": 2}, promotion={"top": 0})

    def broken(self):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered\nmore")

    monkeypatch.setattr(PackRun, "step", broken)
    with coordinating(engine):
        until(lambda: queue.first_waiting(engine))
        with pytest.raises(DeviceLostError, match=r"cpu failed \(CUDA error: device-side assert"):
            work()
    runs = records.runs(engine, record.id)
    assert {(run.state, run.failures) for run in runs} == {(RunState.WAITING, 0)}


def test_a_diverged_trial_is_a_bad_result_and_its_neighbour_goes_on(engine, create, work):
    search = {"learning_rate": {"choices": [0.01, 900.0]}}
    record = create(search=search, rungs={"epochs": [1, 2, 3], "rule": "none"})
    with coordinating(engine):
        work()
    study, runs = finished(engine, record)
    short = [run for run in runs if run.kind is RunKind.SHORT]
    wild = [run for run in short if run.spec["learning_rate"] == 900.0]
    assert wild
    assert {run.end_class for run in wild} == {EndClass.DIVERGED}
    assert {run.end_class for run in short if run not in wild} == {EndClass.DONE}
    assert study.state is StudyState.COMPLETE


def test_by_a_factor_full_runs_begin_before_all_short_ones_have_ended_and_go_on(
    engine, settings, create, work
):
    record = create(
        rungs={"epochs": [1, 2, 3], "rule": "none"},
        promotion={"reduction_factor": 2.0},
        budget={"trials": 8},
    )

    def wait(event):
        """After four results, until the two that are due are there, whatever the machine does."""
        if event.what is not Happening.COMPLETE or event.claim.kind is RunKind.FULL:
            return
        if len(measures.results(engine, record.id, [])) == 4:
            until(lambda: records.counts(engine, record.id, RunKind.FULL)[RunState.WAITING])

    with coordinating(engine):
        work(tell=wait)
    study, runs = finished(engine, record)
    assert study.state is StudyState.COMPLETE
    short = [run for run in runs if run.kind is RunKind.SHORT]
    full = [run for run in runs if run.kind is RunKind.FULL]
    assert {run.state for run in runs} == {RunState.COMPLETE}
    best = sorted(short, key=lambda run: run.value)[:4]
    assert {run.trial_number for run in best} <= {run.trial_number for run in full}
    assert min(run.started_at for run in full) < max(run.started_at for run in short)
    first = min(full, key=lambda run: run.started_at)
    (attempt,) = [a for a in records.attempts(engine, record.id) if a.run_id == first.id]
    assert attempt.from_epoch == 3
    epochs = [e for e in records.epochs(engine, record.id) if e.run_id == first.id]
    assert [each.epoch for each in epochs] == [4, 5, 6]
    assert first.value == straight_value(settings, first)


def straight_value(settings, run):
    """What the configuration of *run* comes to, trained without any interruption."""
    spec = trial.from_flat(run.spec)
    loaded = dataset.load(settings.data_dir / "tiny")
    straight = PackRun(spec.shape, run.width, Feed(loaded, spec.plan.task, torch.device("cpu")))
    straight.fill(0, straight.fresh(spec))
    for _ in range(run.epoch * straight.steps_per_epoch):
        ends = straight.step()
    return ends[0].metrics["validation/fvu"]


def test_the_best_trials_full_runs_go_over_seeds_and_each_is_a_training_of_its_own(
    engine, settings, create, work
):
    record = create(promotion={"top": 1, "seeds": 3}, budget={"trials": 3})
    with coordinating(engine):
        work()
    study, runs = finished(engine, record)
    assert study.state is StudyState.COMPLETE
    full = [run for run in runs if run.kind is RunKind.FULL]
    (number,) = {run.trial_number for run in full}
    assert [(run.replicate, run.spec["seed"], run.state) for run in full] == [
        (nth, number + nth, RunState.COMPLETE) for nth in range(3)
    ]
    assert len({run.value for run in full}) == 3
    for run in full:
        assert run.value == straight_value(settings, run)
    folders = {run.checkpoint.rpartition("/")[0] for run in full}
    trial_folder = f"tiny/trial_{number:05d}"
    assert folders == {f"{trial_folder}/{name}" for name in ("full", "full_1", "full_2")}
    assert all((settings.checkpoints_dir / run.checkpoint).is_dir() for run in full)
    for run in full:  # each save point is kept, thinned, and the end whole
        kept = saved.of_epochs((settings.checkpoints_dir / run.checkpoint).parent)
        assert [*kept] == ([2, 4, 6] if run.replicate else [4, 6])
        facts = {epoch: json.loads((at / "state.json").read_text()) for epoch, at in kept.items()}
        assert [each.get("thinned", False) for each in facts.values()] == [
            epoch < 6 for epoch in kept
        ]
        assert {epoch: checkpoint.evaluated(at).facts.epoch for epoch, at in kept.items()} == {
            epoch: epoch for epoch in kept
        }
    found = summary.load(engine, record.name)
    best = summary.summarize(found.study, found.trials, found.runs).best
    assert (best.trial, best.seeds, best.kind) == (number, 3, "full")
    assert best.value == pytest.approx(sum(run.value for run in full) / 3, rel=1e-12)
    origin = winner.exported(found)["provenance"]
    assert (origin["value"], origin["seed"]) == (full[0].value, number)
    assert origin["over_seeds"]["values"] == {str(run.spec["seed"]): run.value for run in full}


@pytest.mark.parametrize("epochs", [1, 11, 20])
def test_a_budget_of_epochs_is_spent_to_the_last_and_never_overdrawn(
    engine, settings, create, work, epochs
):
    record = create(budget={"epochs": epochs}, promotion={"reduction_factor": 2.0})
    trained = []

    def count(event):
        if event.what in (Happening.EPOCH, Happening.COMPLETE, Happening.PRUNED):
            trained.append(event)

    with coordinating(engine):
        work(tell=count)
    study, runs = finished(engine, record)
    assert study.state is StudyState.COMPLETE
    assert study.state_reason.startswith(f"budget.epochs is spent: {epochs} of {epochs} used")
    assert len(records.epochs(engine, record.id)) == len(trained) == epochs
    assert not [run for run in runs if run.state is RunState.RUNNING]
    for run in runs:
        if run.state is RunState.WAITING and run.epoch:
            assert (settings.checkpoints_dir / run.checkpoint).is_dir()
            assert run.checkpoint_epoch == run.epoch
    ends = {each.end_class for each in records.attempts(engine, record.id)}
    assert ends <= {EndClass.DONE, EndClass.PRUNED, EndClass.PREEMPTED}


def test_two_workers_spend_a_budget_of_epochs_together_and_not_more(engine, create, work):
    record = create(budget={"epochs": 13}, promotion={"top": 0})
    with coordinating(engine), ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, pack=3) for _ in range(2)]:
            done.result()
    assert len(records.epochs(engine, record.id)) == 13


def test_when_the_time_is_over_what_runs_is_given_back_with_its_checkpoint(
    engine, settings, create, work
):
    record = create(
        rungs={"epochs": [3], "rule": "none"}, budget={"device_hours": 1000.0}, name="timed"
    )
    over = "UPDATE cubeopt.attempts SET started_at = started_at - interval '2000 h'"

    def pass_time(event):
        if event.what is Happening.EPOCH and event.epoch == 2:
            with engine.begin() as connection:
                connection.execute(text(over))

    with coordinating(engine):
        work(tell=pass_time)
    study, runs = finished(engine, record)
    assert study.state is StudyState.COMPLETE
    assert study.state_reason.startswith("budget.device_hours is spent: ")
    begun = [run for run in runs if run.state is RunState.WAITING and run.epoch]
    assert begun
    assert all((settings.checkpoints_dir / run.checkpoint).is_dir() for run in begun)
    assert not [run for run in runs if run.state is RunState.RUNNING]


def test_a_worker_for_an_unknown_study_says_so(work):
    with pytest.raises(UnknownNameError, match="nosuch"):
        work(study="nosuch")


def test_auto_measures_a_width_and_keeps_it_for_the_run(engine, create, work):
    record = create(budget={"trials": 2})
    with coordinating(engine):
        until(lambda: queue.first_waiting(engine))
        work(pack=None)
    _, runs = finished(engine, record)
    assert all(run.width in (1, 2, 4, 8) for run in runs)
    assert {run.state for run in runs} <= {RunState.COMPLETE, RunState.PRUNED}
