"""A study gets another file while it runs, after it, and in all the ways it may not."""

import math

import optuna
import pytest

from cubeopt.db import orders, outcomes, queue, records, revisions
from cubeopt.db.engine import optuna_url
from cubeopt.db.orders import Order
from cubeopt.db.tables import RunState, StudyState
from cubeopt.errors import StudyError, UnknownNameError
from cubeopt.report import summary
from cubeopt.search import mirror, study
from cubeopt.service import revising, studies
from cubeopt.service.coordinator import Coordinator

from .conftest import coordinating
from .test_coordinator import claim, finish

RATE = {"low": 1e-3, "high": 3e-2, "log": True}
WIDE = {"learning_rate": {"low": 1e-3, "high": 3e-1, "log": True}}
WEIGHT = {"similarity_weight": {"low": 0.0, "high": 1.0}}


@pytest.fixture
def storage(engine):
    opened = mirror.open_storage(optuna_url(engine))
    yield opened
    opened.engine.dispose()


@pytest.fixture
def revise(engine, tiny_study):
    """Give the tiny study *changes*, in its file and in its base."""

    def made(base=None, **changes):
        content = {**tiny_study, **changes, "base": {**tiny_study["base"], **(base or {})}}
        return revising.revise(engine, study.parse(content, "tiny.yaml"))

    return made


def rates(engine, record, first=0):
    return [each.params["learning_rate"] for each in records.trials(engine, record.id)][first:]


def test_in_a_wider_space_later_trials_go_where_none_went_and_a_complete_study_goes_on(
    engine, create, work, revise, storage
):
    record = create()
    with coordinating(engine):
        work()
    assert records.study(engine, "tiny").state is StudyState.COMPLETE
    done = revise(search={**WIDE, **WEIGHT}, budget={"trials": 16})
    assert (done.changed, done.state_before, done.state) == (
        *(["search", "budget"], "complete", "running"),
    )
    assert (done.trials, done.fitting, done.outside, done.waiting_outside) == (16, 6, 0, [])
    before = records.trials(engine, record.id)
    with coordinating(engine):
        work()
    ended = records.study(engine, "tiny")
    assert (ended.state, ended.state_reason) == (StudyState.COMPLETE, "all 16 trials have ended")
    trials = records.trials(engine, record.id)
    assert trials[:6] == before
    assert [each.number for each in trials] == list(range(16))
    assert max(rates(engine, record)[:6]) <= 3e-2 < max(rates(engine, record, 6))
    full = {run.trial_number for run in records.runs(engine, record.id) if run.kind == "full"}
    shorts = {
        each.number: each.value for each in trials if each.state is RunState.COMPLETE and each.value
    }
    assert min(shorts, key=lambda number: shorts[number]) in full
    shown = optuna.load_study(study_name="tiny", storage=storage)
    ranges = [each.distributions["learning_rate"].high for each in shown.trials]
    assert ranges == [3e-2] * 6 + [3e-1] * 10
    assert [each.params for each in shown.trials] == [each.params for each in trials]


def test_in_a_narrower_space_no_later_trial_lies_outside_and_the_sampler_knows_those_within(
    engine, create, work, revise, storage
):
    record = create(sampler={"name": "tpe", "startup_trials": 3}, budget={"trials": 8})
    with coordinating(engine):
        work()
    middle = sorted(rates(engine, record))[3]
    narrow = {"learning_rate": {**RATE, "high": middle}, **WEIGHT}
    done = revise(
        search=narrow, budget={"trials": 14}, sampler={"name": "tpe", "startup_trials": 3}
    )
    assert (done.fitting, done.outside) == (4, 4)
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    memory = coordinator._studies[record.id].memory
    known = [each.params.get("learning_rate") for each in memory._study.get_trials()[:8]]
    assert known == [each if each <= middle else None for each in rates(engine, record)[:8]]
    with coordinating(engine):
        work()
    later = rates(engine, record, 8)
    assert len(later) == 6
    assert max(later) <= middle
    short = summary.load(engine, "tiny")
    assert len(short.trials) == 14


