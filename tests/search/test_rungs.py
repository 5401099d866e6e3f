"""Who goes on."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubeopt.search.rungs import Standing, promote, prune
from cubeopt.search.study import Promotion, Rungs

ASHA = Rungs(epochs=(1, 2, 5), rule="asha", reduction_factor=3.0)
MEDIAN = Rungs(epochs=(1, 2, 5), rule="median")
VALUES = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
DIRECTIONS = st.sampled_from(["minimize", "maximize"])


def test_asha_keeps_one_in_three_of_those_that_came() -> None:
    others = [0.5, 0.6, 0.7, 0.8, 0.9]  # with this one six results: two go on
    assert not prune(ASHA, 1, 0.45, others, "minimize")
    assert not prune(ASHA, 1, 0.55, others, "minimize")
    assert prune(ASHA, 1, 0.65, others, "minimize")


def test_asha_keeps_the_largest_when_the_study_maximizes() -> None:
    others = [0.5, 0.6, 0.7, 0.8, 0.9]
    assert not prune(ASHA, 1, 0.85, others, "maximize")
    assert prune(ASHA, 1, 0.75, others, "maximize")


def test_the_first_at_a_rung_goes_on_and_the_second_must_beat_it() -> None:
    assert not prune(ASHA, 1, 99.0, [], "minimize")
    assert prune(ASHA, 1, 0.6, [0.5], "minimize")
    assert not prune(ASHA, 1, 0.4, [0.5], "minimize")


def test_an_equal_result_is_among_the_best() -> None:
    assert not prune(ASHA, 1, 0.5, [0.5, 0.5], "minimize")


@given(value=FINITE, others=st.lists(VALUES, max_size=30), direction=DIRECTIONS)
def test_asha_equals_its_definition_by_sorting(
    value: float, others: list[float], direction: str
) -> None:
    worst = math.inf if direction == "minimize" else -math.inf
    everyone = [worst if math.isnan(each) else each for each in [*others, value]]
    everyone.sort(reverse=direction == "maximize")
    cut = everyone[max(1, len(everyone) // 3) - 1]
    goes_on = value <= cut if direction == "minimize" else value >= cut
    assert prune(ASHA, 2, value, others, direction) is not goes_on


@given(value=VALUES, others=st.lists(VALUES, max_size=30), direction=DIRECTIONS)
def test_a_better_result_is_never_pruned_where_a_worse_one_goes_on(
    value: float, others: list[float], direction: str
) -> None:
    step = -1.0 if direction == "minimize" else 1.0
    for rungs in (ASHA, MEDIAN):
        if not prune(rungs, 1, value, others, direction):
            assert not prune(rungs, 1, value + step, others, direction)


def test_median_prunes_what_is_worse_than_the_median_of_the_others() -> None:
    others = [0.2, 0.4, 0.9]
    assert prune(MEDIAN, 2, 0.41, others, "minimize")
    assert not prune(MEDIAN, 2, 0.4, others, "minimize")
    assert prune(MEDIAN, 2, 0.39, others, "maximize")
    assert not prune(MEDIAN, 2, 5.0, [], "minimize")


def test_median_takes_a_nan_of_the_others_for_the_worst() -> None:
    nan = math.nan
    assert not prune(MEDIAN, 1, 0.5, [0.5, nan, nan], "minimize")
    assert prune(MEDIAN, 1, 0.5, [0.4, 0.4, nan], "minimize")
    assert not prune(MEDIAN, 1, 0.5, [0.5, nan, nan], "maximize")


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_below_min_trials_nobody_is_cut(rule: str) -> None:
    rungs = Rungs(epochs=(1, 5), rule=rule, min_trials=4)
    assert not prune(rungs, 1, 9.0, [0.1, 0.2], "minimize")
    assert prune(rungs, 1, 9.0, [0.1, 0.2, 0.3], "minimize")


@pytest.mark.parametrize("rule", ["asha", "median", "none"])
@pytest.mark.parametrize("value", [9.0, math.nan])
def test_the_last_rung_and_epochs_between_rungs_prune_nobody(rule: str, value: float) -> None:
    rungs = Rungs(epochs=(1, 2, 5), rule=rule)
    for epoch in (3, 4, 5):
        assert not prune(rungs, epoch, value, [0.1, 0.2, 0.3], "minimize")


def test_the_rule_none_prunes_nobody() -> None:
    assert not prune(Rungs(epochs=(1, 2), rule="none"), 1, 9.0, [0.1, 0.2, 0.3], "minimize")


@pytest.mark.parametrize("rungs", [ASHA, MEDIAN])
@pytest.mark.parametrize("others", [[], [math.nan], [0.5, 0.6, 0.7]])
def test_a_nan_never_goes_on(rungs: Rungs, others: list[float]) -> None:
    for direction in ("minimize", "maximize"):
        assert prune(rungs, 1, math.nan, others, direction)


def test_promotion_takes_the_best_first_and_of_equals_the_earlier() -> None:
    results = {7: 0.5, 3: 0.5, 4: 0.4, 5: 0.9}
    assert promote(results, Promotion(top=3), "minimize") == [4, 3, 7]
    assert promote(results, Promotion(top=2), "maximize") == [5, 3]


def test_promotion_leaves_out_the_unfinished_and_the_diverged() -> None:
    assert promote({0: None, 1: math.nan, 2: 0.7}, Promotion(top=3), "minimize") == [2]
    assert promote({}, Promotion(top=1), "minimize") == []
    assert promote({0: 0.1}, Promotion(top=0), "minimize") == []


LAST, FIRST = (9.0, [0.1, 0.2, 0.3]), (0.1, [0.2, 0.3, 0.4])  # of four: fails, passes


@pytest.mark.parametrize(
    ("patience", "at", "before", "cut"),
    [
        (0, LAST, [], True),
        (0, LAST, [FIRST], True),  # without patience nothing but this rung counts
        (1, LAST, [], False),  # at the first rung one failure is forgiven
        (1, LAST, [LAST], True),  # the second in a row
        (1, LAST, [FIRST], False),
        (1, FIRST, [LAST], False),
        (2, LAST, [LAST], False),
        (2, LAST, [LAST, LAST], True),
        (2, LAST, [LAST, FIRST], False),
        (2, LAST, [FIRST, LAST], False),  # not in a row
        (2, LAST, [LAST, LAST, FIRST], True),  # what was before the row does not matter
    ],
)
@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_trial_is_cut_when_it_fails_once_more_in_a_row_than_patience_forgives(
    rule: str, patience: int, at: Any, before: Any, cut: bool
) -> None:
    rungs = Rungs(epochs=(1, 2, 3, 4, 5), rule=rule, patience=patience)
    standings = [Standing(*each) for each in before]
    assert prune(rungs, 4, *at, "minimize", standings) is cut


def test_a_rung_with_too_few_results_breaks_the_row_of_failures() -> None:
    rungs = Rungs(epochs=(1, 2, 3, 5), patience=1, min_trials=4)
    few = Standing(9.0, [0.1, 0.2])
    assert not prune(rungs, 2, 9.0, [0.1, 0.2, 0.3], "minimize", [few])
    assert prune(rungs, 2, 9.0, [0.1, 0.2, 0.3], "minimize", [Standing(9.0, [0.1, 0.2, 0.3])])


def test_no_patience_helps_a_nan() -> None:
    rungs = Rungs(epochs=(1, 2, 5), patience=1)
    assert prune(rungs, 1, math.nan, [0.5], "minimize", [])


def test_by_a_factor_the_best_floor_of_n_over_eta_are_due() -> None:
    promotion = Promotion(reduction_factor=3.0)
    results = {0: 0.5, 1: 0.4}
    assert promote(results, promotion, "minimize") == []  # floor(2/3)
    results |= {2: 0.6, 3: None, 4: math.nan}
    assert promote(results, promotion, "minimize") == [1]  # floor(3/3)
    results |= {5: 0.1, 6: 0.2}
    assert promote(results, promotion, "minimize") == [5]  # floor(5/3): trial 1 was, and stays so
    results |= {7: 0.9}
    assert promote(results, promotion, "minimize") == [5, 6]
    assert promote(results, promotion, "maximize") == [7, 2]
