"""What is written can be read back, and the coordinator's notes hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cubeopt.db import queue, records
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.errors import StudyError, UnknownNameError


def test_a_study_reads_back_as_it_was_written(hands: Any) -> None:
    study = hands.study("one")
    assert study == records.study(hands.engine, "one")
    assert records.studies(hands.engine) == [study]
    assert study.state is StudyState.RUNNING
    assert study.spec == {"name": "one", "rungs": {"epochs": [1, 2, 5]}}
    assert study.dataset_rows == {"train": 8, "validation": 1, "test": 1}
    assert study.baselines == {"mean": 1.0, "identity": None, "pca": 0.8, "pca_width": 16}
    assert abs(datetime.now(UTC) - study.created_at) < timedelta(minutes=1)


def test_a_name_can_be_taken_once(hands: Any) -> None:
    study = hands.study("one")
    with pytest.raises(StudyError, match="a study named 'one' exists already"):
        hands.study("one")
    assert records.studies(hands.engine) == [study]


def test_a_misspelt_name_gets_a_hint(hands: Any) -> None:
    hands.study("quickstart")
    with pytest.raises(UnknownNameError, match=r"no study named 'quikstart'.*'quickstart'"):
        records.study(hands.engine, "quikstart")


def test_the_state_of_a_trial_is_that_of_its_short_run(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(3))
    first, second = hands.claim(2)
    hands.complete(first, 0.25)
    hands.report(second, 1, 0.75)
    queue.promote(hands.engine, study.id, [0], 50)
    (full,) = hands.claim(1)
    hands.report(full, 6, 0.125)
    trials = records.trials(hands.engine, study.id)
    assert [(trial.number, trial.state, trial.epoch, trial.value) for trial in trials] == [
        (0, RunState.COMPLETE, 5, 0.25),
        (1, RunState.RUNNING, 1, 0.75),
        (2, RunState.WAITING, 0, None),
    ]
    assert all(isinstance(trial.state, RunState) for trial in trials)
    assert records.counts(hands.engine, study.id) == {
        RunState.WAITING: 1,
        RunState.RUNNING: 1,
        RunState.COMPLETE: 1,
        RunState.PRUNED: 0,
        RunState.FAILED: 0,
    }
    assert records.counts(hands.engine, study.id, RunKind.FULL)[RunState.RUNNING] == 1


def test_runs_and_epochs_come_by_trial_and_short_before_full(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [1, 0])
    for claim in hands.claim(2):
        hands.complete(claim)
    queue.promote(hands.engine, study.id, [0], 50)
    (full,) = hands.claim()
    hands.report(full, 6)
    runs = records.runs(hands.engine, study.id)
    assert [(run.trial_number, run.kind) for run in runs] == [
        (0, "short"),
        (0, "full"),
        (1, "short"),
    ]
    assert [run.end_class for run in runs] == [EndClass.DONE, None, EndClass.DONE]
    epochs = records.epochs(hands.engine, study.id)
    assert [(one.trial_number, one.kind, one.epoch) for one in epochs] == [
        (0, "short", 5),
        (0, "full", 6),
        (1, "short", 5),
    ]
    late = records.epochs(hands.engine, study.id, after=epochs[2].created_at)
    assert [one.epoch for one in late] == [6]


def test_there_are_no_runs_of_a_study_without_trials(hands: Any) -> None:
    study = hands.study()
    assert records.trials(hands.engine, study.id) == []
    assert set(records.counts(hands.engine, study.id).values()) == {0}
