"""The coordinator holds nothing that is not in the database."""

import importlib.util
import re
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from cubeopt.db import (
    attempts,
    interventions,
    leader,
    leases,
    notices,
    orders,
    outcomes,
    queue,
    records,
)
from cubeopt.db.engine import optuna_url
from cubeopt.db.orders import Order
from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.search import mirror
from cubeopt.service.coordinator import Coordinator

from .conftest import coordinating


@pytest.fixture
def storage(engine):
    opened = mirror.open_storage(optuna_url(engine))
    yield opened
    opened.engine.dispose()


def claim(engine, limit=4):
    worker = queue.register(engine, "w", "here", 1, "cpu", {})
    return queue.claim(
        engine, worker, limit, preferred_width=limit, lease_seconds=60, device="cpu", provenance={}
    )


def test_trials_are_asked_ahead_of_need_but_never_beyond_the_budget(engine, create, storage):
    record = create()
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    coordinator.tick()
    assert records.counts(engine, record.id)[RunState.WAITING] == 4
    claim(engine)
    coordinator.tick()
    counts = records.counts(engine, record.id)
    assert (counts[RunState.RUNNING], counts[RunState.WAITING]) == (4, 2)


def test_a_new_coordinator_goes_on_where_the_last_one_died(engine, create, storage):
    record = create()
    Coordinator(engine, storage).tick()
    claim(engine)
    Coordinator(engine, storage).tick()
    trials = records.trials(engine, record.id)
    assert [each.number for each in trials] == list(range(6))
    assert len({tuple(each.params.values()) for each in trials}) == 6


def test_what_optunas_tables_have_beyond_ours_is_told_as_failed_and_no_trial_of_ours(
    engine, create, storage
):
    record = create()
    study = optuna.load_study(study_name="tiny", storage=storage)
    study.ask()
    study.enqueue_trial({"learning_rate": 0.01})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    coordinator.tick()
    assert [each.number for each in records.trials(engine, record.id)] == [2, 3, 4, 5]
    states = [each.state for each in study.trials]
    assert states == [TrialState.FAIL] * 2 + [TrialState.RUNNING] * 4
    ours = [each.params for each in records.trials(engine, record.id)]
    assert [each.params for each in study.trials[2:]] == ours


def test_a_retried_trial_runs_again_for_the_sampler_too(engine, create, storage):
    record = create(sampler={"name": "tpe", "startup_trials": 1})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    (taken,) = claim(engine, limit=1)
    lease = leases.Lease(taken.run_id, taken.token)
    attempts.fail(engine, lease, EndClass.ERROR, "boom", retry_limit=0)
    coordinator.tick()
    interventions.retry(engine, record.name, 0)
    for _ in range(2):
        coordinator.tick()  # the first one sees it, the second begins anew
    memory = coordinator._studies[record.id].memory
    assert 0 in memory.open
    (taken,) = claim(engine, limit=1)
    assert taken.trial_number == 0
    report = leases.EpochReport(taken.run_id, taken.token, 3, 0.25, {})
    leases.report(engine, [report], lambda question: False)
    coordinator.tick()
    assert 0 not in memory.open
    shown = optuna.load_study(study_name="tiny", storage=storage).trials
    assert shown[0].state == TrialState.FAIL  # Optuna changes none that has ended


def test_a_wish_that_comes_while_points_are_drawn_is_granted_under_its_number(
    engine, create, storage, monkeypatch
):
    record = create()
    look, wished = outcomes.wishes, []

    def a_moment_too_early(*arguments):
        seen = look(*arguments)
        if not wished:
            wished.append(outcomes.wish(engine, record.id, {"learning_rate": 0.02}))
        return seen

    monkeypatch.setattr(outcomes, "wishes", a_moment_too_early)
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    assert records.trials(engine, record.id) == []
    coordinator.tick()
    trials = records.trials(engine, record.id)
    assert [each.number for each in trials] == [0, 1, 2, 3]
    assert [each.params["learning_rate"] == 0.02 for each in trials] == [True, *[False] * 3]


def test_the_dashboards_tables_show_what_really_happened(engine, create, work, storage):
    record = create()
    with coordinating(engine):
        work()
    study = optuna.load_study(study_name="tiny", storage=storage)
    states = {RunState.COMPLETE: TrialState.COMPLETE, RunState.PRUNED: TrialState.PRUNED}
    epochs = records.epochs(engine, record.id)
    for ours, shown in zip(records.trials(engine, record.id), study.trials, strict=True):
        assert shown.state == states[ours.state]
        assert shown.params == ours.params
        assert shown.value == ours.value
        assert shown.intermediate_values == {
            each.epoch: each.value
            for each in epochs
            if each.trial_number == ours.number and each.kind == "short"
        }
    assert study.metric_names == ["fvu"]


def test_only_one_leads_and_the_next_can_when_it_is_gone(engine):
    with leader.lead(engine) as first:
        assert first is not None
        assert leader.lives(engine)
        with leader.lead(engine) as second:
            assert second is None
        first.check()
    assert not leader.lives(engine)
    with leader.lead(engine) as third:
        assert third is not None


