"""The rungs of a study as rows."""

from typing import Any

from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.report import material, study_charts
from cubeopt.report.ladder import Verdict, ladder

from .conftest import MOMENT

COMPLETE, PRUNED, RUNNING = RunState.COMPLETE, RunState.PRUNED, RunState.RUNNING


def _rungs(story: Any, **study: Any) -> Any:
    return ladder(material.of(story.records(**study), [], MOMENT))


def test_each_trial_is_counted_at_every_rung_that_it_reached(story: Any) -> None:
    story.short(0, [0.9, 0.8, 0.75, 0.72, 0.70], COMPLETE)
    story.short(1, [0.95], PRUNED)  # cut at the first rung
    story.short(2, [0.85, 0.83], PRUNED)  # cut at the second
    story.short(3, [None], PRUNED, end_class=EndClass.DIVERGED)
    story.short(4, [0.8], RUNNING)  # its second epoch is not there yet
    story.short(5, [0.8, 0.7, 0.69], RunState.FAILED)  # between the second and the last rung
    story.short(6, [], RunState.WAITING)
    first, second, last = _rungs(story, state=StudyState.RUNNING)
    assert (first.epoch, first.arrived, first.stayed, first.cut) == (1, 6, 3, 1)
    assert (first.diverged, first.here, first.lost) == (1, 1, 0)
    assert (second.arrived, second.stayed, second.cut, second.lost) == (3, 2, 1, 0)
    assert (last.arrived, last.stayed, last.cut, last.lost, last.last) == (1, 1, 0, 1, True)
    assert {each.trial: str(each.verdict) for each in first.arrivals} == {
        0: "stayed",
        1: "cut",
        2: "stayed",
        3: "diverged",
        4: "still here",
        5: "stayed",
    }
    assert (first.worst_stayed, first.best_cut) == (0.9, 0.95)


def test_the_bar_is_what_the_next_arrival_must_equal(story: Any) -> None:
    for number, value in enumerate((0.9, 0.7, 0.8, 0.6)):
        story.short(number, [value], RUNNING)
    spec = {"rungs": {"epochs": [1, 2, 5], "reduction_factor": 2.0}}
    first, second, last = _rungs(story, state=StudyState.RUNNING, spec={"name": "q", **spec})
    # Of five, floor(5 / 2) = 2 stay: the next must equal the second best of four.
    assert (first.bar, second.bar, last.bar) == (0.7, None, None)
    first, *_ = _rungs(story, state=StudyState.COMPLETE, spec={"name": "q", **spec})
    assert first.bar is None  # nobody comes any more


def test_who_was_ended_by_a_person_was_not_cut(story: Any) -> None:
    story.short(0, [0.9], PRUNED)
    records = story.records()
    person = {"end": "pruned", "by": "a person", "epoch": 1, "value": 0.9}
    trials = [type(each)(**{**vars(each), "reason": person}) for each in records.trials]
    found = material.of(type(records)(**{**vars(records), "trials": trials}), [], MOMENT)
    first, *_ = ladder(found)
    assert (first.cut, first.ended) == (0, 1)
    assert first.arrivals[0].verdict is Verdict.ENDED


def test_the_chart_has_every_arrival_in_the_column_of_its_rung(story: Any) -> None:
    for number in range(4):
        story.short(number, [0.9 - 0.1 * number, 0.7], PRUNED)
    found = material.of(story.records(spec=_SPACE), [], MOMENT)
    chart = study_charts.charts_of(found)["ladder"]
    by_name = {mark.name: mark for mark in chart.marks}
    stayed, cut = by_name["stayed"], by_name["cut"]
    assert stayed.xs == [-0.42, -0.14, 0.14, 0.42]
    assert stayed.ys == [0.9, 0.8, 0.7, 0.6]
    assert [round(x) for x in cut.xs] == [1, 1, 1, 1]
    assert chart.x.ticks[0] == "epoch 1\n4 arrived\n4 stayed\n0 cut"
    assert chart.rows[1][:4] == (2, 4, 0, 4)


_SPACE = {
    "name": "quickstart",
    "rungs": {"epochs": [1, 2, 5]},
    "search": {"learning_rate": {"low": 1e-3, "high": 1.0}},
}
