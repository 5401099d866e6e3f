"""A study at a glance, by hand-computed numbers, and read piece by piece as it goes on."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from cubeopt.db import attempts, interventions, orders, queue, records
from cubeopt.db.attempts import release
from cubeopt.db.budgets import Account
from cubeopt.db.chronicle import Pace
from cubeopt.db.leases import RungQuestion
from cubeopt.db.orders import Order
from cubeopt.db.records import RunRecord, StudyRecord
from cubeopt.db.tables import EndClass, RunState
from cubeopt.errors import UnknownNameError
from cubeopt.report import outlook
from cubeopt.report.follower import Follower
from cubeopt.report.glance import Glance, Rung

from ..db.conftest import Hands, lease
from .conftest import Story


@pytest.fixture
def hands(engine: Engine) -> Hands:
    return Hands(engine, queue.register(engine, "host-1", "host", 1, "cpu", {"torch": "0"}))


def cut(question: RungQuestion) -> bool:
    return True


def played(hands: Hands) -> list[Callable[[], object]]:
    """The acts of a study with every end that a trial may come to."""
    study: list[StudyRecord] = [hands.study(budget={"trials": 10, "epochs": 40})]
    hands.enqueue(study[0], range(8))
    claims = hands.claim(limit=7)
    runs = {claim.trial_number: claim for claim in claims}

    def report(number: int, epoch: int, value: float, decide: object = None) -> None:
        hands.report(runs[number], epoch, value, **({"decide": decide} if decide else {}))

    def first_epochs() -> None:
        for number in (0, 2, 3, 4, 5, 6):
            report(number, 1, 0.9 - 0.05 * number)
        report(1, 1, 0.95, cut)

    return [
        first_epochs,
        lambda: [report(0, 2, 0.6), report(2, 2, 0.7, cut)],
        lambda: hands.complete(runs[0], 0.3),
        lambda: release(hands.engine, [lease(runs[4])]),
        lambda: interventions.prune(hands.engine, "study", 5),
        lambda: attempts.fail(hands.engine, lease(runs[6]), EndClass.ERROR, "x\nBoom: no\n", 0),
        lambda: queue.promote(hands.engine, study[0].id, [0], 50),
    ]


def test_every_number_of_a_glance_is_that_of_the_tables(engine: Engine, hands: Hands) -> None:
    for act in played(hands):
        act()
    shown = Follower(engine, "study").look()
    assert (shown.state, shown.reason, shown.metric) == ("running", None, "fvu")
    assert shown.trials == {
        **{"waiting": 2, "running": 1, "complete": 1},
        **{"pruned": 3, "failed": 1},
    }
    assert shown.queue == {"short": 2, "full": 1}
    assert shown.rungs == [
        Rung(1, arrived=7, stayed=2, cut=1, here=2, otherwise=2),
        Rung(2, arrived=2, stayed=1, cut=1, here=0, otherwise=0),
        Rung(5, arrived=1, stayed=1, cut=0, here=0, otherwise=0),
    ]
    assert [(each["name"], each["used"], each["left"]) for each in shown.budgets] == [
        *(("trials", 8.0, 2.0), ("epochs", 10.0, 30.0)),
    ]
    assert shown.best is not None
    assert [(each.trial, each.value) for each in shown.top] == [(0, 0.3)]
    assert [(each.trial, each.state, each.epochs) for each in shown.promotions] == [
        (0, "waiting", 5)
    ]
    (running,) = shown.running
    assert (running.trial, running.epoch, running.value, running.worker, running.width) == (
        *(3, 1, 0.75, "host-1", 8),
    )
    (worker,) = shown.workers
    assert (worker.name, worker.runs, worker.other_runs) == ("host-1", 1, 0)
    assert (shown.pairs, shown.rank_correlation) == (0, None)
    assert any("Boom: no" in said for said in shown.warnings)
    told = [(each.what, each.trial, each.epoch, each.value, each.detail) for each in shown.events]
    assert told[:7] == [("started", number, 0, None, None) for number in range(7)]
    assert told[7:] == [
        ("pruned", 1, 1, 0.95, None),
        ("pruned", 2, 2, 0.7, None),
        ("done", 0, 5, 0.3, None),
        ("preempted", 4, 1, pytest.approx(0.7), "given back, waits"),
        ("pruned", 5, 1, pytest.approx(0.65), "by a person"),
        ("failed", 6, 1, pytest.approx(0.6), "Boom: no"),
        ("promoted", 0, 5, 0.3, None),
    ]


def test_looking_again_reads_what_is_new_and_shows_what_a_first_look_shows(
    engine: Engine, hands: Hands
) -> None:
    acts = played(hands)
    follower = Follower(engine, "study")
    follower.look()
    for act in acts:
        act()
        assert timeless(follower.look()) == timeless(Follower(engine, "study").look())
    _move_ends(engine, timedelta(hours=-2))
    follower.look()
    interventions.retry(engine, "study", 6)
    orders.steer(engine, "study", Order.PAUSE)
    again = follower.look()
    assert (again.state, again.trials["failed"], again.trials["waiting"]) == ("paused", 0, 3)
    assert timeless(again) == timeless(Follower(engine, "study").look())


def timeless(shown: Glance) -> dict[str, object]:
    """What does not move with the clock."""
    row = shown.as_json()
    for name in ("at", "outlook"):
        row.pop(name)
    for each in (*row["running"], *row["workers"]):
        each.pop("seconds", None), each.pop("silent_seconds", None)
    return row


def test_what_ended_long_ago_is_not_read_again(engine: Engine, hands: Hands) -> None:
    for act in played(hands):
        act()
    study = records.study(engine, "study")
    _move_ends(engine, timedelta(hours=-2))
    since = study.created_at - timedelta(hours=1)
    read = [(run.trial_number, str(run.kind)) for run in records.runs(engine, study.id, since)]
    assert read == [(0, "full"), (3, "short"), (4, "short"), (7, "short")]
    assert [t.number for t in records.trials(engine, study.id, since)] == [3, 4, 7]
    assert len(records.runs(engine, study.id)) == 9
    known = records.attempts(engine, study.id)
    assert records.attempts(engine, study.id, known[4].id) == known[5:]


def _move_ends(engine: Engine, by: timedelta) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE cubeopt.runs SET finished_at = finished_at + :by"), {"by": by}
        )


def test_another_study_of_the_same_name_is_shown_as_it_is(engine: Engine, hands: Hands) -> None:
    for act in played(hands):
        act()
    follower = Follower(engine, "study")
    follower.look()
    orders.steer(engine, "study", Order.STOP)
    orders.delete(engine, "study")
    with pytest.raises(UnknownNameError, match="no study named 'study'"):
        follower.look()
    hands.study()
    shown = follower.look()
    assert (sum(shown.trials.values()), shown.events, shown.top) == (0, [], [])


NOW = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)
SPEC = {"base": {"epochs": 50}, "rungs": {"epochs": [1, 2, 5]}, "promotion": {"top": 2}}


def course(story: Story) -> list[RunRecord]:
    """Six trials that ended after 15 epochs, one at its first, a full run at its fifth."""
    for number in (0, 1):
        story.short(number, [0.5] * 5, RunState.COMPLETE)
    for number in (2, 3, 4):
        story.short(number, [0.9], RunState.PRUNED)
    story.short(5, [0.9, 0.8], RunState.PRUNED)
    story.short(6, [0.9], RunState.RUNNING)
    story.full(0, [], RunState.WAITING)
    return story.runs


TRIALS = Account("trials", 10.0, 7.0)


@pytest.mark.parametrize(
    ("others", "seconds", "ends"),
    [
        # 2.5 epochs a trial: 1.5 of trial 6, 7.5 of three to come, 45 of each of two full runs;
        # half an epoch a second.
        ([], 198.0, "trials"),
        ([Account("epochs", 100.0, 40.0)], 120.0, "epochs"),
        ([Account("hours", 1.0, 0.96)], 144.0, "hours"),
        ([Account("device_hours", 1.0, 0.9)], 180.0, "device_hours"),
    ],
)
def test_the_time_that_is_left_is_that_of_the_budget_that_is_spent_first(
    story: Story, others: list[Account], seconds: float, ends: str
) -> None:
    found = outlook.outlook(SPEC, course(story), [TRIALS, *others], Pace(60, 120.0, NOW), 2)
    assert found.epochs == pytest.approx(99.0)
    assert (found.epochs_per_minute, found.ends, found.why_not) == (30.0, ends, None)
    assert found.seconds == pytest.approx(seconds)


def test_promotion_as_results_come_is_counted_by_what_has_been_complete_so_far(
    story: Story,
) -> None:
    spec = {**SPEC, "promotion": {"reduction_factor": 3.0, "seeds": 2}}
    found = outlook.outlook(spec, course(story), [TRIALS], Pace(60, 120.0, NOW), 2)
    # A third of ten is complete, of which one is promoted, and that is under way.
    assert found.epochs == pytest.approx(1.5 + 7.5 + 45.0)


@pytest.mark.parametrize(
    ("count", "pace", "devices"),
    [(8, Pace(60, 120.0, NOW), 0), (8, Pace(0, 120.0, NOW), 2), (4, Pace(60, 120.0, NOW), 2)],
)
def test_no_time_is_given_where_it_would_be_a_guess(
    story: Story, count: int, pace: Pace, devices: int
) -> None:
    found = outlook.outlook(SPEC, course(story)[:count], [TRIALS], pace, devices)
    assert found.seconds is None
    assert found.why_not is not None
