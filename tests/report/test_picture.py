"""What is shown of a study."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubeopt.db.tables import RunState, StudyState
from cubeopt.report import picture as pictures
from cubeopt.report.picture import Picture, Stroke, picture
from cubeopt.report.summary import Records, curves, summarize, trial_rows
from cubeopt.search.objective import DIRECTIONS

COMPLETE, PRUNED, RUNNING = RunState.COMPLETE, RunState.PRUNED, RunState.RUNNING


def _picture(records: Records) -> Picture:
    summary = summarize(records.study, records.trials, records.runs)
    rows = trial_rows(records.trials, records.runs, records.attempts)
    return picture(summary, rows, curves(records.runs, records.epochs))


def _strokes(strokes: list[Stroke]) -> dict[str, list[list[tuple[float, float]]]]:
    """The label of each stroke, and its points cut where the pen is lifted."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for stroke in strokes:
        runs: list[list[tuple[float, float]]] = [[]]
        for x, y in zip(stroke.xs, stroke.ys, strict=True):
            if math.isnan(y):
                runs.append([])
            else:
                runs[-1].append((x, y))
        found[stroke.label] = [run for run in runs if run]
    return found


def test_every_run_is_a_curve_of_its_state(story: Any) -> None:
    story.short(0, [0.9, 0.8, 0.7], COMPLETE).short(1, [1.0], PRUNED)
    story.short(2, [0.95, 0.9], RUNNING).short(3, [0.97], RunState.WAITING)
    shown = _picture(story.records(state=StudyState.RUNNING))
    assert _strokes(shown.curves) == {
        "pruned (1)": [[(1, 1.0)]],
        "running (2)": [[(1, 0.95), (2, 0.9)], [(1, 0.97)]],
        "complete (1)": [[(1, 0.9), (2, 0.8), (3, 0.7)]],
    }
    assert _strokes(shown.results) == {
        "pruned (1)": [[(1, 1.0)]],
        "running (2)": [[(2, 0.9), (3, 0.97)]],
        "complete (1)": [[(0, 0.7)]],
    }


def test_in_a_study_that_has_ended_nothing_is_running(story: Any) -> None:
    story.short(0, [0.9], COMPLETE).short(1, [0.97], RunState.WAITING)
    shown = _picture(story.records())
    assert {stroke.label for stroke in shown.curves} == {"complete (1)", "unfinished (1)"}


def test_a_full_run_begins_where_its_own_short_run_ended(story: Any) -> None:
    story.short(0, [0.9, 0.7], COMPLETE).short(1, [0.9, 0.8], COMPLETE)
    story.full(0, [0.6, 0.5], RUNNING)
    shown = _picture(story.records())
    assert _strokes(shown.curves)["full run (1)"] == [[(2, 0.7), (3, 0.6), (4, 0.5)]]
    assert [star.label for star in shown.stars] == ["trial 0: 0.500 (running)"]


def test_a_full_run_never_begins_at_the_short_run_of_another_trial(story: Any) -> None:
    story.short(0, [0.9], COMPLETE).short(1, [None], COMPLETE).full(1, [0.6, 0.5], COMPLETE)
    assert _strokes(_picture(story.records()).curves)["full run (1)"] == [[(2, 0.6), (3, 0.5)]]


def test_baselines_that_say_something_are_levels(story: Any) -> None:
    shown = _picture(story.short(0, [0.9], COMPLETE).records())
    assert [(level.label, level.value) for level in shown.levels] == [
        ("PCA to 16 numbers: 0.81", 0.81),
        ("predicting the mean: 1", 1.0),
    ]


def test_a_level_close_under_another_has_its_label_below(story: Any) -> None:
    baselines = {"mean": 1.0, "identity": 1.01, "pca": 0.5, "pca_width": 16}
    shown = _picture(story.short(0, [0.9], COMPLETE).records(baselines=baselines))
    assert [(level.value, level.above) for level in shown.levels] == [
        (0.5, True),
        (1.0, False),
        (1.01, True),
    ]


