"""A study in a few numbers."""

import json
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from cubeopt.db import leases, queue, records
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import EndClass, RunState
from cubeopt.errors import UnknownNameError
from cubeopt.report.summary import Records, Summary, curves, frame, load, summarize, trial_rows

from .conftest import MOMENT

COMPLETE, PRUNED, FAILED = RunState.COMPLETE, RunState.PRUNED, RunState.FAILED
RUNNING, WAITING = RunState.RUNNING, RunState.WAITING


def _summary(records: Records) -> Summary:
    return summarize(records.study, records.trials, records.runs)


def test_an_empty_study_has_every_key_and_no_best(story: Any) -> None:
    said = _summary(story.records()).as_json()
    assert said["trials"] == {
        "waiting": 0,
        "running": 0,
        "complete": 0,
        "pruned": 0,
        "failed": 0,
    }
    assert said["best"] is None
    assert said["promotions"] == []
    assert said["warnings"] == []
    assert said["baselines"] == {"mean": 1.0, "identity": None, "pca": 0.81, "pca_width": 16}
    assert said["dataset"] == {
        "name": "quickstart",
        "fingerprint": "f" * 64,
        "train_rows": 800,
        "validation_rows": 100,
        "test_rows": 90,
    }
    assert (said["name"], said["state"]) == ("quickstart", "complete")
    assert (said["metric"], said["direction"]) == ("fvu", "minimize")
    assert said["rungs"] == [1, 2, 5]


def test_states_are_those_of_the_short_runs(story: Any) -> None:
    story.short(0, [0.9] * 5, COMPLETE).full(0, [0.8], RUNNING).short(1, [0.95], PRUNED)
    story.short(2, [], WAITING).short(3, [0.9], RUNNING).short(4, [], FAILED)
    assert _summary(story.records()).trials == {
        "waiting": 1,
        "running": 1,
        "complete": 1,
        "pruned": 1,
        "failed": 1,
    }


def test_a_completed_full_run_is_the_best_even_where_a_short_one_is_lower(story: Any) -> None:
    story.short(0, [0.9, 0.7], COMPLETE).short(1, [0.9, 0.6], COMPLETE)
    story.full(0, [0.65], COMPLETE, test_value=0.66).full(1, [0.1], RUNNING)
    best = _summary(story.records()).as_json()["best"]
    assert best == {
        "trial": 0,
        "kind": "full",
        "epochs": 3,
        "value": 0.65,
        "spread": None,
        "seeds": 1,
        "test_value": 0.66,
        "params": {"learning_rate": 0.001},
    }


def test_the_validation_value_decides_and_not_the_test_value(story: Any) -> None:
    story.short(0, [0.7], COMPLETE).full(0, [0.60], COMPLETE, test_value=0.2)
    story.short(1, [0.7], COMPLETE).full(1, [0.59], COMPLETE, test_value=0.9)
    best = _summary(story.records()).best
    assert best is not None
    assert best.trial == 1


def test_without_a_full_run_the_best_short_one_counts_and_of_equals_the_earlier(story: Any) -> None:
    story.short(2, [0.4], PRUNED).short(1, [0.5], COMPLETE).short(0, [0.5], COMPLETE)
    story.short(3, [math.nan], COMPLETE).short(4, [None], COMPLETE)
    best = _summary(story.records()).best
    assert best is not None
    assert (best.trial, best.kind) == (0, "short")


def test_the_highest_value_is_best_where_the_study_maximizes(story: Any) -> None:
    story.short(0, [0.5], COMPLETE).short(1, [0.7], COMPLETE)
    best = _summary(story.records(direction="maximize", metric="cosine")).best
    assert best is not None
    assert best.trial == 1


def test_promotions_say_how_far_they_are(story: Any) -> None:
    story.short(3, [0.9, 0.7], COMPLETE).full(3, [0.6, 0.5], RUNNING)
    assert _summary(story.records()).as_json()["promotions"] == [
        {"trial": 3, "seed": 0, "state": "running", "epochs": 4, "value": 0.5, "test_value": None}
    ]


def test_a_summary_is_json_without_nan(story: Any) -> None:
    story.short(0, [math.nan], COMPLETE).full(0, [math.inf], RUNNING)
    text = json.dumps(_summary(story.records()).as_json(), allow_nan=False)
    assert json.loads(text)["promotions"][0]["value"] is None


def test_it_warns_of_trials_no_better_than_the_mean(story: Any) -> None:
    story.short(0, [0.9], COMPLETE).short(1, [1.0], COMPLETE).short(2, [1.2], COMPLETE)
    story.short(3, [1.3], PRUNED)
    (warning,) = _summary(story.records()).warnings
    assert warning == "no better than predicting the mean (fvu 1): trials 1 and 2"


def test_it_warns_where_the_best_itself_learned_nothing(story: Any) -> None:
    story.short(0, [1.5], COMPLETE).full(0, [1.0], COMPLETE)
    (warning,) = _summary(story.records()).warnings
    assert warning.startswith("the best trial (0) is no better than predicting the mean")


def test_a_mean_that_says_nothing_warns_of_nothing(story: Any) -> None:
    records = story.short(0, [1.5], COMPLETE).records(baselines={"mean": None})
    assert _summary(records).warnings == []


