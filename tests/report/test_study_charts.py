"""All charts of a study: what they are made of, that they are true, and how large they get."""

import gzip
import json
import math
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.report import chart_image, chart_page, importance, material, study_charts, study_page
from cubeopt.report.coordinates import coordinates
from cubeopt.report.material import Material
from cubeopt.report.progress import curves, results
from cubeopt.report.promotions import promotions
from cubeopt.report.tradeoff import tradeoff

from .conftest import MOMENT

COMPLETE, PRUNED = RunState.COMPLETE, RunState.PRUNED
SPEC = {
    "name": "quickstart",
    "search": {
        "learning_rate": {"low": 1e-4, "high": 1.0, "log": True},
        "similarity_weight": {"low": 0.0, "high": 1.0},
        "state_size": {"choices": [8, 16]},
    },
    "rungs": {"epochs": [1, 2, 5]},
}


def _params(generator: random.Random) -> dict[str, Any]:
    return {
        "learning_rate": 10.0 ** generator.uniform(-4, 0),
        "similarity_weight": generator.random(),
        "state_size": generator.choice((8, 16)),
    }


def _planted(story: Any, count: int) -> Material:
    """Only the learning rate decides; the worse half is cut at the first rung."""
    generator = random.Random(0)
    for number in range(count):
        params = _params(generator)
        value = 0.5 + abs(math.log10(params["learning_rate"]) + 2) / 8
        if value > 0.6:
            story.short(number, [value], PRUNED, params=params)
        else:
            story.short(number, [value] * 5, COMPLETE, params=params)
    return material.of(story.records(spec=SPEC), [], MOMENT + timedelta(hours=1))


def test_importance_finds_the_one_value_that_decides_and_nothing_in_noise(story: Any) -> None:
    found = importance.importances(_planted(story, 60))
    assert (found.trials, found.used, found.best) == (60, 60, 6)
    first, *others = found.rows
    assert first.name == "learning_rate"
    assert first.share > 2 * first.chance
    assert all(row.share < row.chance for row in others)
    assert math.isclose(sum(row.share for row in found.rows), 1.0)


def test_too_few_trials_have_no_importance(story: Any) -> None:
    found = importance.importances(_planted(story, 9))
    assert (found.used, found.rows) == (9, [])
    chart = study_charts.charts_of(_planted(type(story)(), 9))["importances"]
    assert chart.empty == "Importances need 10 trials that have ended; there are 9 so far."


def test_trials_outside_the_space_as_it_is_now_do_not_count(story: Any) -> None:
    found = _planted(story, 30)
    trials = [
        replace(each, params={**each.params, "state_size": 32}) if each.number < 5 else each
        for each in found.trials
    ]
    assert importance.importances(replace(found, trials=trials)).trials == 25


def test_results_have_the_best_complete_one_so_far(story: Any) -> None:
    story.short(0, [0.1], PRUNED).short(1, [0.8], COMPLETE).short(2, [None], PRUNED)
    story.short(3, [0.9], COMPLETE).short(4, [0.7], COMPLETE)
    rows = results(material.of(story.records(), [], MOMENT))
    assert [(row.value, row.best) for row in rows] == [
        (0.1, None),
        (0.8, 0.8),
        (None, 0.8),
        (0.9, 0.8),
        (0.7, 0.7),
    ]


def test_a_promotion_has_its_seeds_their_mean_and_its_short_run(story: Any) -> None:
    for number, value in ((0, 0.6), (1, 0.7)):
        story.short(number, [value] * 5, COMPLETE)
    story.full(0, [0.5], COMPLETE, test_value=0.55).full(0, [0.6], COMPLETE, replicate=1)
    story.full(1, [0.45], COMPLETE)
    story.full(1, [None], PRUNED, replicate=1, end_class=EndClass.DIVERGED)
    first, second = promotions(material.of(story.records(), [], MOMENT))
    assert (first.trial, first.mean, first.spread, first.missing) == (
        1,
        0.45,
        None,
        "seed 1 diverged",
    )
    assert (second.trial, second.short, second.mean) == (0, 0.6, 0.55)
    assert [(seed.seed, seed.value, seed.test_value) for seed in second.seeds] == [
        (0, 0.5, 0.55),
        (1, 0.6, None),
    ]


def test_coordinates_are_shares_of_each_range_and_the_best_result_stands_at_the_top(
    story: Any,
) -> None:
    for number, rate in enumerate((1e-4, 1e-2, 1.0)):
        params = {"learning_rate": rate, "similarity_weight": 0.25 * number, "state_size": 16}
        story.short(number, [0.9 - 0.1 * number] * 5, COMPLETE, params=params)
    found = coordinates(material.of(story.records(spec=SPEC), [], MOMENT), 200)
    assert [(scale.name, scale.low, scale.high) for scale in found.scales] == [
        ("learning_rate", "0.0001", "1"),
        ("similarity_weight", "0", "1"),
        ("state_size", "8", "16"),
        ("fvu", "0.9", "0.7"),
    ]
    assert [(each.trial, each.best) for each in found.threads] == [
        (2, True),
        (1, False),
        (0, False),
    ]
    assert [round(place, 9) for place in found.threads[1].places] == [0.5, 0.25, 1.0, 0.5]


