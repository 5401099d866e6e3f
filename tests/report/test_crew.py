"""Who works, as rows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cubeopt.db.holdings import Ends, Holding, Holdings, Pace
from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import EndClass, RunKind, WorkerState
from cubeopt.report import crew

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEGAN = NOW - timedelta(hours=1)
LIVE = WorkerRecord(1, "w", "host", 7, "cpu", BEGAN, NOW, 1.25, WorkerState.LIVE, None, {})
HELD = Holding(1, "one", 4, RunKind.SHORT, 0, 2, 5, "a", 4, 55.04)
NOTHING = Holdings([], {}, [], 300.0)


def test_those_that_have_gone_are_shown_on_request_and_a_drained_one_is_called_so():
    workers = [
        LIVE,
        replace(LIVE, id=2, drain_asked_at=NOW),
        replace(LIVE, id=3, drain_asked_at=NOW, state=WorkerState.GONE),
        replace(LIVE, id=4, silent_seconds=20.5),
    ]
    held = replace(NOTHING, holdings=[replace(HELD, trial=number) for number in range(4)])
    shown = crew.rows(workers, held, everyone=True)
    assert [row["state"] for row in shown] == ["live", "draining", "gone", "silent"]
    assert [row["runs"] for row in shown] == [4, 0, 0, 0]
    assert crew.rows(workers, held, everyone=False) == [*shown[:2], shown[3]]


def test_a_worker_has_its_packs_its_pace_and_its_failures():
    held = Holdings(
        holdings=[
            HELD,
            replace(HELD, trial=9, kind=RunKind.FULL, replicate=1, epoch=7, target_epochs=50),
            replace(HELD, trial=5, pack_key="b", width=2),
        ],
        paces={1: Pace(1, 40, 1234.5)},
        ends=[
            Ends(1, "one", EndClass.DONE, 3),
            Ends(1, "one", EndClass.PRUNED, 6),
            Ends(1, "two", EndClass.PREEMPTED, 2),
            Ends(1, "one", EndClass.LOST, 1),
            Ends(1, "two", EndClass.ERROR, 2),
        ],
        seconds=300.0,
    )
    (row,) = crew.rows([LIVE], held, everyone=False)
    assert (row["runs"], row["slots"]) == (3, 6)
    assert (row["epochs_per_minute"], row["samples_per_second"]) == (8.0, 1234.5)
    assert (row["ended"], row["failures"]) == (9, {"error": 2, "lost": 1})
    assert [(pack["width"], pack["used"]) for pack in row["packs"]] == [(4, 2), (2, 1)]
    assert row["packs"][0]["runs"][1] == {
        "study": "one",
        "trial": 9,
        "kind": "full",
        "replicate": 1,
        "epoch": 7,
        "target_epochs": 50,
        "lease_seconds": 55.0,
    }


def test_a_crew_adds_up_and_names_the_last_that_have_gone():
    gone = [
        replace(
            LIVE,
            id=10 + nth,
            name=f"old{nth}",
            state=WorkerState.GONE,
            heartbeat_at=NOW + timedelta(minutes=nth),
        )
        for nth in range(12)
    ]
    held = Holdings(
        holdings=[HELD, replace(HELD, worker_id=2, trial=5)],
        paces={1: Pace(1, 5, 10.0), 2: Pace(2, 10, None)},
        ends=[
            Ends(10, "one", EndClass.LOST, 2),
            Ends(1, "one", EndClass.DONE, 3),
            Ends(2, "one", EndClass.LOST, 1),
            Ends(1, "a", EndClass.DIVERGED, 1),
        ],
        seconds=300.0,
    )
    found = crew.crew([*gone, LIVE, replace(LIVE, id=2, name="v")], held)
    assert [row["name"] for row in found.live] == ["w", "v"]
    assert [row["name"] for row in found.gone] == [f"old{nth}" for nth in range(11, 1, -1)]
    assert (found.gone_count, found.runs, found.slots) == (12, 2, 8)
    assert (found.epochs_per_minute, found.samples_per_second) == (3.0, 10.0)
    zeros = {"error": 0, "out_of_memory": 0, "diverged": 0, "lost": 0}
    assert found.failures == [
        {"study": "a", "attempts": 1, **zeros, "diverged": 1},
        {"study": "one", "attempts": 6, **zeros, "lost": 3},
    ]


def test_a_crew_of_nobody_has_no_rate_and_no_failures():
    found = crew.crew([], NOTHING)
    assert found.as_json() == {
        "live": [],
        "gone": [],
        "gone_count": 0,
        "runs": 0,
        "slots": 0,
        "epochs_per_minute": 0,
        "samples_per_second": None,
        "failures": [],
        "seconds": 300.0,
    }


def test_the_pace_of_a_young_worker_is_over_its_life():
    young = replace(LIVE, started_at=NOW - timedelta(seconds=28.75))  # and silent for 1.25 s
    (row,) = crew.rows([young], replace(NOTHING, paces={1: Pace(1, 4, 10.0)}), everyone=False)
    assert row["epochs_per_minute"] == 8.0