def test_a_running_coordinator_and_its_workers_go_by_the_new_file(engine, create, revise, storage):
    """Those outside that wait are trained, count, and may be the best."""
    record = create(budget={"trials": 6}, rungs={"epochs": [3]})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    asked = rates(engine, record)
    assert len(asked) == 4
    running = claim(engine, 1)
    edge = sorted(asked)[1]
    narrow = {"learning_rate": {**RATE, "high": edge}, **WEIGHT}
    done = revise(search=narrow, rungs={"epochs": [3]}, budget={"trials": 7})
    outside = [number for number, rate in enumerate(asked) if rate > edge]
    assert (done.fitting, done.outside) == (2, 2)
    assert done.waiting_outside == [number for number in outside if number != 0]
    coordinator.tick()
    assert all(rate <= edge for rate in rates(engine, record, 4))
    claims = [*running, *claim(engine, 3)]
    best = outside[0]
    finish(engine, claims, [0.1 if each.trial_number == best else 0.5 for each in claims])
    for _ in range(2):
        coordinator.tick()
    rest = claim(engine)
    finish(engine, rest, [0.5] * len(rest))
    for _ in range(2):
        coordinator.tick()
    assert len(rates(engine, record)) == 7
    assert max(rates(engine, record, 4)) <= edge
    assert [run.trial_number for run in records.runs(engine, record.id) if run.kind == "full"] == [
        best
    ]
    shown = optuna.load_study(study_name="tiny", storage=storage).trials
    assert shown[best].value == 0.1
    assert all(each.params["learning_rate"] == asked[each.number] for each in shown[:4])


def test_a_coordinator_that_missed_the_revision_asks_for_nothing_by_the_old_file(
    engine, create, revise, storage, monkeypatch
):
    record = create()
    coordinator = Coordinator(engine, storage)
    narrow = {"learning_rate": {**RATE, "high": 2e-3}, **WEIGHT}
    look, done = outcomes.wishes, []

    def a_moment_too_early(*arguments):
        seen = look(*arguments)
        if not done:
            done.append(revise(search=narrow))
        return seen

    monkeypatch.setattr(outcomes, "wishes", a_moment_too_early)
    coordinator.tick()
    assert records.trials(engine, record.id) == []
    coordinator.tick()
    assert len(rates(engine, record)) == 4
    assert max(rates(engine, record)) <= 2e-3


def test_a_wish_made_before_is_granted_though_it_lies_outside_now(engine, create, revise, storage):
    record = create()
    number, _ = studies.enqueue(engine, "tiny", {"learning_rate": 0.02})
    dropout = {"dropout": {"low": 0.1, "high": 0.5}}
    done = revise(search={**dropout, **WEIGHT})
    assert (done.fitting, done.outside) == (0, 0)
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    wished, *others = records.trials(engine, record.id)
    assert (wished.number, wished.params) == (number, {"learning_rate": 0.02})
    assert [set(each.params) for each in others] == [{"dropout", "similarity_weight"}] * 3
    run = records.runs(engine, record.id)[0]
    assert (run.spec["learning_rate"], run.spec["dropout"]) == (0.02, 0.0)
    again = Coordinator(engine, storage)
    again.tick()
    one, other = (each._studies[record.id].memory._study for each in (coordinator, again))
    assert [each.params for each in one.trials] == [each.params for each in other.trials]
    assert one.trials[0].params == {}
    shown = optuna.load_study(study_name="tiny", storage=storage).trials
    assert shown[0].params == {"learning_rate": 0.02}


def test_choices_may_change_under_trials_that_run_and_the_dashboard_has_both(
    engine, create, revise, storage
):
    record = create(search={"state_size": {"choices": [4, 8]}, **WEIGHT})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    revise(search={"state_size": {"choices": [2, 3]}, **WEIGHT}, budget={"trials": 8})
    while claims := [each for each in claim(engine, 4) if each.kind == "short"]:
        finish(engine, claims, [0.5] * len(claims))
        coordinator.tick()
    coordinator.tick()
    shown = optuna.load_study(study_name="tiny", storage=storage).trials
    params = [each.params for each in records.trials(engine, record.id)]
    assert [each.params for each in shown] == params
    assert [each.distributions["state_size"].choices for each in shown] == (
        [(4, 8)] * 4 + [(2, 3)] * 4
    )
    assert all(each.value == 0.5 for each in shown)


def test_more_promotions_carry_on_trials_of_a_complete_study(engine, create, work, revise):
    record = create(rungs={"epochs": [3]})
    with coordinating(engine):
        work()
    done = revise(rungs={"epochs": [3]}, promotion={"top": 2})
    assert (done.changed, done.state_before, done.state) == (
        *(["promotion"], "complete", "running"),
    )
    with coordinating(engine):
        work()
    trials = sorted(records.trials(engine, record.id), key=lambda each: each.value or math.inf)
    full = [run for run in records.runs(engine, record.id) if run.kind == "full"]
    assert {run.trial_number for run in full} == {each.number for each in trials[:2]}
    assert {run.state for run in full} == {RunState.COMPLETE}
    assert records.study(engine, "tiny").state is StudyState.COMPLETE


