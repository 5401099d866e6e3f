"""An attempt ends without a report: given back, or failed; what was learned of it is kept."""

from typing import Any

from cubeopt.db import attempts, records
from cubeopt.db.tables import EndClass, RunState

from .conftest import lease


def test_a_released_run_continues_under_a_higher_token(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (first,) = hands.claim()
    hands.report(first, 1, 0.5, checkpoint="one")
    assert attempts.release(hands.engine, [lease(first)]) == {first.run_id}
    run = hands.run(first.run_id)
    assert (run.state, run.end_class, run.worker_id) == (
        RunState.WAITING,
        EndClass.PREEMPTED,
        None,
    )
    (second,) = hands.claim()
    assert (second.token, second.epoch, second.checkpoint) == (first.token + 1, 1, "one")


def test_a_run_released_in_the_course_of_an_epoch_continues_from_there(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim()
    hands.report(claim, 2, checkpoint="two")
    assert attempts.release(hands.engine, [lease(claim)], checkpoint="two and a half")
    run = hands.run(claim.run_id)
    assert (run.epoch, run.checkpoint, run.checkpoint_epoch) == (2, "two and a half", 2)
    again = attempts.release(hands.engine, [lease(claim)], checkpoint="two and a half")
    assert again == {claim.run_id}, "its answer was lost: what is recorded is not to be removed"
    assert not attempts.release(hands.engine, [lease(claim)], checkpoint="of a zombie")
    assert hands.claim()[0].checkpoint == "two and a half"


def test_an_error_is_retried_to_the_limit_and_kept(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    states = []
    for _ in range(3):
        (claim,) = hands.claim()
        error = f"Traceback\0 {claim.token} \udce9"
        states.append(attempts.fail(hands.engine, lease(claim), EndClass.ERROR, error, 2))
    assert states == [RunState.WAITING, RunState.WAITING, RunState.FAILED]
    assert hands.claim() == []
    run = hands.run(claim.run_id)
    assert (run.failures, run.state, run.end_class) == (3, RunState.FAILED, EndClass.ERROR)
    assert run.finished_at is not None
    ended = records.attempts(hands.engine, study.id)
    assert [attempt.error for attempt in ended] == [f"Traceback {n} ?" for n in (1, 2, 3)]
    (trial,) = records.trials(hands.engine, study.id)
    assert trial.state is RunState.FAILED
    assert trial.reason == {"end": "error", "epoch": 0, "error": "Traceback 3 ?"}


def test_out_of_memory_halves_the_pack_until_the_run_is_alone(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    widths, states = [], []
    for _ in range(3):
        (claim,) = hands.claim(1, preferred_width=4)
        widths.append(claim.width)
        states.append(
            attempts.fail(
                hands.engine, lease(claim), EndClass.OUT_OF_MEMORY, "CUDA out of memory", 0
            )
        )
    assert widths == [4, 2, 1]
    assert states == [RunState.WAITING, RunState.WAITING, RunState.FAILED]


def test_out_of_memory_after_the_first_epoch_keeps_the_width_and_counts(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim(1, preferred_width=4)
    hands.report(claim, 1)
    state = attempts.fail(hands.engine, lease(claim), EndClass.OUT_OF_MEMORY, "out of memory", 1)
    run = hands.run(claim.run_id)
    assert (state, run.width, run.failures) == (RunState.WAITING, 4, 1)
