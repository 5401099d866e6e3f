"""No budget is overdrawn by those who know of it, and what is used is what was used."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from cubeopt.db import attempts, breaker, budgets, interventions, orders, queue, recalls, records
from cubeopt.db.budgets import Account
from cubeopt.db.leases import Verdict
from cubeopt.db.orders import Order
from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.errors import StateError

from .conftest import Hands, lease

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def used(hands: Any, study: Any) -> dict[str, float]:
    return {each.name: each.used for each in budgets.accounts(hands.engine, study.id)}


def write(hands: Any, statement: str, **values: Any) -> None:
    with hands.engine.begin() as connection:
        connection.execute(text(statement), values)


def test_only_the_budgets_that_a_study_has_are_told(hands: Any) -> None:
    assert budgets.accounts(hands.engine, hands.study("none").id) == []
    study = hands.study(budget={"trials": 4, "epochs": 9})
    hands.enqueue(study, range(3))
    hands.report(hands.claim(2), 1)
    found = budgets.accounts(hands.engine, study.id)
    assert found == [Account("trials", 4, 3), Account("epochs", 9, 2)]
    assert [(each.left, each.spent) for each in found] == [(1, False), (7, False)]
    assert str(found[1]) == "budget.epochs: 2 of 9 used, 7 left"
    assert str(Account("hours", 2.0, 2.03125)) == "budget.hours is spent: 2.031 of 2 used"


def test_the_budget_of_trials_ends_nothing_that_was_asked_for(hands: Any) -> None:
    study = hands.study(budget={"trials": 2})
    hands.enqueue(study, range(2))
    assert budgets.spent(hands.engine, study.id, study.spec) is None
    assert len(hands.claim(8)) == 2


def test_no_more_runs_are_leased_than_there_are_epochs(hands: Any) -> None:
    study = hands.study(budget={"epochs": 3})
    hands.enqueue(study, range(5))
    first = hands.claim(2)
    (third,) = hands.claim(8)
    assert hands.claim(8) == []
    assert [claim.token for claim in (*first, third)] == [1, 1, 1]
    tries = records.attempts(hands.engine, study.id)
    assert len(tries) == 3
    waiting = records.runs(hands.engine, study.id)[3:]
    assert {(run.state, run.token, run.width) for run in waiting} == {(RunState.WAITING, 0, None)}


def test_whoever_would_begin_an_epoch_too_many_is_sent_back(hands: Any) -> None:
    study = hands.study(rungs=(5,), budget={"epochs": 5})
    hands.enqueue(study, range(3))
    claims = hands.claim(2)
    verdicts = hands.report(claims, 1)
    assert list(verdicts.values()) == [Verdict.GO_ON, Verdict.GO_ON]  # 2 recorded, 2 begun
    verdicts = hands.report(claims, 2)  # 4 recorded: one more may be begun
    assert [verdicts[claim.run_id] for claim in claims] == [Verdict.GO_ON, Verdict.SPENT]
    assert hands.run(claims[1].run_id).state is RunState.RUNNING  # its worker gives it back
    assert hands.claim(8) == []
    attempts.release(hands.engine, [lease(claims[1])], checkpoint="two")
    assert hands.report(claims[0], 3) == {claims[0].run_id: Verdict.SPENT}
    spent = budgets.spent(hands.engine, study.id, study.spec)
    assert spent == Account("epochs", 5, 5)


def test_an_end_by_a_rung_or_a_target_leaves_its_epochs_to_others(hands: Any) -> None:
    study = hands.study(rungs=(1, 5), budget={"epochs": 4})
    hands.enqueue(study, range(4))
    claims = hands.claim(2)
    verdicts = hands.report(claims, 1, decide=lambda question: not question.value)
    assert set(verdicts.values()) == {Verdict.GO_ON}
    ended = hands.report(claims[0], 2, float("nan"))
    assert ended == {claims[0].run_id: Verdict.DIVERGED}
    assert len(hands.claim(8)) == 0  # 3 recorded, and one is begun
    assert interventions.prune(hands.engine, "study", claims[1].trial_number)
    assert len(hands.claim(8)) == 1


def test_an_epoch_that_is_trained_again_counts_once(hands: Any) -> None:
    study = hands.study(rungs=(5,), budget={"epochs": 3})
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    hands.report(claim, 1, checkpoint="one")
    hands.report(claim, 2)
    hands.expire(claim)
    queue.reap(hands.engine)
    (again,) = hands.claim()
    assert hands.report(again, 2) == {again.run_id: Verdict.GO_ON}
    assert used(hands, study) == {"epochs": 2}
    assert hands.report(again, 3) == {again.run_id: Verdict.SPENT}


def test_many_workers_at_once_record_exactly_the_budget(hands: Any) -> None:
    """Claims, reports, ends and zombies of six workers; whatever the order, never one too many."""
    study = hands.study(rungs=(1, 2, 5), budget={"epochs": 60})
    hands.enqueue(study, range(40))

    def work(number: int) -> None:
        chance = random.Random(number)
        mine = Hands(hands.engine, queue.register(hands.engine, f"w{number}", "h", 1, "cpu", {}))
        for _ in range(400):
            held = {claim.run_id: claim for claim in mine.claim(chance.randint(1, 4))}
            epochs = {run_id: claim.epoch for run_id, claim in held.items()}
            while held:
                for run_id in epochs:
                    epochs[run_id] += 1
                claims = list(held.values())
                verdicts = {}
                for claim in claims:  # each at its own epoch, so each by itself
                    value = chance.random()
                    verdicts |= mine.report(
                        claim, epochs[claim.run_id], value, decide=lambda q: q.value > 0.7
                    )
                back = [c for c in claims if verdicts[c.run_id] is Verdict.SPENT]
                attempts.release(hands.engine, [lease(claim) for claim in back])
                held = {i: c for i, c in held.items() if verdicts[i] is Verdict.GO_ON}
                epochs = {run_id: epochs[run_id] for run_id in held}
            if budgets.spent(hands.engine, study.id, study.spec):
                return

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(work, number) for number in range(6)]:
            done.result()
    assert used(hands, study) == {"epochs": 60}
    assert records.counts(hands.engine, study.id)[RunState.RUNNING] == 0


def test_a_claim_waits_for_another_that_takes_the_last_epoch(hands: Any) -> None:
    study = hands.study(budget={"epochs": 1})
    hands.enqueue(study, range(2))
    taken = text("""
        UPDATE cubeopt.runs SET state = 'running', worker_id = :worker, token = 1,
            lease_expires_at = clock_timestamp() + interval '60 s'
        WHERE id = (SELECT min(id) FROM cubeopt.runs)
    """)
    waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")
    with ThreadPoolExecutor(1) as threads:
        with hands.engine.begin() as first, hands.engine.connect() as looking:
            first.execute(taken, {"worker": hands.worker_id})
            assert budgets.excess(first, {study.id: study.spec}) == {study.id: 0}
            second = threads.submit(hands.claim, 8)
            while not second.done() and not looking.scalar(waits):
                looking.rollback()
        assert second.result() == []


def test_one_study_without_budget_takes_nothing_from_another(hands: Any) -> None:
    poor, rich = hands.study("poor", budget={"epochs": 1}), hands.study("rich")
    hands.enqueue(poor, range(2))
    hands.enqueue(rich, range(2))
    assert [claim.study for claim in hands.claim(8)] == ["poor"]
    assert [claim.study for claim in hands.claim(8, study="rich")] == ["rich", "rich"]


def test_a_pack_counts_once_on_its_device_and_gaps_do_not(hands: Any) -> None:
    """Worker one: 12:00-12:40 in two overlapping stretches and 13:00-13:15; worker two: 15 min."""
    study = hands.study(budget={"device_hours": 100.0})
    hands.enqueue(study, range(5))
    other = Hands(hands.engine, queue.register(hands.engine, "two", "host", 2, "cpu", {}))
    claims = [*hands.claim(4), *other.claim(1)]
    attempts.release(hands.engine, [lease(claim) for claim in claims])
    spans = [(0, 30), (0, 30), (20, 40), (60, 75), (0, 15)]
    for claim, (start, end) in zip(claims, spans, strict=True):
        write(
            hands,
            "UPDATE cubeopt.attempts SET started_at = :start, ended_at = :end WHERE run_id = :id",
            id=claim.run_id,
            start=NOON + timedelta(minutes=start),
            end=NOON + timedelta(minutes=end),
        )
    assert used(hands, study)["device_hours"] == pytest.approx((40 + 15 + 15) / 60)


def test_an_attempt_that_a_clock_set_back_ended_before_it_began_took_no_time(hands: Any) -> None:
    study = hands.study(budget={"device_hours": 100.0})
    hands.enqueue(study, range(2))
    hands.complete(hands.claim()[0])
    hands.complete(hands.claim()[0])
    began, ended = {1: 0, 2: 40}, {1: -1, 2: 70}
    for run_id in began:
        write(
            hands,
            "UPDATE cubeopt.attempts SET started_at = :began, ended_at = :ended "
            "WHERE run_id = :run_id",
            began=NOON + timedelta(minutes=began[run_id]),
            ended=NOON + timedelta(minutes=ended[run_id]),
            run_id=run_id,
        )
    assert used(hands, study)["device_hours"] == 0.5


def test_a_lease_that_nobody_holds_counts_until_it_expired(hands: Any) -> None:
    study = hands.study(budget={"device_hours": 100.0})
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    begun = "UPDATE cubeopt.attempts SET started_at = clock_timestamp() - interval '10 h'"
    gone = "UPDATE cubeopt.runs SET lease_expires_at = clock_timestamp() - interval '9 h'"
    write(hands, begun)
    write(hands, gone)
    assert used(hands, study)["device_hours"] == pytest.approx(1.0, abs=1e-3)
    queue.reap(hands.engine)
    assert used(hands, study)["device_hours"] == pytest.approx(1.0, abs=1e-3)
    (attempt,) = records.attempts(hands.engine, study.id)
    assert attempt.end_class is EndClass.LOST
    assert (attempt.ended_at - attempt.started_at).total_seconds() == pytest.approx(3600, abs=1)
    assert claim.token == 1


def since(hands: Any, hours: float, claimed: float | None = None) -> None:
    """Let the study be what it is since so many hours, the first claim another number of them."""
    ago = "clock_timestamp() - make_interval(secs => 3600 * CAST(:hours AS float))"
    write(hands, f"UPDATE cubeopt.studies SET state_since = {ago}", hours=hours)
    if claimed is not None:
        write(hands, f"UPDATE cubeopt.runs SET started_at = {ago}", hours=claimed)


def test_hours_begin_with_the_first_claim_and_stand_still_while_it_does_not_run(hands: Any) -> None:
    study = hands.study(budget={"hours": 10.0})
    hands.enqueue(study, range(6))
    since(hands, 5.0)
    assert used(hands, study) == {"hours": 0.0}  # nobody has come yet
    claims = hands.claim(6)
    since(hands, 5.0, claimed=2.0)
    assert used(hands, study)["hours"] == pytest.approx(2.0, abs=1e-3)
    orders.steer(hands.engine, "study", Order.PAUSE)
    since(hands, 50.0)
    assert used(hands, study)["hours"] == pytest.approx(2.0, abs=1e-3)
    orders.steer(hands.engine, "study", Order.STOP)
    orders.steer(hands.engine, "study", Order.RESUME)
    since(hands, 1.0)
    assert used(hands, study)["hours"] == pytest.approx(3.0, abs=1e-3)
    for claim in claims:
        attempts.fail(hands.engine, lease(claim), EndClass.ERROR, "boom", 0)
    assert breaker.trip(hands.engine, study.id, 5)
    assert used(hands, study)["hours"] == pytest.approx(3.0, abs=1e-3)
    orders.steer(hands.engine, "study", Order.RESUME)
    orders.end(hands.engine, study.id, StudyState.COMPLETE, "done")
    since(hands, 70.0)
    assert used(hands, study)["hours"] == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize("budget", ["hours", "device_hours"])
def test_when_the_time_is_over_workers_give_back_and_nobody_claims(hands: Any, budget: str) -> None:
    study = hands.study(rungs=(5,), budget={budget: 1.0})
    hands.enqueue(hands.study("other"), [0])
    hands.enqueue(study, range(2))
    (mine,) = hands.claim(1, study="study")
    (foreign,) = hands.claim(1, study="other")
    held = [lease(mine), lease(foreign)]
    since(hands, 3.0, claimed=0.9)
    write(hands, "UPDATE cubeopt.attempts SET started_at = clock_timestamp() - interval '54 min'")
    assert recalls.recall(hands.engine, hands.worker_id, held).leases == frozenset()
    assert hands.report(mine, 1) == {mine.run_id: Verdict.GO_ON}
    since(hands, 3.0, claimed=1.1)
    write(hands, "UPDATE cubeopt.attempts SET started_at = clock_timestamp() - interval '66 min'")
    assert recalls.recall(hands.engine, hands.worker_id, held).leases == {lease(mine)}
    assert hands.report(mine, 2) == {mine.run_id: Verdict.SPENT}
    assert hands.report(foreign, 1) == {foreign.run_id: Verdict.GO_ON}
    attempts.release(hands.engine, [lease(mine)])
    assert hands.claim(8) == []
    spent = budgets.spent(hands.engine, study.id, study.spec)
    assert spent is not None
    assert str(spent) == f"budget.{budget} is spent: 1.1 of 1 used"


def test_a_study_without_a_budget_left_cannot_be_resumed_and_says_what_can_be_done(
    hands: Any,
) -> None:
    study = hands.study(rungs=(5,), budget={"epochs": 1})
    hands.enqueue(study, range(2))
    (claim,) = hands.claim(8)
    hands.report(claim, 1)
    attempts.release(hands.engine, [lease(claim)])
    orders.end(hands.engine, study.id, StudyState.COMPLETE, "spent")
    said = (
        "study 'study' cannot go on: budget.epochs is spent: 1 of 1 used; give it a larger "
        "budget with: cubeopt study revise FILE"
    )
    with pytest.raises(StateError) as error:
        orders.steer(hands.engine, "study", Order.RESUME)
    assert str(error.value) == said
    assert records.study(hands.engine, "study").state is StudyState.COMPLETE