def test_it_warns_of_different_trials_with_the_same_bits(story: Any) -> None:
    value = 0.1 + 0.2
    story.short(0, [value], COMPLETE).short(1, [value], COMPLETE)
    story.short(2, [math.nextafter(value, 1.0)], COMPLETE).short(3, [0.5, value], COMPLETE)
    (warning,) = _summary(story.records()).warnings
    assert warning.startswith("trials 0 and 1 differ, but have the same result to the last bit")
    assert repr(value) in warning


@pytest.mark.parametrize("metric", ["top1", "mrr"])
def test_a_metric_of_ranks_may_well_repeat(story: Any, metric: str) -> None:
    story.short(0, [1.5], COMPLETE).short(1, [1.5], COMPLETE)
    assert _summary(story.records(metric=metric, direction="maximize")).warnings == []


def test_the_same_trial_twice_may_have_the_same_bits(story: Any) -> None:
    params = {"learning_rate": 0.1}
    story.short(0, [0.5], COMPLETE, params=params).short(1, [0.5], COMPLETE, params=params)
    assert _summary(story.records()).warnings == []


def test_it_tells_of_what_diverged_and_what_failed(story: Any) -> None:
    story.short(0, [0.5], COMPLETE).full(0, [], FAILED)
    for number in range(1, 13):
        story.short(number, [], PRUNED, end_class=EndClass.DIVERGED)
    assert _summary(story.records()).warnings == [
        "diverged (a result was not finite): trials 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more",
        "failed: the full run of trial 0",
    ]


def test_failures_are_grouped_by_their_causes_and_a_row_of_them_is_counted(story: Any) -> None:
    for number, error in enumerate(["boom", "out of memory: needed 2 GB more", "boom"]):
        story.short(number, [], FAILED, finished_at=MOMENT + timedelta(seconds=number))
        reason = {"end": "error", "epoch": 0, "error": error}
        story.trials[-1] = replace(story.trials[-1], reason=reason)
    story.short(3, [0.5], COMPLETE, finished_at=MOMENT - timedelta(seconds=1))
    assert _summary(story.records()).warnings == [
        "failed: trials 0 and 2 (boom), trial 1 (out of memory: needed 2 GB more); "
        "the last 3 that ended failed in a row"
    ]


def test_rows_are_flat_and_in_order(story: Any) -> None:
    story.short(1, [0.9], PRUNED).short(0, [0.9, 0.8], COMPLETE, attempts=3)
    story.full(0, [0.7], COMPLETE, test_value=0.71)
    records = story.records()
    rows = trial_rows(records.trials, records.runs, records.attempts)
    assert [list(row) for row in rows] == 3 * [
        [
            *("number", "state", "kind", "replicate", "epoch", "value", "test_value"),
            *("learning_rate", "attempts"),
        ]
    ]
    assert [tuple(row.values()) for row in rows] == [
        (0, "complete", "short", 0, 2, 0.8, None, 0.001, 3),
        (0, "complete", "full", 0, 3, 0.7, 0.71, 0.001, 1),
        (1, "pruned", "short", 0, 1, 0.9, None, 0.002, 1),
    ]
    table = frame(rows)
    assert list(table["value"]) == [0.8, 0.7, 0.9]
    assert len(frame([])) == 0


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_curves_have_the_validated_epochs_only(story: Any, nothing: float | None) -> None:
    story.short(4, [0.9, nothing, 0.7], COMPLETE).full(4, [0.6], RUNNING).short(2, [1.1], PRUNED)
    records = story.records()
    rows = curves(records.runs, records.epochs)
    assert [(row["trial"], row["kind"], row["epoch"], row["value"]) for row in rows] == [
        (2, "short", 1, 1.1),
        (4, "short", 1, 0.9),
        (4, "short", 3, 0.7),
        (4, "full", 4, 0.6),
    ]
    assert [row["pruned"] for row in rows] == [True, False, False, False]


def test_a_study_is_loaded_from_the_storage(engine: Engine) -> None:
    study = records.create_study(
        engine,
        name="stored",
        spec={"name": "stored"},
        direction="minimize",
        metric="fvu",
        dataset="sample",
        dataset_fingerprint="f00d",
        dataset_rows={"train": 8, "validation": 1, "test": 1},
        baselines={"mean": 1.0, "identity": None, "pca": 0.8, "pca_width": 16},
        code_version="0.1.0",
    )
    trials = [NewTrial(number, {"state_size": 16}, {"seed": number}, "key", 5) for number in (0, 1)]
    queue.enqueue(engine, study.id, trials)
    worker = queue.register(engine, "worker", "host", 1, "cpu", {})
    (claim,) = queue.claim(engine, worker, 1, 1, 1, 60.0, "cpu", {})
    report = EpochReport(claim.run_id, claim.token, 1, 0.9, {}, None, False, None)
    leases.report(engine, [report], lambda question: False)
    found = load(engine, "stored")
    assert _summary(found).trials == {
        "waiting": 1,
        "running": 1,
        "complete": 0,
        "pruned": 0,
        "failed": 0,
    }
    rows = trial_rows(found.trials, found.runs, found.attempts)
    assert [(row["number"], row["epoch"], row["value"], row["attempts"]) for row in rows] == [
        (0, 1, 0.9, 1),
        (1, 0, None, 0),
    ]
    assert [row["value"] for row in curves(found.runs, found.epochs)] == [0.9]
    json.dumps(_summary(found).as_json(), allow_nan=False)


def test_a_study_that_does_not_exist_is_one_clear_error(engine: Engine) -> None:
    with pytest.raises(UnknownNameError):
        load(engine, "nothing")
