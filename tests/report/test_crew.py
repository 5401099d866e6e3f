"""Who works, as rows."""

from dataclasses import replace
from datetime import UTC, datetime

from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import WorkerState
from cubeopt.report import crew

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIVE = WorkerRecord(1, "w", "host", 7, "cpu", NOW, NOW, 1.25, WorkerState.LIVE, None, {})


def test_those_that_have_gone_are_shown_on_request_and_a_drained_one_is_called_so():
    workers = [
        LIVE,
        replace(LIVE, id=2, drain_asked_at=NOW),
        replace(LIVE, id=3, drain_asked_at=NOW, state=WorkerState.GONE),
    ]
    shown = crew.rows(workers, {1: 4}, everyone=True)
    assert [row["state"] for row in shown] == ["live", "draining", "gone"]
    assert [row["runs"] for row in shown] == [4, 0, 0]
    assert crew.rows(workers, {1: 4}, everyone=False) == shown[:2]