def test_two_objectives_have_every_complete_run_and_their_front(story: Any) -> None:
    for number, (value, parameters) in enumerate(
        ((0.9, 100.0), (0.5, 900.0), (0.6, 950.0), (0.4, 2000.0))
    ):
        metrics = {"parameters": parameters, "validation/usage_min": 0.01 * (number + 1)}
        story.short(number, [value] * 5, COMPLETE, metrics=metrics, params={"state_size": 8})
    spec = {
        **SPEC,
        "objective": {"metrics": ["fvu", "parameters"]},
        "constraints": ["usage_min >= 0.02"],
    }
    found = material.of(story.records(spec=spec), [], MOMENT)
    both = tradeoff(found)
    assert both is not None
    assert [(run.trial, run.second, run.feasible) for run in both.runs] == [
        (0, 100.0, False),
        (1, 900.0, True),
        (2, 950.0, True),
        (3, 2000.0, True),
    ]
    assert [run.trial for run in both.front] == [3, 1]
    chart = study_charts.charts_of(found)["tradeoff"]
    front = next(mark for mark in chart.marks if getattr(mark, "name", "") == "the front")
    assert (front.xs, front.ys) == ([900.0, 2000.0], [0.5, 0.4])
    assert chart.x.log
    assert chart_image.png(chart).startswith(b"\x89PNG")
    whole = study_page.report(found)
    page = study_page.page(whole, study_page.Cube())
    assert "A front of 2 trials in fvu and parameters" in page
    assert whole.protocol.commands[0] == (
        "cubeopt study export quickstart --trial 3 -o quickstart-best.yaml"
    )
    assert json.dumps(whole.as_json(), allow_nan=False)


def test_curves_are_bounded_and_keep_the_best_promoted_trials_whole(story: Any) -> None:
    for number in range(40):
        story.short(number, [0.9, 0.8], COMPLETE)
    for number in (3, 17):
        story.full(number, [0.7 - 0.001 * number], COMPLETE)
    found = material.of(story.records(), [], MOMENT)
    rows = curves(found, 8)
    assert len(rows) == 8
    kept = {(row.trial, row.kind) for row in rows}
    assert {(3, "short"), (3, "full"), (17, "short"), (17, "full")} <= kept
    assert len(curves(found, 100)) == 42


def test_every_chart_of_an_empty_study_says_what_to_do_in_both_painters(story: Any) -> None:
    found = material.of(story.records(spec=SPEC, state=StudyState.RUNNING), [], MOMENT)
    for name, chart in study_charts.charts_of(found).items():
        assert chart.empty, name
        assert chart_image.png(chart).startswith(b"\x89PNG")
        assert json.dumps(chart_page.content(chart), allow_nan=False)


def test_the_charts_of_a_study_are_the_same_in_rows_and_json(story: Any) -> None:
    found = _planted(story, 20)
    rows = study_charts.findings(found).as_json()
    said = json.loads(json.dumps(rows, allow_nan=False))
    assert [row["trial"] for row in said["history"]] == list(range(20))
    assert sum(row["arrived"] for row in said["ladder"]) == sum(
        1 + 2 * (run.state == COMPLETE) for run in found.runs
    )
    history = study_charts.charts_of(found)["history"]
    drawn = sum(len(m.xs) for m in history.marks if hasattr(m, "marker"))
    assert drawn == 20


@pytest.mark.parametrize("maximize", [False, True])
def test_thousands_of_trials_make_charts_of_bounded_size(story: Any, maximize: bool) -> None:
    generator = random.Random(1)
    for number in range(2000):
        values = [generator.random() for _ in range(generator.choice((1, 2, 5)))]
        state = COMPLETE if len(values) == 5 else PRUNED
        story.short(number, list(values), state, params=_params(generator))
        if state == COMPLETE and number % 10 == 0:
            story.full(number, [generator.random() for _ in range(45)], COMPLETE)
    study = {"metric": "cosine", "direction": "maximize"} if maximize else {}
    found = material.of(story.records(spec=SPEC, **study), [], MOMENT + timedelta(hours=1))
    charts = study_charts.charts_of(found)
    assert len(charts) == 8
    for name, chart in charts.items():
        content = json.dumps(chart_page.content(chart), allow_nan=False).encode()
        assert len(gzip.compress(content)) < 100_000, name
        assert not chart.empty
    assert "are left out" in " ".join(charts["ladder"].notes)
    better = "higher is better" if maximize else "lower is better"
    assert better in charts["history"].y.title


def test_a_full_run_is_drawn_from_where_its_short_run_ended(story: Any) -> None:
    story.short(0, [0.9, 0.8, 0.7, 0.65, 0.6], COMPLETE)
    story.full(0, [0.5], COMPLETE).full(0, [0.95], COMPLETE, replicate=1)
    chart = study_charts.charts_of(material.of(story.records(spec=SPEC), [], MOMENT))["curves"]
    full = next(mark for mark in chart.marks if getattr(mark, "name", "") == "full run (2)")
    assert full.xs == [5, 6, None, 1, None]
    assert full.ys == [0.6, 0.5, None, 0.95, None]
    assert len(full.notes) == 5