def test_a_study_without_a_result_fails_and_says_why(engine, create, storage):
    record = create(budget={"trials": 1})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    (taken,) = claim(engine)
    lease = leases.Lease(taken.run_id, taken.token)
    attempts.fail(engine, lease, EndClass.ERROR, "boom", retry_limit=0)
    coordinator.tick()
    study = records.study(engine, record.name)
    assert (study.state, study.state_reason) == (
        StudyState.FAILED,
        "no trial reached the last rung",
    )


def test_failures_in_a_row_end_a_study_and_the_dashboard_has_them(engine, create, storage):
    record = create(budget={"trials": 20})
    coordinator = Coordinator(engine, storage)
    for _ in range(5):
        coordinator.tick()
        assert records.study(engine, record.name).state is StudyState.RUNNING
        (taken,) = claim(engine, limit=1)
        lease = leases.Lease(taken.run_id, taken.token)
        attempts.fail(engine, lease, EndClass.ERROR, "boom", retry_limit=0)
    coordinator.tick()
    study = records.study(engine, record.name)
    assert study.state is StudyState.FAILED
    assert study.state_reason.startswith("5 trials failed in a row (0, 1, 2, 3, 4); the last, ")
    shown = optuna.load_study(study_name="tiny", storage=storage).trials
    assert [each.state for each in shown[:5]] == [TrialState.FAIL] * 5
    coordinator.tick()
    assert len(records.trials(engine, record.id)) == len(shown)


def test_a_grid_is_tried_once_and_then_the_study_is_complete(engine, create, work, storage):
    points = {"learning_rate": 2, "similarity_weight": 2}
    record = create(sampler={"name": "grid", "points": points}, budget={"trials": 9})
    with coordinating(engine):
        work()
    trials = records.trials(engine, record.id)
    assert sorted(
        (each.params["learning_rate"], each.params["similarity_weight"]) for each in trials
    ) == [
        *((1e-3, 0.0), (1e-3, 1.0), (3e-2, 0.0), (3e-2, 1.0)),
    ]
    ended = records.study(engine, record.name)
    assert (ended.state, ended.state_reason) == (StudyState.COMPLETE, "all 4 trials have ended")
    assert len(optuna.load_study(study_name="tiny", storage=storage).trials) == 4


def finish(engine, claims, values):
    """Report the short runs of *claims* to their ends, with these values."""
    for taken, value in zip(claims, values, strict=True):
        report = leases.EpochReport(taken.run_id, taken.token, 3, value, {}, checkpoint="three")
        assert leases.report(engine, [report], lambda _: False) == {taken.run_id: "complete"}


def promoted(engine, record):
    return [
        (run.trial_number, run.replicate, run.epoch, run.checkpoint)
        for run in records.runs(engine, record.id)
        if run.kind == "full"
    ]


def test_by_a_factor_trials_are_promoted_as_results_come_and_by_any_coordinator(
    engine, create, storage
):
    record = create(budget={"trials": 20}, promotion={"reduction_factor": 2.0, "seeds": 2})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    finish(engine, claim(engine, 1), [0.5])
    coordinator.tick()
    assert promoted(engine, record) == []  # floor(1/2)
    finish(engine, claim(engine, 1), [0.4])
    coordinator.tick()
    of_one = [(1, 0, 3, "three"), (1, 1, 0, None)]
    assert promoted(engine, record) == of_one
    coordinator.tick()
    Coordinator(engine, storage).tick()
    assert promoted(engine, record) == of_one
    full = [*claim(engine, 1), *claim(engine, 1)]  # they stand first in the queue
    assert [(taken.trial_number, taken.replicate) for taken in full] == [(1, 0), (1, 1)]
    finish(engine, [*claim(engine, 1), *claim(engine, 1)], [0.3, 0.2])
    Coordinator(engine, storage).tick()
    assert promoted(engine, record) == [
        *of_one,
        *((2, 0, 3, "three"), (2, 1, 0, None), (3, 0, 3, "three"), (3, 1, 0, None)),
    ]
    assert records.counts(engine, record.id)[RunState.WAITING] == 4
    assert records.study(engine, record.name).state is StudyState.RUNNING


def test_without_a_budget_of_trials_the_sampler_goes_on_asking(engine, create, storage):
    record = create(budget={"epochs": 100})
    coordinator = Coordinator(engine, storage)
    asked = [0]
    for _ in range(4):
        coordinator.tick()
        asked.append(len(records.trials(engine, record.id)))
        claim(engine, 99)
    assert asked == sorted(set(asked))
    assert asked[-1] >= 16


