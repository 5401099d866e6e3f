"""A worker may write to the runs it holds, and to no others."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from cubeopt.db import attempts, beats, leases, outcomes, queue, records
from cubeopt.db.leases import EpochReport, Lease, RungQuestion, Verdict
from cubeopt.db.tables import EndClass, RunKind, RunState
from cubeopt.errors import LeaseLostError


def lease(claim: Any) -> Lease:
    return Lease(claim.run_id, claim.token)


def reaped(hands: Any, claim: Any) -> None:
    hands.expire(claim)
    assert queue.reap(hands.engine) == [claim.run_id]


def claimed_again(hands: Any, claim: Any) -> None:
    reaped(hands, claim)
    assert hands.claim()[0].run_id == claim.run_id


def ended(hands: Any, claim: Any) -> None:
    hands.complete(claim)


@pytest.mark.parametrize("lose", [reaped, claimed_again, ended])
def test_a_zombie_writes_nothing(hands: Any, lose: Callable[[Any, Any], None]) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (zombie,) = hands.claim()
    lose(hands, zombie)
    before = records.runs(hands.engine, study.id), records.attempts(hands.engine, study.id)
    epochs = records.epochs(hands.engine, study.id)

    assert hands.report(zombie, 1, 0.1, checkpoint="z") == {zombie.run_id: Verdict.LOST}
    assert hands.report(zombie, 4, 0.1, checkpoint="z") == {zombie.run_id: Verdict.LOST}
    assert beats.beat(hands.engine, hands.worker_id, [lease(zombie)], 9999) == set()
    assert attempts.release(hands.engine, [lease(zombie)]) == set()
    with pytest.raises(LeaseLostError, match=f"run {zombie.run_id} .*token 1"):
        attempts.fail(hands.engine, lease(zombie), EndClass.ERROR, "late", 0)

    assert (
        records.runs(hands.engine, study.id),
        records.attempts(hands.engine, study.id),
    ) == before
    assert records.epochs(hands.engine, study.id) == epochs


@pytest.mark.parametrize(
    ("epoch", "end", "verdict"),
    [
        (5, {}, Verdict.COMPLETE),
        (2, {"decide": lambda question: True}, Verdict.PRUNED),
        (3, {"diverged": True}, Verdict.DIVERGED),
    ],
)
def test_a_report_whose_answer_was_lost_gets_it_again_and_is_recorded_once(
    hands: Any, epoch: int, end: dict[str, Any], verdict: Verdict
) -> None:
    study = hands.study()
    hands.enqueue(study, [0, 1])
    claim, other = hands.claim(2)
    assert hands.report([claim, other], epoch, **end)[claim.run_id] is verdict
    before = records.runs(hands.engine, study.id), records.epochs(hands.engine, study.id)

    assert hands.report(claim, epoch, **end) == {claim.run_id: verdict}
    assert hands.report(claim, epoch + 1) == {claim.run_id: Verdict.LOST}
    after = records.runs(hands.engine, study.id), records.epochs(hands.engine, study.id)
    assert after == before


def test_an_expired_lease_still_writes_while_nobody_else_wants_the_run(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim()
    hands.expire(claim)
    assert hands.report(claim, 1) == {claim.run_id: Verdict.GO_ON}
    assert beats.beat(hands.engine, hands.worker_id, [lease(claim)], 60) == {claim.run_id}
    assert queue.reap(hands.engine) == []


def test_a_beat_extends_only_what_is_still_ours(hands: Any) -> None:
    hands.enqueue(hands.study(), range(2))
    kept, lost = hands.claim(2)
    reaped(hands, lost)
    before = records.workers(hands.engine)[0].heartbeat_at
    held = beats.beat(hands.engine, hands.worker_id, [lease(lost), lease(kept)], 3600)
    assert held == {kept.run_id}
    until = hands.run(kept.run_id).lease_expires_at
    heartbeat = records.workers(hands.engine)[0].heartbeat_at
    assert heartbeat > before
    assert 3590 < (until - heartbeat).total_seconds() < 3610


def test_a_report_is_recorded_whole(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    hands.report(claim, 1, 0.75, metrics={"loss": {"diversity": 0.5}}, checkpoint="one")
    hands.report(claim, 2, 0.5)
    run = hands.run(claim.run_id)
    assert (run.epoch, run.value, run.checkpoint, run.checkpoint_epoch) == (2, 0.5, "one", 1)
    first, second = records.epochs(hands.engine, study.id)
    assert (first.epoch, first.value, first.metrics) == (1, 0.75, {"loss": {"diversity": 0.5}})
    assert (second.epoch, second.value, second.metrics) == (2, 0.5, {})


def test_an_epoch_trained_twice_is_recorded_once(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (first,) = hands.claim()
    hands.report(first, 1, 0.9, checkpoint="one")
    hands.report(first, 2, 0.8)
    hands.report(first, 3, 0.7)
    reaped(hands, first)
    (second,) = hands.claim()
    assert hands.report(second, 2, 0.1) == {second.run_id: Verdict.GO_ON}
    epochs = records.epochs(hands.engine, study.id)
    assert [(epoch.epoch, epoch.value, epoch.token) for epoch in epochs] == [
        (1, 0.9, first.token),
        (2, 0.8, first.token),
        (3, 0.7, first.token),
    ]
    run = hands.run(second.run_id)
    assert (run.epoch, run.value, run.checkpoint) == (3, 0.7, "one")


def test_an_epoch_without_validation_keeps_the_last_value(hands: Any) -> None:
    hands.enqueue(hands.study(rungs=(2, 5)), [0])
    (claim,) = hands.claim()
    hands.report(claim, 2, 0.5)
    hands.report(claim, 3, None)
    run = hands.run(claim.run_id)
    assert (run.epoch, run.value) == (3, 0.5)


def test_numbers_that_json_does_not_know_become_null(hands: Any) -> None:
    study = hands.study(rungs=(5,))
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    metrics = {"gate": [1.0, math.nan], "norm": {"cube": -math.inf}, "rows": 3}
    hands.report(claim, 1, 0.5, metrics=metrics)
    (epoch,) = records.epochs(hands.engine, study.id)
    assert epoch.metrics == {"gate": [1.0, None], "norm": {"cube": None}, "rows": 3}


def test_the_target_epoch_completes_a_short_run_without_a_test(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    verdicts = hands.report(claim, 5, 0.5, checkpoint="five", test_value=0.6)
    assert verdicts == {claim.run_id: Verdict.COMPLETE}
    run = hands.run(claim.run_id)
    assert (run.state, run.value, run.test_value) == (RunState.COMPLETE, 0.5, None)
    assert (run.worker_id, run.lease_expires_at) == (None, None)
    assert run.end_class is EndClass.DONE
    assert run.finished_at is not None
    assert records.trials(hands.engine, study.id)[0].reason is None


def test_the_target_epoch_of_a_full_run_stores_its_test_value(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    hands.complete(hands.claim()[0])
    queue.promote(hands.engine, study.id, [0], 50)
    (full,) = hands.claim()
    assert (full.kind, full.epoch, full.checkpoint) == (RunKind.FULL, 5, "short")
    assert hands.report(full, 6, 0.4) == {full.run_id: Verdict.GO_ON}
    assert hands.report(full, 50, 0.3, test_value=0.35) == {full.run_id: Verdict.COMPLETE}
    run = hands.run(full.run_id)
    assert (run.state, run.value, run.test_value) == (RunState.COMPLETE, 0.3, 0.35)


def test_a_full_run_neither_asks_at_a_rung_nor_answers(hands: Any) -> None:
    study = hands.study(rungs=(1, 2, 5))
    hands.enqueue(study, [0], target=1)
    hands.complete(hands.claim()[0])
    hands.enqueue(study, [1])
    queue.promote(hands.engine, study.id, [0], 50)
    full, short = hands.claim(2)
    assert hands.report(full, 2, 0.4, decide=lambda _: True) == {full.run_id: Verdict.GO_ON}
    seen: list[tuple[float, ...]] = []
    hands.report(short, 2, 0.5, decide=lambda question: bool(seen.append(question.others)))
    assert seen == [()]


@pytest.mark.parametrize(
    ("value", "diverged"), [(math.nan, False), (math.inf, False), (0.5, True), (None, True)]
)
def test_a_run_whose_numbers_are_not_finite_ends_as_diverged(
    hands: Any, value: float | None, diverged: bool
) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    hands.report(claim, 1, 0.5)
    verdicts = hands.report(claim, 2, value, decide=lambda _: False, diverged=diverged)
    assert verdicts == {claim.run_id: Verdict.DIVERGED}
    run = hands.run(claim.run_id)
    assert (run.state, run.end_class, run.value) == (RunState.PRUNED, EndClass.DIVERGED, None)
    (trial,) = records.trials(hands.engine, study.id)
    assert trial.reason is not None
    assert (trial.reason["end"], trial.reason["epoch"]) == ("diverged", 2)


def test_at_a_rung_the_pack_is_judged_in_order_after_everything_was_recorded(hands: Any) -> None:
    study = hands.study(rungs=(1, 2, 5))
    hands.enqueue(study, [2])
    hands.enqueue(study, [0, 1])
    claims = {claim.trial_number: claim for claim in hands.claim(3)}
    asked: list[RungQuestion] = []

    def decide(question: RungQuestion) -> bool:
        asked.append(question)
        return question.value > 0.25

    reports = [
        EpochReport(claim.run_id, claim.token, 1, number / 4, {})
        for number, claim in claims.items()
    ]
    verdicts = leases.report(hands.engine, reports, decide)
    assert verdicts == {
        claims[0].run_id: Verdict.GO_ON,
        claims[1].run_id: Verdict.GO_ON,
        claims[2].run_id: Verdict.PRUNED,
    }
    assert [question.value for question in asked] == [0.0, 0.25, 0.5]
    assert [sorted(question.others) for question in asked] == [[0.25, 0.5], [0.0, 0.5], [0.0, 0.25]]
    assert asked[0].study_spec == study.spec
    pruned = hands.run(claims[2].run_id)
    assert (pruned.state, pruned.end_class, pruned.value) == (
        RunState.PRUNED,
        EndClass.PRUNED,
        0.5,
    )
    reasons = [trial.reason for trial in records.trials(hands.engine, study.id)]
    assert reasons == [None, None, {"end": "pruned", "epoch": 1, "value": 0.5}]


@pytest.mark.parametrize(("epoch", "asked"), [(1, True), (2, True), (3, False), (5, False)])
def test_only_the_rungs_before_the_last_ask(hands: Any, epoch: int, asked: bool) -> None:
    hands.enqueue(hands.study(rungs=(1, 2, 5)), [0], target=6)
    (claim,) = hands.claim()
    verdicts = hands.report(claim, epoch, 0.5, decide=lambda _: True)
    assert verdicts == {claim.run_id: Verdict.PRUNED if asked else Verdict.GO_ON}


def test_with_patience_a_question_has_the_rungs_before_as_they_stand_now(hands: Any) -> None:
    hands.enqueue(hands.study("patient", (1, 2, 4, 5), patience=2), range(3))
    first, second, late = hands.claim(3)
    asked: list[RungQuestion] = []

    def decide(question: RungQuestion) -> bool:
        asked.append(question)
        return False

    hands.report(first, 1, 0.5, decide)
    hands.report(second, 1, 0.75, decide)
    hands.report(first, 2, 0.25, decide)
    hands.report(late, 1, 0.125, decide)
    hands.report(first, 4, 0.25, decide)
    said = [(question.others, question.before) for question in asked]
    assert said == [
        ((), ()),
        ((0.5,), ()),
        ((), ((0.5, (0.75,)),)),
        ((0.5, 0.75), ()),
        ((), ((0.25, ()), (0.5, (0.125, 0.75)))),
    ]


def test_others_are_the_short_runs_of_the_same_study_at_the_same_epoch(hands: Any) -> None:
    study, other = hands.study("one"), hands.study("two")
    hands.enqueue(other, [0])
    hands.enqueue(study, range(3))
    foreign, pruned, behind, asking = hands.claim(4)
    hands.report(foreign, 1, 0.1)
    hands.report(pruned, 1, 0.2, decide=lambda _: True)
    seen: list[tuple[float, ...]] = []
    hands.report(asking, 1, 0.4, decide=lambda question: bool(seen.append(question.others)))
    assert seen == [(0.2,)]
    hands.report(behind, 1, 0.3)


def test_reports_at_a_rung_at_once_see_each_other_in_some_order(hands: Any) -> None:
    """As if they had come one after the other: the k-th sees exactly the k before it."""
    hands.enqueue(hands.study(), range(8))
    claims = hands.claim(8)
    seen: dict[float, tuple[float, ...]] = {}
    begin = threading.Barrier(8)

    def work(claim: Any) -> None:
        begin.wait()
        hands.report(
            claim,
            1,
            float(claim.trial_number),
            decide=lambda question: bool(seen.update({question.value: question.others})),
        )

    with ThreadPoolExecutor(8) as threads:
        for worker in [threads.submit(work, claim) for claim in claims]:
            worker.result()
    order = sorted(seen, key=lambda value: len(seen[value]))
    for place, value in enumerate(order):
        assert sorted(seen[value]) == sorted(order[:place])


def test_packs_that_report_beat_and_are_stolen_at_once_never_lock_each_other(hands: Any) -> None:
    """A zombie and the new owner of the same runs, a reaper and a coordinator, many times."""
    study = hands.study(rungs=range(1, 100))
    hands.enqueue(study, range(12), target=100)
    zombie = hands.claim(12, preferred_width=12, max_width=12)
    hands.expire(*zombie)
    queue.reap(hands.engine)
    owner = hands.claim(12, preferred_width=12, max_width=12)
    rounds = range(1, 31)

    def train(claims: list[Any]) -> set[Verdict]:
        return {
            verdict for epoch in rounds for verdict in hands.report(claims, epoch, 0.5).values()
        }

    def heartbeats(claims: list[Any]) -> None:
        for _ in rounds:
            beats.beat(hands.engine, hands.worker_id, [lease(one) for one in claims], 60)

    def coordinate() -> None:
        for _ in rounds:
            news = outcomes.unmirrored(hands.engine, study.id)
            outcomes.mark_mirrored(hands.engine, study.id, news)
            queue.reap(hands.engine)

    with ThreadPoolExecutor(5) as threads:
        trained = threads.submit(train, owner)
        late = threads.submit(train, zombie[::-1])
        others = [
            threads.submit(heartbeats, owner[::-1]),
            threads.submit(heartbeats, zombie),
            threads.submit(coordinate),
        ]
        assert trained.result() == {Verdict.GO_ON}
        assert late.result() == {Verdict.LOST}
        for other in others:
            other.result()
    assert len(records.epochs(hands.engine, study.id)) == 12 * len(rounds)


def test_a_report_that_breaks_off_leaves_nothing_behind(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(2))
    claims = hands.claim(2)

    def decide(question: RungQuestion) -> bool:
        if question.others == (0.5,) and question.value == 0.5:
            raise ZeroDivisionError
        return True

    with pytest.raises(ZeroDivisionError):
        hands.report(claims, 1, 0.5, decide=decide)
    assert records.epochs(hands.engine, study.id) == []
    assert {run.epoch for run in records.runs(hands.engine, study.id)} == {0}


def test_the_database_refuses_a_running_run_without_a_lease(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    statement = text("UPDATE cubeopt.runs SET state = 'running'")
    with pytest.raises(Exception, match="runs_lease_check"), hands.engine.begin() as connection:
        connection.execute(statement)


def test_a_rung_is_told_the_metrics_that_were_asked_for_and_no_others(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0, 1])
    claims = hands.claim(2)
    metrics = {"validation/fvu": 0.5, "parameters": 70.0, "usage": None, "other": 3.0}
    asked: list[RungQuestion] = []

    def keep(question: RungQuestion) -> bool:
        asked.append(question)
        return False

    reports = [
        EpochReport(one.run_id, one.token, 1, 0.5, {**metrics, "parameters": number})
        for number, one in enumerate(claims)
    ]
    leases.report(hands.engine, reports, keep, ["parameters", "usage"])
    assert [each.others_metrics for each in asked] == [
        ({"parameters": 1, "usage": None},),
        ({"parameters": 0, "usage": None},),
    ]
    assert asked[0].metrics == {**metrics, "parameters": 0}
    assert [each.others for each in asked] == [(0.5,), (0.5,)]
