"""A person retries what failed and ends what waits or runs, each in one statement."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from cubeopt.db import attempts, beats, interventions, outcomes, queue, records
from cubeopt.db.leases import Verdict
from cubeopt.db.tables import EndClass, RunState
from cubeopt.errors import StateError, UnknownNameError

from .conftest import lease


def test_a_failed_trial_is_tried_again_from_its_checkpoint_with_all_its_retries(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    hands.report(claim, 2, checkpoint="two")
    attempts.fail(hands.engine, lease(claim), EndClass.ERROR, "boom", 0)
    assert interventions.retry(hands.engine, "study", 0)
    assert not interventions.retry(hands.engine, "study", 0)
    (trial,) = records.trials(hands.engine, study.id)
    assert (trial.state, trial.reason, trial.finished_at) == (RunState.WAITING, None, None)
    (again,) = hands.claim()
    assert (again.token, again.epoch, again.checkpoint, again.width) == (2, 2, "two", claim.width)
    assert attempts.fail(hands.engine, lease(again), EndClass.ERROR, "boom", 1) is RunState.WAITING


def test_a_trial_that_was_too_big_begins_at_any_width(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim(preferred_width=1)
    attempts.fail(hands.engine, lease(claim), EndClass.OUT_OF_MEMORY, "too big", 0)
    assert interventions.retry(hands.engine, "study", 0)
    assert hands.claim(preferred_width=4)[0].width == 4


def test_a_running_trial_is_ended_and_its_worker_writes_nothing_more(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0, 1])
    (claim,) = hands.claim()
    hands.report(claim, 1, 0.7)
    assert interventions.prune(hands.engine, "study", 0)
    assert not interventions.prune(hands.engine, "study", 0)
    assert hands.report(claim, 2, 0.1) == {claim.run_id: Verdict.LOST}
    assert beats.beat(hands.engine, hands.worker_id, [lease(claim)], 60) == set()
    run = hands.run(claim.run_id)
    assert (run.state, run.epoch, run.value, run.end_class) == (
        *(RunState.PRUNED, 1, 0.7, EndClass.PRUNED),
    )
    trial = records.trials(hands.engine, study.id)[0]
    assert trial.reason == {"end": "pruned", "by": "a person", "epoch": 1, "value": 0.7}
    ended = outcomes.ended(hands.engine, study.id, [0, 1])
    assert [(each.number, each.state) for each in ended] == [(0, RunState.PRUNED)]


def test_a_waiting_trial_is_ended_before_anybody_claims_it(hands: Any) -> None:
    hands.enqueue(hands.study(), [0, 1])
    assert interventions.prune(hands.engine, "study", 0)
    assert [claim.trial_number for claim in hands.claim(8)] == [1]


def test_of_a_promoted_trial_the_full_run_is_meant(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (short,) = hands.claim()
    hands.complete(short)
    queue.promote(hands.engine, study.id, [0], 10)
    assert interventions.prune(hands.engine, "study", 0)
    states = [run.state for run in records.runs(hands.engine, study.id)]
    assert states == [RunState.COMPLETE, RunState.PRUNED]
    assert records.trials(hands.engine, study.id)[0].reason is None


def test_what_a_state_does_not_allow_is_one_clear_error(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim()
    with pytest.raises(StateError, match="trial 0 is running; only one that failed can be retried"):
        interventions.retry(hands.engine, "study", 0)
    hands.complete(claim)
    with pytest.raises(StateError, match="is complete; only one that waits or runs can be pruned"):
        interventions.prune(hands.engine, "study", 0)
    with pytest.raises(UnknownNameError, match="study 'study' has no trial 7"):
        interventions.prune(hands.engine, "study", 7)
    with pytest.raises(UnknownNameError, match="no study named 'studdy'"):
        interventions.retry(hands.engine, "studdy", 0)


def test_runs_of_a_trial_are_ended_in_the_order_in_which_workers_lock_them(hands: Any) -> None:
    """A worker that reports the seeds of a trial locks them by id, wherever their rows lie."""
    study = hands.study()
    hands.enqueue(study, [0])
    hands.complete(hands.claim()[0])
    queue.promote(hands.engine, study.id, [0], 9, seeds=2)
    moves = text("UPDATE cubeopt.runs SET priority = 1 WHERE kind = 'full' AND replicate = 0")
    locks = text("SELECT FROM cubeopt.runs WHERE kind = 'full' AND replicate = :nth FOR UPDATE")
    waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with hands.engine.begin() as connection:
        connection.execute(moves)
        connection.execute(text("ANALYZE cubeopt.runs, cubeopt.trials, cubeopt.studies"))
    with ThreadPoolExecutor(1) as pool:
        with hands.engine.begin() as connection, hands.engine.connect() as looking:
            connection.execute(locks, {"nth": 0})
            pruned = pool.submit(interventions.prune, hands.engine, "study", 0)
            while not pruned.done() and not looking.scalar(waits):
                looking.rollback()
            connection.execute(locks, {"nth": 1})
        assert pruned.result()
    states = [run.state for run in records.runs(hands.engine, study.id)]
    assert states == [RunState.COMPLETE, RunState.PRUNED, RunState.PRUNED]
