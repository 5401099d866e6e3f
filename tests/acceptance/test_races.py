"""What others do between two statements of a worker or a coordinator."""

import pytest
from sqlalchemy import text

from cubeopt.db import attempts, leases, outcomes, queue, records
from cubeopt.db.engine import optuna_url
from cubeopt.db.leases import EpochReport, Lease
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.errors import CheckpointError
from cubeopt.search import mirror
from cubeopt.service.coordinator import Coordinator
from cubeopt.service.events import Happening
from cubeopt.training import checkpoint

from ..service.conftest import coordinating, create, work  # noqa: F401 - fixtures

RUNGS = {"epochs": [1, 2, 3], "rule": "none"}


def claim(engine, limit=1):
    worker = queue.register(engine, "other", "there", 2, "cpu", {})
    return queue.claim(engine, worker, limit, 2, lease_seconds=60, device="cpu", provenance={})


def expire(engine, run_id):
    """The run's lease ends, and the run returns to the queue."""
    expired = "UPDATE cubeopt.runs SET lease_expires_at = 'epoch' WHERE id = :id"
    with engine.begin() as connection:
        connection.execute(text(expired), {"id": run_id})
    queue.reap(engine)


def test_an_end_between_two_looks_of_the_coordinator_is_shown_with_its_epochs(
    engine,
    create,  # noqa: F811
    monkeypatch,
):
    record = create(rungs=RUNGS, budget={"trials": 1})
    storage = mirror.open_storage(optuna_url(engine))
    try:
        coordinator = Coordinator(engine, storage)
        coordinator.tick()
        (taken,) = claim(engine)
        reports = [EpochReport(taken.run_id, taken.token, 3, 0.5, {})]

        def then_it_ends(look):
            def looked(*arguments):
                seen = look(*arguments)
                while reports:
                    leases.report(engine, [reports.pop()], lambda question: False)
                return seen

            return looked

        for name in ("ended", "unmirrored"):
            monkeypatch.setattr(outcomes, name, then_it_ends(getattr(outcomes, name)))
        coordinator.tick()
        coordinator.tick()
        (shown,) = storage.get_all_trials(storage.get_study_id_from_name(record.name))
        assert (shown.value, shown.intermediate_values) == (0.5, {3: 0.5})
    finally:
        storage.engine.dispose()


def test_a_worker_that_leases_a_run_again_which_it_lost_unnoticed_trains_it_once(
    engine,
    create,  # noqa: F811
    work,  # noqa: F811
):
    record = create(rungs=RUNGS, budget={"trials": 2}, promotion={"top": 0})
    lost = []

    def lose(event):
        if event.what is Happening.EPOCH and not lost:
            lost.append(event.claim.run_id)
            expire(engine, event.claim.run_id)

    with coordinating(engine):
        told = work(tell=lose, pack=3, lease_seconds=1.0)
    assert [event.claim.run_id for event in told if event.what is Happening.LOST] == lost
    attempts = records.attempts(engine, record.id)
    tries = [each.end_class for each in attempts if each.run_id in lost]
    assert tries == [EndClass.LOST, EndClass.DONE]
    assert len(attempts) == 3
    epochs = [(each.trial_number, each.epoch) for each in records.epochs(engine, record.id)]
    assert epochs == [(number, epoch) for number in (0, 1) for epoch in (1, 2, 3)]
    assert records.study(engine, record.name).state is StudyState.COMPLETE


def test_a_checkpoint_that_a_successor_cleared_away_ends_nothing_but_that_run_here(
    engine,
    create,  # noqa: F811
    work,  # noqa: F811
    monkeypatch,
):
    record = create(rungs=RUNGS, budget={"trials": 2}, promotion={"top": 0})
    save, taken = checkpoint.save, []

    def cleared(folder, *arguments):
        if not taken and "trial_00000" in str(folder):
            (run, _) = records.runs(engine, record.id)
            expire(engine, run.id)
            taken.extend(claim(engine))
            raise CheckpointError(f"cannot write checkpoint {folder}: No such file or directory")
        save(folder, *arguments)

    def give_back(event):
        if event.what is Happening.LOST:
            attempts.release(engine, [Lease(taken[0].run_id, taken[0].token)])

    monkeypatch.setattr(checkpoint, "save", cleared)
    with coordinating(engine):
        told = work(tell=give_back)
    assert [each.claim.trial_number for each in told if each.what is Happening.LOST] == [0]
    runs = records.runs(engine, record.id)
    assert {run.state for run in runs} == {RunState.COMPLETE}
    ends = [(each.trial_number, each.end_class) for each in records.attempts(engine, record.id)]
    assert sorted(ends) == [
        (0, EndClass.DONE),
        (0, EndClass.LOST),
        (0, EndClass.PREEMPTED),
        (1, EndClass.DONE),
    ]


def test_a_worker_that_cannot_write_checkpoints_ends_and_records_nothing(
    engine,
    create,  # noqa: F811
    work,  # noqa: F811
    monkeypatch,
):
    record = create(rungs=RUNGS)

    def full(folder, *arguments):
        raise CheckpointError(f"cannot write checkpoint {folder}: No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with coordinating(engine), pytest.raises(CheckpointError, match="No space left on device"):
        work()
    assert records.epochs(engine, record.id) == []
    runs = records.runs(engine, record.id)
    assert {run.failures for run in runs} == {0}
    assert {run.kind for run in runs} == {RunKind.SHORT}
