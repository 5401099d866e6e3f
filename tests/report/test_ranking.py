"""Which runs of a study are best, and what becomes of them: export, picture, story."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import EndClass, RunState, WorkerState
from cubeopt.errors import StudyError, UnknownNameError
from cubeopt.report import figures, winner
from cubeopt.report.pareto import tick_label
from cubeopt.report.picture import Picture, picture
from cubeopt.report.story import story as told
from cubeopt.report.summary import Records, Summary, curves, summarize, trial_rows
from cubeopt.search import configuration

from .conftest import MOMENT

WORKERS = [WorkerRecord(1, "w", "host", 7, "cpu", MOMENT, MOMENT, 0.0, WorkerState.LIVE, None, {})]
COMPLETE, PRUNED = RunState.COMPLETE, RunState.PRUNED
SPEC: dict[str, Any] = {"name": "quickstart", "rungs": {"epochs": [1, 2, 5]}}
TWO = {**SPEC, "objective": {"metrics": ["fvu", "parameters"]}}
BOUNDED = {**SPEC, "constraints": ["usage_min >= 0.05"]}


def _summary(records: Records) -> Summary:
    return summarize(records.study, records.trials, records.runs, records.measured)


def _picture(records: Records) -> Picture:
    rows = trial_rows(
        records.trials, records.runs, records.attempts, records.goal, records.measured
    )
    return picture(_summary(records), rows, curves(records.runs, records.epochs))


def _of(parameters: float, usage: float = 0.3) -> dict[str, Any]:
    return {"metrics": {"parameters": parameters, "validation/usage_min": usage}}


def _two(story: Any, **study: Any) -> Records:
    """On the front: 3 (its full run), 1 and 0; 2 is behind 1, 4 was pruned."""
    story.short(0, [0.9, 0.8], COMPLETE, **_of(100)).short(1, [0.7, 0.6], COMPLETE, **_of(200))
    story.short(2, [0.7, 0.6], COMPLETE, **_of(300)).short(3, [0.7, 0.65], COMPLETE, **_of(400))
    story.short(4, [0.1], PRUNED, **_of(50)).full(
        3, [0.5, 0.4], COMPLETE, test_value=0.45, **_of(400)
    )
    records: Records = story.records(spec=TWO, **study)
    return records


def _bounded(story: Any) -> Records:
    dead = _of(100, usage=0.01)
    story.short(0, [0.9, 0.8], COMPLETE, **_of(100)).short(1, [0.7, 0.6], COMPLETE, **dead)
    story.short(2, [0.9, 0.7], COMPLETE, **_of(100)).short(3, [0.1], PRUNED, **dead)
    story.full(2, [0.5], COMPLETE, **_of(100, usage=0.04))
    records: Records = story.records(spec=BOUNDED)
    return records


def test_the_front_has_each_trial_by_its_newest_complete_run(story: Any) -> None:
    short = _summary(_two(story))
    assert short.best is None
    assert (short.second, short.second_direction) == ("parameters", "minimize")
    found = [(each.trial, each.kind, each.value, each.second_value) for each in short.front]
    assert found == [(3, "full", 0.4, 400.0), (1, "short", 0.6, 200.0), (0, "short", 0.8, 100.0)]
    assert short.front[0].test_value == 0.45
    json.dumps(short.as_json(), allow_nan=False)


def test_who_breaks_a_constraint_at_its_last_epoch_is_not_the_best(story: Any) -> None:
    """Trial 1 did in its short run, trial 2 in its full run, though its short one was fine."""
    short = _summary(_bounded(story))
    assert short.best is not None
    assert (short.best.trial, short.best.value) == (0, 0.8)
    assert short.infeasible == [1, 2]
    assert "trials 1 and 2 break a constraint" in short.warnings
    assert short.constraints == ["usage_min >= 0.05"]


def test_a_run_without_a_result_meets_no_constraint_whatever_it_was_before(story: Any) -> None:
    story.short(0, [0.5, None], COMPLETE, **_of(100))
    short = _summary(story.records(spec=BOUNDED))
    assert short.best is None
    assert short.warnings[0] == (
        "no trial meets the constraints; trial 0 comes nearest: it breaks usage_min >= 0.05 (none)"
    )


def test_rows_have_the_second_value_and_whether_the_constraints_are_met(story: Any) -> None:
    records = _two(story)
    rows = trial_rows(
        records.trials, records.runs, records.attempts, records.goal, records.measured
    )
    assert [row["second_value"] for row in rows] == [100, 200, 300, 400, 400, 50]
    assert "feasible" not in rows[0]
    bounded = _bounded(type(story)())
    rows = trial_rows(
        bounded.trials, bounded.runs, bounded.attempts, bounded.goal, bounded.measured
    )
    assert [row["feasible"] for row in rows] == [True, False, True, False, False]
    assert "second_value" not in rows[0]


def test_short_and_full_runs_are_compared_by_each_metric_that_training_changes(story: Any) -> None:
    cosines = [(0.1, 0.4), (0.2, 0.3), (0.3, 0.2), (0.4, 0.1)]
    for number, (short, full) in enumerate(cosines):
        value = 0.5 + 0.1 * number
        story.short(number, [value], COMPLETE, metrics={"validation/cosine": short})
        story.full(number, [value - 0.2], COMPLETE, metrics={"validation/cosine": full})
    spec = {**SPEC, "objective": {"metrics": ["fvu", "cosine"]}}
    said = _summary(story.records(spec=spec))
    assert said.short_and_full.spearman == pytest.approx(1.0)
    assert said.second_short_and_full is not None
    assert said.second_short_and_full.spearman == pytest.approx(-1.0)
    assert _summary(_two(type(story)())).second_short_and_full is None


def test_export_of_a_front_asks_which_and_names_the_candidates(story: Any) -> None:
    records = _two(story)
    with pytest.raises(StudyError) as raised:
        winner.exported(records)
    assert str(raised.value) == (
        "study quickstart has 3 best runs, a front of fvu and parameters; say which with "
        "--trial N: 3 (fvu 0.4, parameters 400), 1 (fvu 0.6, parameters 200), "
        "0 (fvu 0.8, parameters 100)"
    )
    origin = winner.exported(records, 3)[configuration.PROVENANCE_SECTION]
    assert (origin["trial"], origin["run"], origin["value"]) == (3, "full", 0.4)
    assert origin["judged_by"] == {"parameters": 400.0}
    behind = winner.exported(records, 2)[configuration.PROVENANCE_SECTION]
    assert (behind["trial"], behind["run"], behind["value"]) == (2, "short", 0.6)
    with pytest.raises(StudyError, match="trial 4 has no complete run, so there is nothing to ex"):
        winner.exported(records, 4)
    with pytest.raises(UnknownNameError, match="has no trial 9; it has 0 to 4"):
        winner.exported(records, 9)


def test_export_without_a_feasible_trial_says_which_comes_nearest(story: Any) -> None:
    story.short(0, [0.5], COMPLETE, **_of(100, usage=0.01))
    with pytest.raises(StudyError) as raised:
        winner.exported(story.records(spec=BOUNDED))
    assert str(raised.value) == (
        "study quickstart: no trial meets the constraints; trial 0 comes nearest: it breaks "
        "usage_min >= 0.05 (0.01); --trial N exports one all the same"
    )


def test_the_story_of_a_trial_has_its_place_among_the_fronts_and_its_constraints(
    story: Any,
) -> None:
    row = told(_two(story), 2, WORKERS)
    assert row["second"] == "parameters"
    # At epoch 1: 4 is alone on front 0; then 0 and 1, the ends of front 1; 2 behind them.
    assert [(each["epoch"], each["rank"], each["of"]) for each in row["rungs"]] == [
        *((1, 4, 5), (2, 3, 4)),
    ]
    assert [each["second_value"] for each in row["runs"]] == [300.0]
    bounded = told(_bounded(type(story)()), 2, WORKERS)
    said = "usage_min >= 0.05"
    assert bounded["constraints"] == [
        {"kind": "short", "replicate": 0, "constraint": said, "value": 0.3, "met": True},
        {"kind": "full", "replicate": 0, "constraint": said, "value": 0.04, "met": False},
    ]


def test_a_trial_that_costs_too_much_takes_no_place_at_a_rung(story: Any) -> None:
    story.short(0, [0.1], PRUNED, **_of(500)).short(1, [0.9], COMPLETE, **_of(50))
    story.short(2, [0.8], COMPLETE, **_of(60))
    records = story.records(spec={**SPEC, "constraints": ["parameters <= 100"]})
    places = [told(records, number, WORKERS)["rungs"][0] for number in (0, 1, 2)]
    assert [(each["rank"], each["of"]) for each in places] == [(1, 3), (2, 2), (1, 2)]


def test_the_picture_has_both_objectives_with_units_and_stairs_through_the_front(
    story: Any,
) -> None:
    shown = _picture(_two(story))
    assert shown.across is not None
    assert shown.result_label == "parameters: weights of one trial's cube, lower is better"
    assert shown.axis == "fvu: fraction of variance unexplained (0 perfect, 1 the mean)"
    assert shown.across.limits == pytest.approx((29.0, 421.0))
    assert shown.across.front is not None
    front = list(zip(shown.across.front.xs, shown.across.front.ys, strict=True))
    assert front == [(100, 0.8), (200, 0.6), (400, 0.4)]
    assert list(zip(*shown.across.stairs, strict=True)) == [
        (100, 0.8),
        (200, 0.8),
        (200, 0.6),
        (400, 0.6),
        (400, 0.4),
    ]
    results = {
        stroke.label: list(zip(stroke.xs, stroke.ys, strict=True)) for stroke in shown.results
    }
    assert results["complete (4)"] == [(100, 0.8), (200, 0.6), (300, 0.6), (400, 0.65)]
    assert results["full run (1)"] == [(400, 0.4)]
    assert [(star.x, star.label) for star in shown.stars] == [(400, "trial 3")]
    assert "front of fvu and parameters: 3 runs" in shown.subtitle
    assert shown.title == (
        "Study quickstart: fvu on the validation split, lower is better, and parameters, lower is "
        "better"
    )


def test_the_stairs_go_down_from_the_best_second_value_whatever_its_direction(story: Any) -> None:
    for number, (value, cosine) in enumerate([(0.4, 0.1), (0.6, 0.3), (0.8, 0.5)]):
        story.short(number, [value], COMPLETE, metrics={"validation/cosine": cosine})
    spec = {**SPEC, "objective": {"metrics": ["fvu", "cosine"]}}
    shown = _picture(story.records(spec=spec))
    assert shown.across is not None
    stairs = list(zip(*shown.across.stairs, strict=True))
    assert stairs == [(0.5, 0.8), (0.3, 0.8), (0.3, 0.6), (0.1, 0.6), (0.1, 0.4)]


def test_the_names_of_the_second_axis_are_few_and_short(story: Any) -> None:
    story.short(0, [0.8], COMPLETE, **_of(60_000)).short(1, [0.7], COMPLETE, **_of(220_000))
    shown = _picture(story.records(spec=TWO))
    assert shown.across is not None
    assert [*map(tick_label, shown.across.ticks)] == ["100k", "150k", "200k"]
    assert [*map(tick_label, (0, 5, 0.05, 1250, 12_500, 1e6, 2.5e6))] == [
        *("0", "5", "0.05", "1250", "12.5k", "1M", "2.5M"),
    ]


def test_a_second_objective_over_decades_has_a_logarithmic_axis(story: Any) -> None:
    story.short(0, [0.8], COMPLETE, **_of(100)).short(1, [0.7], COMPLETE, **_of(10_000))
    shown = _picture(story.records(spec=TWO))
    assert shown.across is not None
    assert shown.across.logarithmic
    assert shown.result_label.endswith("lower is better (logarithmic)")
    assert shown.across.ticks == [100, 200, 500, 1000, 2000, 5000, 10_000]
    first, last = shown.result_range
    assert math.log(first) == pytest.approx(math.log(100) - 0.06 * math.log(100))
    assert math.log(last) == pytest.approx(math.log(10_000) + 0.06 * math.log(100))


def test_results_that_break_a_constraint_look_different(story: Any) -> None:
    labels = [stroke.label for stroke in _picture(_bounded(story)).results]
    assert labels == ["pruned (1)", "complete, breaks a constraint (2)", "complete (2)"]


@pytest.mark.parametrize("made", [_two, _bounded])
def test_both_painters_paint_it(story: Any, tmp_path: Path, made: Any) -> None:
    shown = _picture(made(story))
    figures.write_png(shown, tmp_path / "a.png")
    figures.write_html(shown, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert shown.result_title in page
    for stroke in shown.results:
        assert stroke.label in page


def _seeds(story: Any, number: int, *pairs: tuple[float, float], usage: float = 0.3) -> None:
    """Trial *number* with a complete full run of each pair: fvu and cosine."""
    story.short(number, [0.9], COMPLETE, metrics={"validation/cosine": 0.1})
    for replicate, (value, cosine) in enumerate(pairs):
        metrics = {"validation/cosine": cosine, "test/cosine": cosine - 0.125}
        metrics["validation/usage_min"] = usage
        story.full(number, [value], COMPLETE, replicate=replicate, metrics=metrics)


FVU_COSINE = {**SPEC, "objective": {"metrics": ["fvu", "cosine"]}}


def test_on_the_front_stand_the_means_over_the_seeds_of_both_objectives(story: Any) -> None:
    _seeds(story, 0, (0.25, 0.5), (0.75, 0.25))
    _seeds(story, 1, (0.625, 0.75), (0.625, 0.75))
    _seeds(story, 2, (0.125, 0.875), (1.375, 0.125))  # lucky once: 0.75 and 0.5, behind trial 1
    story.short(3, [0.875], COMPLETE, metrics={"validation/cosine": 0.9})
    short = _summary(story.records(spec=FVU_COSINE))
    found = [
        (each.trial, each.seeds, each.value, each.second_value, each.second_test_value)
        for each in short.front
    ]
    assert found == [
        (0, 2, 0.5, 0.375, 0.25),
        (1, 2, 0.625, 0.75, 0.625),
        (3, 1, 0.875, 0.9, None),
    ]
    assert short.front[0].spread == pytest.approx(math.sqrt(0.125))
    assert (short.front[1].spread, short.front[2].spread) == (0.0, None)


@pytest.mark.parametrize("state", [PRUNED, RunState.FAILED, RunState.RUNNING])
def test_who_misses_a_seed_is_on_the_front_only_where_no_promoted_trial_is_whole(
    story: Any, state: RunState
) -> None:
    changes = {"end_class": EndClass.DIVERGED} if state == PRUNED else {}
    _seeds(story, 0, (0.125, 0.9))
    story.full(0, [], state, replicate=1, **changes)
    story.short(1, [0.75], COMPLETE, metrics={"validation/cosine": 0.95})
    alone = _summary(story.records(spec=FVU_COSINE)).front
    assert [(each.trial, each.kind) for each in alone] == [(0, "full"), (1, "short")]
    _seeds(story, 2, (0.5, 0.5))
    whole = _summary(story.records(spec=FVU_COSINE)).front
    assert [(each.trial, each.kind) for each in whole] == [(2, "full"), (1, "short")]


def test_a_seed_without_a_second_value_keeps_its_trial_from_the_front(story: Any) -> None:
    _seeds(story, 0, (0.125, 0.9), (0.125, math.nan))
    _seeds(story, 1, (0.5, 0.5))
    assert [each.trial for each in _summary(story.records(spec=FVU_COSINE)).front] == [1]


def test_one_seed_that_breaks_a_constraint_breaks_it(story: Any) -> None:
    _seeds(story, 0, (0.25, 0.5), (0.25, 0.5))
    dead = {"validation/usage_min": 0.02}
    story.full(0, [0.25], COMPLETE, replicate=2, metrics=dead)
    records = story.records(spec=BOUNDED)
    with pytest.raises(StudyError) as raised:
        winner.exported(records)
    assert str(raised.value) == (
        "study quickstart: no trial meets the constraints; trial 0 comes nearest: it breaks "
        "usage_min >= 0.05 (0.02); --trial N exports one all the same"
    )
    _seeds(story, 1, (0.5, 0.5), (0.75, 0.5))
    short = _summary(story.records(spec=BOUNDED))
    assert short.best is not None
    assert (short.best.trial, short.best.value, short.infeasible) == (1, 0.625, [0])
    assert "trial 0 breaks a constraint" in short.warnings


def test_a_seed_without_a_result_breaks_no_constraint(story: Any) -> None:
    _seeds(story, 0, (0.25, 0.5))
    dead = {"validation/usage_min": 0.02}
    story.full(0, [0.25], RunState.RUNNING, replicate=1, metrics=dead)
    short = _summary(story.records(spec=BOUNDED))
    assert short.best is not None
    assert (short.best.trial, short.best.seeds, short.infeasible) == (0, 1, [])


def test_a_named_trial_of_a_front_is_exported_with_what_its_seeds_are_together(story: Any) -> None:
    _seeds(story, 0, (0.25, 0.5), (0.75, 0.25))
    _seeds(story, 1, (0.625, 0.75), (0.625, 0.75))
    records = story.records(spec=FVU_COSINE)
    with pytest.raises(
        StudyError, match=r"say which with --trial N: 0 \(fvu 0.5, cosine 0.375\), "
    ):
        winner.exported(records)
    origin = winner.exported(records, 0)[configuration.PROVENANCE_SECTION]
    assert (origin["value"], origin["judged_by"]) == (0.25, {"cosine": 0.5})
    assert (origin["over_seeds"]["mean"], origin["over_seeds"]["complete"]) == (0.5, 2)


def test_a_star_over_several_seeds_stands_at_the_mean_of_both_objectives(story: Any) -> None:
    _seeds(story, 0, (0.25, 0.5), (0.75, 0.25))
    story.full(0, [0.5], RunState.RUNNING, replicate=2, metrics={"validation/cosine": 0.9})
    _seeds(story, 1, (0.625, 0.75))
    shown = _picture(story.records(spec=FVU_COSINE))
    assert [(star.x, star.y, star.label) for star in shown.stars] == [
        (0.375, 0.5, "trial 0, 2 of 3 seeds"),
        (0.75, 0.625, "trial 1"),
    ]
    assert shown.across is not None
    assert shown.across.front is not None
    assert shown.across.front.notes == [
        "trial 1, on the front: fvu 0.625, cosine 0.75",
    ]
