"""A promoted trial over its seeds: a mean that hides nothing."""

import math
from typing import Any

import pytest

from cubeopt.db.tables import EndClass, RunState
from cubeopt.report import replicates, winner
from cubeopt.report.picture import picture
from cubeopt.report.story import story as told
from cubeopt.report.summary import Records, Summary, curves, summarize, trial_rows

from .test_story import WORKERS

COMPLETE, PRUNED, FAILED = RunState.COMPLETE, RunState.PRUNED, RunState.FAILED
RUNNING, WAITING = RunState.RUNNING, RunState.WAITING
DIVERGED = {"end_class": EndClass.DIVERGED}


def _summary(records: Records) -> Summary:
    return summarize(records.study, records.trials, records.runs)


def three(story: Any, number: int, values: list[float], **changes: Any) -> None:
    """Trial *number* with complete full runs of these values."""
    story.short(number, [0.9, 0.7 - number / 100], COMPLETE)
    for replicate, value in enumerate(values):
        test = {"test_value": value + 0.5}
        story.full(number, [0.8, value], COMPLETE, replicate=replicate, **test, **changes)


def test_the_mean_over_the_seeds_decides_and_not_a_lucky_one(story: Any) -> None:
    three(story, 0, [0.25, 0.75, 0.5])
    three(story, 1, [0.375, 0.5, 0.4375])
    found = _summary(story.records())
    best = found.best
    assert best is not None
    assert (best.trial, best.kind, best.seeds) == (1, "full", 3)
    assert (best.value, best.test_value) == (0.4375, 0.9375)
    assert best.spread == pytest.approx(0.0625)  # deviations -1/16, 1/16, 0; over n - 1
    first, second = found.replicates
    assert (first.value, first.spread, first.whole) == (0.5, 0.25, True)
    assert (second.trial, second.seeds, second.complete, second.missing) == (1, 3, 3, "")


def test_the_highest_mean_is_best_where_the_study_maximizes(story: Any) -> None:
    three(story, 0, [0.25, 0.75])
    three(story, 1, [0.5, 0.75])
    best = _summary(story.records(direction="maximize", metric="cosine")).best
    assert best is not None
    assert (best.trial, best.value) == (1, 0.625)


def test_a_seed_that_diverged_or_failed_is_told_and_no_mean_without_it_wins(story: Any) -> None:
    three(story, 0, [0.1, 0.2])
    story.full(0, [0.8, math.nan], PRUNED, replicate=2, value=None, **DIVERGED)
    three(story, 1, [0.2])
    story.full(1, [0.8], FAILED, replicate=1)
    three(story, 2, [0.3, 0.4])
    found = _summary(story.records())
    best = found.best
    assert best is not None
    assert (best.trial, best.value) == (2, pytest.approx(0.35))
    assert [each.missing for each in found.replicates] == [
        *("seed 2 diverged", "seed 1 failed", ""),
    ]
    assert [each.complete for each in found.replicates] == [2, 1, 2]
    assert found.warnings == [
        "diverged (a result was not finite): the full run of trial 0 with seed 2",
        "failed: the full run of trial 1 with seed 1",
    ]


def test_where_no_trial_is_whole_one_whose_seed_diverged_stands_last(story: Any) -> None:
    three(story, 0, [0.1])
    story.full(0, [], PRUNED, replicate=1, **DIVERGED)
    three(story, 1, [0.4])
    story.full(1, [0.5], RUNNING, replicate=1).full(1, [], WAITING, replicate=2)
    story.full(1, [0.5], PRUNED, replicate=3)
    found = _summary(story.records())
    assert found.best is not None
    assert (found.best.trial, found.best.seeds, found.best.spread) == (1, 1, None)
    assert found.replicates[1].missing == "seed 3 ended by a person, 2 not complete"


def test_without_a_complete_full_run_the_short_ones_count(story: Any) -> None:
    story.short(0, [0.9, 0.7], COMPLETE).full(0, [0.1], FAILED).full(0, [0.1], RUNNING, replicate=1)
    found = _summary(story.records())
    assert found.best is not None
    assert (found.best.kind, found.best.value, found.best.seeds) == ("short", 0.7, 1)
    assert (found.replicates[0].value, found.replicates[0].complete) == (None, 0)


def test_the_export_trains_one_run_again_and_says_what_the_mean_was(story: Any) -> None:
    three(story, 3, [0.25, 0.75])
    for each in story.runs:
        spec = {"seed": each.spec["seed"], "learning_rate": each.spec["learning_rate"]}
        each.spec.clear()
        each.spec.update(spec)
    origin = winner.exported(story.records())["provenance"]
    assert (origin["trial"], origin["run"], origin["seed"]) == (3, "full", 0)
    assert (origin["value"], origin["test_value"]) == (0.25, 0.75)
    assert origin["over_seeds"] == {
        "mean": 0.5,
        "spread": pytest.approx(math.sqrt(0.125)),
        "test_mean": 1.0,
        "seeds": 2,
        "complete": 2,
        "values": {"0": 0.25, "1": 0.75},
        "missing": None,
    }


def test_where_the_first_seed_failed_the_export_is_of_the_next_and_says_so(story: Any) -> None:
    story.short(0, [0.9, 0.7], COMPLETE).full(0, [0.1], FAILED)
    story.full(0, [0.6], COMPLETE, replicate=1, attempts=2)
    content = winner.exported(story.records())
    assert content["real_training"]["seed"] == 1
    origin = content["provenance"]
    assert (origin["seed"], origin["value"]) == (1, 0.6)
    assert origin["over_seeds"]["missing"] == "seed 0 failed"


def test_a_study_of_one_seed_exports_as_ever(story: Any) -> None:
    three(story, 0, [0.25])
    assert "over_seeds" not in winner.exported(story.records())["provenance"]


def test_each_seed_is_a_curve_and_their_mean_one_star(story: Any) -> None:
    three(story, 0, [0.25, 0.75])
    story.full(0, [0.5], RUNNING, replicate=2)
    records = story.records()
    rows = trial_rows(records.trials, records.runs, records.attempts)
    assert [(row["kind"], row["replicate"]) for row in rows] == [
        *(("short", 0), ("full", 0), ("full", 1), ("full", 2)),
    ]
    shown = picture(_summary(records), rows, curves(records.runs, records.epochs))
    (star,) = shown.stars
    assert (star.x, star.y) == (0, 0.5)
    assert star.label == "trial 0: 0.500 ± 0.354, 2 of 3 seeds"
    full = next(stroke for stroke in shown.curves if stroke.style.label == "full run")
    assert [x for x in full.xs if not math.isnan(x)] == [2, 3, 4, 1, 2, 1]
    assert "mean of 2 seeds, fvu 0.5000, test split 1.0000" in shown.subtitle


def test_a_story_tells_runs_and_attempts_by_replicate(story: Any) -> None:
    three(story, 4, [0.25, 0.75], attempts=2)
    row = told(story.records(), 4, WORKERS)
    assert [(each["kind"], each["replicate"], each["seed"]) for each in row["runs"]] == [
        *(("short", 0, 0), ("full", 0, 0), ("full", 1, 1)),
    ]
    tries = [(each["kind"], each["replicate"], each["attempt"]) for each in row["attempts"]]
    assert tries == [
        *(("short", 0, 1), ("full", 0, 1), ("full", 0, 2), ("full", 1, 1), ("full", 1, 2)),
    ]


def test_replicates_are_of_full_runs_only(story: Any) -> None:
    story.short(0, [0.9], COMPLETE)
    assert replicates.replicates(story.records().runs) == []