def test_another_sampler_goes_on_and_an_equal_file_changes_nothing(engine, create, revise, storage):
    record = create()
    Coordinator(engine, storage).tick()
    done = revise(sampler={"name": "nsgaii", "population": 4})
    assert (done.changed, done.fitting) == (["sampler"], 4)
    again = revise(sampler={"name": "nsgaii", "population": 4})
    assert again.changed == []
    assert len(revisions.read(engine, record.id)) == 1
    revise()
    times = [each.created_at for each in revisions.read(engine, record.id)]
    told = summary.load(engine, "tiny").past
    assert told.lines() == [f"revised 2 times, last {times[1].isoformat(' ', 'seconds')}"]
    assert told.as_json() == {
        "warm_start": {},
        "revisions": {"count": 2, "last": times[1].isoformat()},
    }


def test_a_paused_study_stays_paused_and_goes_on_by_its_new_file(engine, create, revise, storage):
    record = create()
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    orders.steer(engine, "tiny", Order.PAUSE)
    coordinator.tick()
    done = revise(search={"learning_rate": {**RATE, "high": 2e-3}, **WEIGHT})
    assert done.state == "paused"
    orders.steer(engine, "tiny", Order.RESUME)
    claim(engine)
    coordinator.tick()
    assert max(rates(engine, record, 4)) <= 2e-3


CAN = "what can be are search, sampler, promotion and budget. For another study: cubeopt study "
CAN += "create FILE --name NAME --from tiny"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"base": {"dropout": 0.5}},
            "base.dropout cannot be revised: it is 0.0, the file says 0.5",
        ),
        ({"base": {"epochs": 7}}, "base.epochs cannot be revised: it is 6, the file says 7"),
        (
            {"base": {"seed": 1}},
            "base.seed cannot be revised: it is 'the number of the trial', the file says 1",
        ),
        (
            {"objective": {"metric": "cosine"}},
            "objective.metric cannot be revised: it is 'fvu', the file says 'cosine'",
        ),
        (
            {"constraints": ["usage_min >= 0.05"]},
            "constraints cannot be revised: it is [], the file says ['usage_min >= 0.05']",
        ),
        (
            {"rungs": {"epochs": [1, 3], "reduction_factor": 2.0}},
            "rungs.epochs cannot be revised: it is [1, 2, 3], the file says [1, 3]",
        ),
        ({"code": "strict"}, "code cannot be revised: it is 'warn', the file says 'strict'"),
    ],
)
def test_what_a_result_means_stays(engine, create, revise, changes, said):
    record = create()
    with pytest.raises(StudyError) as error:
        revise(**changes)
    assert str(error.value) == f"study tiny: {said}; {CAN}"
    assert records.study(engine, "tiny") == record


def test_a_grid_a_lattice_that_cannot_be_wired_and_an_unknown_study_are_refused(
    engine, create, revise, tiny_study
):
    with pytest.raises(UnknownNameError, match="there is no study named 'tiny'"):
        revise()
    record = create()
    points = {"learning_rate": 2, "similarity_weight": 2}
    with pytest.raises(StudyError, match=r"^study tiny: a grid is tried whole, so neither its sea"):
        revise(sampler={"name": "grid", "points": points})
    with pytest.raises(Exception, match="distant_links"):
        revise(search={**WEIGHT, "distant_links": {"choices": [1, 11]}})
    assert records.study(engine, "tiny") == record


def test_of_two_who_revise_at_once_one_is_told(engine, create, revise, monkeypatch):
    create()
    write = revisions.revise

    def late(engine, study_id, before, after, trials, promotes):
        assert write(engine, study_id, before, {**after, "budget": {"trials": 9}}, 9, False)
        return write(engine, study_id, before, after, trials, promotes)

    monkeypatch.setattr(revisions, "revise", late)
    with pytest.raises(StudyError) as error:
        revise(budget={"trials": 7})
    assert str(error.value) == (
        "study tiny was changed or deleted meanwhile; look at it again with: cubeopt study show "
        "tiny"
    )
    assert records.study(engine, "tiny").spec["budget"] == {"trials": 9}


def test_a_raised_budget_frees_what_a_worker_may_claim(engine, create, revise, storage):
    record = create(budget={"epochs": 3})
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    assert len(claim(engine)) == 3
    assert claim(engine) == []
    revise(budget={"epochs": 30})
    coordinator.tick()
    assert len(claim(engine)) > 0
    assert queue.first_waiting(engine) is not None or len(rates(engine, record)) > 4
