"""A study whose trials fail in a row is ended; a result of any kind breaks the row."""

from typing import Any

import pytest

from cubeopt.db import attempts, breaker, orders, records
from cubeopt.db.tables import EndClass, StudyState

from .conftest import lease


def end(hands: Any, how: str) -> None:
    (claim,) = hands.claim()
    if how == "failed":
        error = "Traceback\n  somewhere\nRuntimeError: boom\n"
        attempts.fail(hands.engine, lease(claim), EndClass.ERROR, error, retry_limit=0)
    elif how == "diverged":
        hands.report(claim, 1, diverged=True)
    else:
        hands.complete(claim)


def test_failures_in_a_row_end_the_study_and_say_why(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(5))
    for _ in range(2):
        end(hands, "failed")
        assert breaker.trip(hands.engine, study.id, 3) is None
    end(hands, "failed")
    reason = "3 trials failed in a row (0, 1, 2); the last, trial 2, by error: RuntimeError: boom"
    assert breaker.trip(hands.engine, study.id, 3) == reason
    ended = records.study(hands.engine, study.name)
    assert (ended.state, ended.state_reason) == (StudyState.FAILED, reason)
    assert ended.finished_at is not None
    assert hands.claim() == []
    assert breaker.trip(hands.engine, study.id, 3) is None


@pytest.mark.parametrize("between", ["complete", "diverged"])
def test_any_result_breaks_the_row(hands: Any, between: str) -> None:
    study = hands.study()
    hands.enqueue(study, range(5))
    for how in ("failed", "failed", between, "failed", "failed"):
        end(hands, how)
        assert breaker.trip(hands.engine, study.id, 3) is None


def test_the_failures_of_another_study_do_not_count(hands: Any) -> None:
    study, other = hands.study(), hands.study("other")
    hands.enqueue(other, range(3))
    for _ in range(3):
        end(hands, "failed")
    assert breaker.trip(hands.engine, study.id, 3) is None


def test_what_failed_before_a_person_resumed_the_study_does_not_count(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(6))
    for _ in range(3):
        end(hands, "failed")
    assert breaker.trip(hands.engine, study.id, 3)
    orders.steer(hands.engine, study.name, orders.Order.RESUME)
    end(hands, "failed")
    assert breaker.trip(hands.engine, study.id, 3) is None
    end(hands, "failed")
    end(hands, "failed")
    assert breaker.trip(hands.engine, study.id, 3)
