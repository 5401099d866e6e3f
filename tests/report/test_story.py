"""The story of a trial has every attempt, and its place at every rung."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import RunState, WorkerState
from cubeopt.errors import UnknownNameError
from cubeopt.report.story import story as told

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORKERS = [WorkerRecord(1, "w", "host", 7, "cpu", NOW, NOW, 0.0, WorkerState.LIVE, None, {})]


def test_each_rung_says_where_the_trial_stood_and_whether_it_went_on(story: Any) -> None:
    story.short(0, [0.9, 0.5], RunState.PRUNED).short(1, [0.8, 0.4], RunState.COMPLETE)
    story.short(2, [1.0], RunState.PRUNED)
    records = story.records()
    ranks = [
        [(row["epoch"], row["rank"], row["of"], row["verdict"]) for row in told_of["rungs"]]
        for told_of in (told(records, number, WORKERS) for number in (0, 1, 2))
    ]
    assert ranks == [
        [(1, 2, 3, "went on"), (2, 2, 2, "pruned")],
        [(1, 1, 3, "went on"), (2, 1, 2, "complete")],
        [(1, 3, 3, "pruned")],
    ]


def test_every_attempt_of_both_runs_is_there_and_it_is_json(story: Any) -> None:
    story.short(4, [0.9], RunState.COMPLETE, attempts=2).full(4, [0.7], RunState.COMPLETE)
    story.short(5, [0.9], RunState.COMPLETE)
    row = told(story.records(), 4, WORKERS)
    tries = [(each["kind"], each["attempt"], each["worker"]) for each in row["attempts"]]
    assert tries == [("short", 1, "w"), ("short", 2, "w"), ("full", 1, "w")]
    assert [run["kind"] for run in row["runs"]] == ["short", "full"]
    json.dumps(row, allow_nan=False)


def test_a_number_that_is_not_there_says_which_are(story: Any) -> None:
    with pytest.raises(UnknownNameError, match="has no trial 9; it has none yet"):
        told(story.records(), 9, WORKERS)
    story.short(2, [0.9], RunState.COMPLETE).short(3, [0.9], RunState.COMPLETE)
    with pytest.raises(UnknownNameError, match="has no trial 9; it has 2 to 3"):
        told(story.records(), 9, WORKERS)
