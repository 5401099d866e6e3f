"""What ran where and when, as rows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import EndClass, RunState, WorkerState
from cubeopt.report import material, timeline
from cubeopt.report.chart import Points
from cubeopt.report.course_charts import timeline as timeline_chart
from cubeopt.report.material import Material
from cubeopt.report.measure import Measure
from cubeopt.report.timeline import Timeline

from .conftest import MOMENT

MEASURE = Measure("study", "fvu", "minimize", [])


def _worker(number: int, name: str) -> WorkerRecord:
    return WorkerRecord(
        id=number,
        name=name,
        host="lab",
        pid=1,
        device="cpu",
        started_at=MOMENT,
        heartbeat_at=MOMENT,
        silent_seconds=0.0,
        state=WorkerState.LIVE,
        drain_asked_at=None,
        provenance={},
    )


def _material(
    story: Any, spans: list[tuple[int, int, float, float | None, EndClass | None]]
) -> Any:
    """*spans*: trial, worker, seconds of start and end, and how it ended."""
    for number in sorted({span[0] for span in spans}):
        story.short(number, [0.5], RunState.RUNNING, attempts=0)
    found = material.of(
        story.records(), [_worker(1, "b"), _worker(2, "a")], MOMENT + timedelta(seconds=100)
    )
    runs = {run.trial_number: run.id for run in found.runs}
    story.short(99, [0.5], RunState.RUNNING)
    (like,) = [each for each in story.attempts if each.trial_number == 99]
    attempts = [
        replace(
            like,
            id=place,
            run_id=runs[trial],
            trial_number=trial,
            token=1 + sum(span[0] == trial for span in spans[:place]),
            worker_id=worker,
            started_at=MOMENT + timedelta(seconds=start),
            ended_at=None if end is None else MOMENT + timedelta(seconds=end),
            end_class=ended,
        )
        for place, (trial, worker, start, end, ended) in enumerate(spans)
    ]
    return replace(found, attempts=attempts)


def _found(story: Any) -> Material:
    found: Material = _material(
        story,
        [
            (0, 1, 0.0, 10.0, EndClass.PRUNED),
            (1, 1, 0.0, 30.0, EndClass.LOST),
            (2, 1, 12.0, 20.0, EndClass.DONE),  # in the slot that trial 0 left
            (1, 2, 60.0, None, None),  # goes on after the kill
        ],
    )
    return found


def test_attempts_side_by_side_have_slots_and_one_that_goes_on_lasts_until_now(story: Any) -> None:
    found = timeline.timeline(_found(story))
    assert [(e.worker, e.slot, e.trial, e.start, e.end, e.ended) for e in found.stretches] == [
        ("b", 0, 0, 0.0, 10.0, "pruned"),
        ("b", 1, 1, 0.0, 30.0, "lost"),
        ("b", 0, 2, 12.0, 20.0, "done"),
        ("a", 0, 1, 60.0, 100.0, None),
    ]
    assert (found.since, found.until) == (MOMENT, 100.0)
    assert found.slots == {"a": 1, "b": 2}
    assert found.stretches[3].attempt == 2
    assert timeline.ends(found.stretches) == {"pruned": 1, "lost": 1, "done": 1, "goes on": 1}


def test_a_lease_that_ran_out_ends_an_attempt_that_nobody_ended(story: Any) -> None:
    found = _found(story)
    runs = [
        replace(run, lease_expires_at=MOMENT + timedelta(seconds=70))
        if run.trial_number == 1
        else run
        for run in found.runs
    ]
    assert timeline.timeline(replace(found, runs=runs)).stretches[3].end == 70.0


def test_busy_time_counts_side_by_side_once_and_keeps_gaps(story: Any) -> None:
    found = timeline.timeline(_found(story))
    busy = timeline.busy(found.stretches, 0.0)
    assert [(each.worker, each.start, each.end) for each in busy] == [
        ("b", 0.0, 30.0),
        ("a", 60.0, 100.0),
    ]


def test_the_chart_shows_each_attempt_by_its_end_and_marks_the_kill(story: Any) -> None:
    chart = timeline_chart(timeline.timeline(_found(story)), MEASURE)
    spans = {mark.name: mark for mark in chart.marks if hasattr(mark, "starts")}
    assert set(spans) == {"goes on", "done", "cut", "lost (lease expired)"}
    # Worker a has the first lane, b the two below; seconds are the unit of less than three minutes.
    assert (spans["goes on"].places, spans["cut"].places) == ([0], [1])
    assert (spans["lost (lease expired)"].starts, spans["lost (lease expired)"].ends) == (
        [0.0],
        [30.0],
    )
    (kill,) = [mark for mark in chart.marks if isinstance(mark, Points)]
    assert kill.name == "ended: lost (lease expired)"
    assert (kill.xs, kill.ys) == ([30.0], [2])
    assert chart.rows == [("a", "cpu", 1, 1, 0), ("b", "cpu", 2, 3, 1)]
    assert chart.x.title == "seconds since the first attempt"


def test_too_many_attempts_are_drawn_as_the_time_in_which_workers_held_runs(story: Any) -> None:
    found = timeline.timeline(_found(story))
    many = [
        replace(found.stretches[0], worker=f"w{number % 50:02}", start=float(number))
        for number in range(2000)
    ]
    many = [replace(each, end=each.start + 5.0) for each in many]
    many[77] = replace(many[77], ended="error")
    chart = timeline_chart(Timeline(MOMENT, 2005.0, many), MEASURE)
    held, error = [mark for mark in chart.marks if mark.name]
    assert held.name == "holds runs"
    assert max(held.places) == 39  # forty workers
    assert (error.name, error.xs) == ("ended: error", [round(82.0 / 60.0, 6)])
    assert "the 40 of 50 workers that were there last are drawn" in chart.notes


def test_without_attempts_the_chart_says_what_to_do(story: Any) -> None:
    found = timeline.timeline(material.of(story.records(), [], MOMENT))
    chart = timeline_chart(found, MEASURE)
    assert found == Timeline(None, 0.0, [])
    assert chart.empty is not None
    assert "cubeopt worker --study study --gpu 0" in chart.empty
    paused = timeline_chart(found, replace(MEASURE, state="paused"))
    assert paused.empty is not None
    assert "The study is paused; let it go on: cubeopt study resume study" in paused.empty