def test_one_far_value_does_not_flatten_the_others(story: Any) -> None:
    for number in range(8):
        story.short(number, [0.9 - 0.01 * number], COMPLETE)
    story.short(8, [400.0], PRUNED)
    shown = _picture(story.records())
    low, high = shown.limits
    assert 0.7 < low < 0.81
    assert 1.0 < high < 1.2
    assert "1 value lies outside the picture" in shown.subtitle
    ((_, y),) = _strokes(shown.results)["pruned (1)"][0]
    assert 1.0 < y < high  # marked at the edge
    assert "400" in shown.results[0].notes[0]


@pytest.mark.parametrize(("direction", "edge"), [("minimize", 1), ("maximize", 0)])
def test_a_trial_without_a_value_stands_at_the_worst_end(
    story: Any, direction: str, edge: int
) -> None:
    story.short(0, [0.9], COMPLETE).short(1, [None], PRUNED)
    shown = _picture(story.records(direction=direction))
    ((_, y),) = _strokes(shown.results)["pruned (1)"][0]
    assert y == pytest.approx(shown.limits[edge], abs=0.03)
    assert "no value" in shown.results[0].notes[0]


def test_the_epochs_are_logarithmic_only_once_a_full_run_reaches_far(story: Any) -> None:
    story.short(0, [0.9] * 5, COMPLETE)
    assert not _picture(story.records()).logarithmic
    story.full(0, [0.8] * 45, COMPLETE)
    shown = _picture(story.records())
    assert shown.logarithmic
    assert shown.epoch_ticks == [1, 2, 5, 10, 20, 50]
    assert shown.epoch_label == "epoch (logarithmic)"


def test_the_title_and_the_subtitle_say_what_is_seen(story: Any) -> None:
    story.short(0, [0.9, 0.7], COMPLETE).full(0, [0.6], COMPLETE, test_value=0.61)
    story.short(1, [1.0], PRUNED)
    shown = _picture(story.records())
    assert shown.title == "Study quickstart: fvu on the validation split, lower is better"
    assert "2 trials: 1 complete, 1 pruned" in shown.subtitle
    assert "best: trial 0, full run of 3 epochs, fvu 0.6000, test split 0.6100" in shown.subtitle
    up = _picture(story.records(direction="maximize", metric="cosine"))
    assert up.title == "Study quickstart: cosine on the validation split, higher is better"


def test_every_objective_has_an_axis_in_words_and_needs_no_baselines(story: Any) -> None:
    story.short(0, [1.2, 1.7], COMPLETE)
    for metric, direction in DIRECTIONS.items():
        shown = _picture(story.records(direction=direction, metric=metric, baselines={}))
        assert shown.axis.startswith(metric)
        assert len(shown.axis) > len(metric)
        assert shown.levels == []


def test_an_empty_study_says_what_to_do(story: Any) -> None:
    empty = _picture(story.records()).empty
    assert empty == "There is nothing yet. Start a worker: cubeopt worker --study quickstart"
    waiting = _picture(story.short(0, [], RunState.WAITING).records()).empty
    assert waiting is not None
    assert waiting.startswith("No trial has finished an epoch yet.")
    assert _picture(story.short(1, [0.9], COMPLETE).records()).empty is None


def test_what_stands_under_the_mouse_is_escaped(story: Any) -> None:
    story.short(0, [0.5], COMPLETE, params={"emergence": "<b>&", "learning_rate": 0.00123456})
    (note,) = _picture(story.records()).results[0].notes
    assert "emergence: &lt;b&gt;&amp;" in note
    assert "learning_rate: 0.001235" in note


@given(last=st.integers(0, 100_000))
def test_trial_ticks_are_few_and_even(last: int) -> None:
    ticks = pictures._even_ticks(0, last)
    assert 1 <= len(ticks) <= 13
    assert ticks[0] == 0
    assert len({after - before for before, after in pairwise(ticks)}) <= 1


@given(
    rungs=st.sets(st.integers(1, 30), min_size=1, max_size=5).map(sorted),
    more=st.integers(0, 1000),
)
def test_epoch_ticks_name_every_rung_and_the_last_epoch(rungs: list[int], more: int) -> None:
    last = rungs[-1] + more
    for logarithmic in (False, True):
        ticks = pictures._epoch_ticks(rungs, last, logarithmic)
        assert {1, last, *rungs} <= set(ticks)
        assert ticks == sorted(set(ticks))
        assert len(ticks) <= 22
