"""Whether short runs tell which full runs are good."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cubeopt.db.tables import RunState
from cubeopt.report import agreement
from cubeopt.report.summary import summarize

VALUES = st.lists(st.integers(0, 6).map(float), min_size=4, max_size=12)


def told(story: Any, pairs: list[tuple[float, float]], state: RunState = RunState.COMPLETE) -> Any:
    for number, (short, full) in enumerate(pairs):
        story.short(number, [9.0, short], RunState.COMPLETE)
        story.full(number, [full], state)
    return story.records()


@given(some=VALUES, seed=st.randoms(use_true_random=False))
def test_it_is_spearmans_correlation_with_ties(some: list[float], seed: Any) -> None:
    others = [float(seed.randint(0, 6)) for _ in some]
    found = agreement._spearman(some, others)
    if len(set(some)) == 1 or len(set(others)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(some, others).statistic)


def test_only_trials_with_both_runs_complete_count(story: Any) -> None:
    records = told(story, [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7), (0.4, 0.8)])
    story.short(4, [0.9, 0.5], RunState.COMPLETE)
    story.short(5, [0.9], RunState.PRUNED)
    found = agreement.agreement(records.runs)
    assert found.pairs == 4
    assert found.spearman == pytest.approx(1.0)


def test_few_pairs_say_nothing(story: Any) -> None:
    found = agreement.agreement(told(story, [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]).runs)
    assert (found.pairs, found.spearman) == (3, None)
    assert agreement.agreement([]).pairs == 0


def test_a_full_run_that_did_not_end_well_is_no_pair(story: Any) -> None:
    found = agreement.agreement(told(story, [(0.1, math.nan)] * 5, RunState.FAILED).runs)
    assert found.pairs == 0


def test_a_low_correlation_is_a_warning_and_a_high_one_is_not(story: Any) -> None:
    records = told(story, [(0.1, 0.8), (0.2, 0.7), (0.3, 0.6), (0.4, 0.5)])
    summary = summarize(records.study, records.trials, records.runs)
    assert summary.short_and_full.spearman == pytest.approx(-1.0)
    (warning,) = [each for each in summary.warnings if "rank correlation" in each]
    assert "rank correlation -1.00 over 4 trials" in warning


def test_a_high_correlation_is_no_warning(story: Any) -> None:
    records = told(story, [(0.1, 0.5), (0.2, 0.6), (0.3, 0.8), (0.4, 0.7)])
    summary = summarize(records.study, records.trials, records.runs)
    assert not [each for each in summary.warnings if "rank correlation" in each]


def test_the_runs_from_nothing_with_other_seeds_do_not_count(story: Any) -> None:
    records = told(story, [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7), (0.4, 0.8)])
    for number in range(4):
        story.full(number, [0.9 - 0.1 * number], RunState.COMPLETE, replicate=1)
    for values in (None, {run.id: run.value for run in records.runs}):
        assert agreement.agreement(records.runs, values).spearman == pytest.approx(1.0)


def test_pairs_are_the_trials_of_which_both_runs_are_complete(story: Any) -> None:
    records = told(story, [(0.5, 0.4), (0.6, 0.7)])
    story.short(7, [9.0, 0.1], RunState.COMPLETE)
    assert agreement.pairs(records.runs) == [
        agreement.Pair(0, 0.5, 0.4),
        agreement.Pair(1, 0.6, 0.7),
    ]


def test_the_interval_is_that_of_bonett_and_wright() -> None:
    low, high = agreement.interval(agreement.Agreement(28, 0.6)) or (0.0, 0.0)
    # atanh 0.6 = 0.693147; its standard error is sqrt((1 + 0.18) / 25) = 0.217256.
    assert (round(low, 4), round(high, 4)) == (0.2611, 0.8072)
    assert agreement.interval(agreement.Agreement(4, 1.0)) is None
    assert agreement.interval(agreement.Agreement(3, None)) is None