def test_a_spent_budget_ends_the_study_and_the_dashboard_has_what_came_after(
    engine, create, storage
):
    record = create(budget={"epochs": 3})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    claims = claim(engine)
    assert len(claims) == 3
    coordinator.tick()
    reports = [leases.EpochReport(each.run_id, each.token, 1, 0.5, {}) for each in claims]
    leases.report(engine, reports, lambda _: False)
    coordinator.tick()
    ended = records.study(engine, record.name)
    unfinished = len(records.runs(engine, record.id))
    assert (ended.state, ended.state_reason) == (
        StudyState.COMPLETE,
        f"budget.epochs is spent: 3 of 3 used; {unfinished} runs unfinished; "
        "no trial reached the last rung",
    )
    # Their workers have not let go yet; a late report still counts as what it is.
    late = leases.EpochReport(claims[0].run_id, claims[0].token, 2, 0.25, {})
    leases.report(engine, [late], lambda _: False)
    coordinator.tick()
    attempts.release(engine, [leases.Lease(each.run_id, each.token) for each in claims])
    coordinator.tick()
    shown = optuna.load_study(study_name="tiny", storage=storage).trials
    assert [each.intermediate_values for each in shown[:3]] == [
        *({1: 0.5, 2: 0.25}, {1: 0.5}, {1: 0.5}),
    ]
    assert claim(engine) == []
    assert not outcomes.unmirrored(engine, record.id)


def test_what_comes_after_the_end_of_a_study_is_shown_by_the_next_coordinator(
    engine, create, storage
):
    record = create(budget={"epochs": 3})
    Coordinator(engine, storage).tick()
    claims = claim(engine)
    reports = [leases.EpochReport(each.run_id, each.token, 1, 0.5, {}) for each in claims]
    leases.report(engine, reports, lambda _: False)
    Coordinator(engine, storage).tick()  # the last look of a leader
    assert records.study(engine, record.name).state is StudyState.COMPLETE
    attempts.release(engine, [leases.Lease(each.run_id, each.token) for each in claims[1:]])
    last = leases.EpochReport(claims[0].run_id, claims[0].token, 2, 0.25, {})
    after = Coordinator(engine, storage)
    after.tick()
    leases.report(engine, [last], lambda _: True)
    after.tick()
    shown = optuna.load_study(study_name="tiny", storage=storage).trials[0]
    assert (shown.state, shown.value) == (TrialState.PRUNED, 0.25)
    assert not outcomes.unmirrored(engine, record.id)


def test_when_the_hours_are_over_the_study_ends_and_its_workers_are_woken(engine, create, storage):
    record = create(budget={"hours": 1.5, "trials": 6})
    ago = "clock_timestamp() - interval '2 h'"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE cubeopt.studies SET state_since = {ago}"))
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    assert records.study(engine, record.name).state is StudyState.RUNNING  # nobody has begun
    assert claim(engine, 1)
    coordinator.tick()
    assert records.study(engine, record.name).state is StudyState.RUNNING
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE cubeopt.runs SET started_at = {ago}"))
    with notices.listening(engine) as listener:
        coordinator.tick()
        assert listener.wait(5.0)
    ended = records.study(engine, record.name)
    assert ended.state is StudyState.COMPLETE
    assert re.match(r"budget\.hours is spent: 2\S* of 1.5 used; 5 runs un", ended.state_reason)
    assert ended.ran_seconds == pytest.approx(7200, abs=60)


def test_a_sampler_that_the_coordinator_lacks_fails_its_study_and_no_other(
    engine, create, storage, monkeypatch
):
    create(name="sobol", sampler={"name": "qmc"})
    other = create(name="other")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    Coordinator(engine, storage).tick()
    lacking = records.study(engine, "sobol")
    assert lacking.state == StudyState.FAILED
    assert lacking.state_reason.startswith("sampler qmc needs scipy, not installed here; install")
    assert records.counts(engine, other.id)[RunState.WAITING] == 4


def test_a_deleted_study_leaves_nothing_in_a_coordinator(engine, create, storage):
    kept = create(name="kept", promotion={"reduction_factor": 2.0})
    for name in ("stopped", "fresh"):
        create(name=name, promotion={"reduction_factor": 2.0})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    claim(engine, 12)
    orders.steer(engine, "stopped", Order.STOP)
    coordinator.tick()  # workers hold runs of it
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM cubeopt.studies WHERE name <> 'kept'"))
    coordinator.tick()
    remembered = coordinator._studies, coordinator._leaving, coordinator._complete
    assert [list(each) for each in remembered] == [[kept.id], [], [kept.id]]


def test_a_study_deleted_while_its_results_are_shown_stops_no_coordinator(
    engine, create, storage, monkeypatch
):
    """Between the reading of our rows and the writing of Optuna's, all of it goes."""
    create(name="deleted")
    kept = create(name="kept")
    coordinator, unmirrored = Coordinator(engine, storage), outcomes.unmirrored

    def deletes(engine, study_id, *rest):
        found = unmirrored(engine, study_id, *rest)
        if study_id != kept.id:
            orders.delete(engine, "deleted")
            mirror.remove(optuna_url(engine), "deleted")
        return found

    monkeypatch.setattr(outcomes, "unmirrored", deletes)
    coordinator.tick()
    assert [each.id for each in records.studies(engine)] == [kept.id]
    assert records.counts(engine, kept.id)[RunState.WAITING] == 4


def test_deciding_does_not_load_torch():
    modules = "cubeopt.service.coordinator, cubeopt.report.summary"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
