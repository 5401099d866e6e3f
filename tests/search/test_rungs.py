"""Who goes on."""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubeopt.db.standings import Rising
from cubeopt.search.objective import goal_of
from cubeopt.search.rungs import (
    Met,
    Place,
    Standing,
    bar,
    ends,
    nearest,
    promote,
    promoted,
    prune,
    prune_between,
)
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


@given(value=FINITE, others=st.lists(FINITE, max_size=12), direction=DIRECTIONS)
def test_the_bar_is_the_worst_value_that_goes_on(
    value: float, others: list[float], direction: str
) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    for rungs in (ASHA, MEDIAN, ASHA.model_copy(update={"min_trials": 5})):
        found = bar(rungs, 1, others, direction)
        goes_on = not prune(rungs, 1, value, others, direction)
        assert goes_on == (found is None or sign * value <= sign * found)


def test_the_last_rung_and_the_rule_none_have_no_bar() -> None:
    assert bar(ASHA, 5, [0.1, 0.2], "minimize") is None
    assert bar(Rungs(epochs=(1, 2), rule="none"), 1, [0.1, 0.2], "minimize") is None


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


BOTH = goal_of({"objective": {"metrics": ["fvu", "parameters"]}})


def met(value: float, metrics: Any, others: Any) -> Met:
    return Met(value, metrics, [each for each, _ in others], [each for _, each in others])


def of(fvu: float | None, parameters: float, usage: float = 0.3) -> dict[str, float | None]:
    return {"validation/fvu": fvu, "parameters": parameters, "validation/usage_min": usage}


def test_with_two_objectives_a_trial_goes_on_by_its_front_and_then_by_its_gap() -> None:
    # Two of six go on. The others: ends (1, 9) and (9, 1), between them (2, 5); behind (5, 6).
    others = [(1.0, 9.0), (9.0, 1.0), (2.0, 5.0), (5.0, 6.0), (9.0, 9.0)]
    assert not prune_between(ASHA, 1, (0.5, 9.5), others)  # a new end
    assert not prune_between(ASHA, 1, (0.5, 0.5), others)  # alone on its front
    assert prune_between(ASHA, 1, (4.0, 4.0), others)  # on the front, but both ends are before it
    assert prune_between(ASHA, 1, (9.0, 8.0), others)
    assert prune_between(ASHA, 1, None, others)  # a number is missing
    assert not prune_between(ASHA, 5, (99.0, 99.0), others)  # the last rung cuts nobody
    assert not prune_between(ASHA, 1, (99.0, 99.0), [])  # the first there goes on


def test_with_two_objectives_the_median_rule_ends_who_has_more_than_half_before_it() -> None:
    others = [(1.0, 9.0), (9.0, 1.0), (6.0, 6.0), (7.0, 7.0)]
    assert not prune_between(MEDIAN, 1, (4.0, 5.0), others)  # both ends: half
    assert prune_between(MEDIAN, 1, (6.5, 6.5), others)  # both ends and (6, 6)


def test_a_rung_compares_what_the_metrics_say_and_knows_the_direction() -> None:
    goal = goal_of({"objective": {"metrics": ["effective_rank", "parameters"]}})

    def rank(value: float, parameters: float) -> dict[str, float]:
        return {"validation/effective_rank": value, "parameters": parameters}

    others = [(each["validation/effective_rank"], each) for each in (rank(5, 9), rank(2, 1))]
    assert ends(ASHA, goal, 1, met(1.0, rank(1, 10), others))
    assert not ends(ASHA, goal, 1, met(6.0, rank(6, 10), others))
    assert not ends(ASHA, goal, 1, met(6.0, rank(6, 9), others))


def test_a_rung_cuts_who_costs_too_much_and_compares_nobody_with_it() -> None:
    goal = goal_of({"constraints": ["parameters <= 100", "usage_min >= 0.05"]})
    costly, cheap = (0.1, of(0.1, 500)), (0.8, of(0.8, 50))
    assert ends(ASHA, goal, 1, met(0.1, of(0.1, 500), []))
    assert not ends(ASHA, goal, 1, met(0.9, of(0.9, 50), [costly, costly]))  # alone among its like
    assert ends(ASHA, goal, 1, met(0.9, of(0.9, 50), [costly, cheap]))
    never = Rungs(epochs=(1, 2, 5), rule="none")
    assert not ends(never, goal, 1, met(0.1, of(0.1, 500), []))
    assert not ends(ASHA, goal, 5, met(0.1, of(0.1, 500), []))


def test_a_rung_does_not_cut_for_what_training_may_mend() -> None:
    goal = goal_of({"constraints": ["usage_min >= 0.05"]})
    dead = of(0.1, 50, usage=0.0)
    assert not ends(ASHA, goal, 1, met(0.1, dead, [(0.5, of(0.5, 50))]))
    assert ends(ASHA, goal, 1, met(0.5, of(0.5, 50), [(0.1, dead)]))  # and it counts for the others


def test_promotion_goes_front_by_front_and_takes_the_ends_first() -> None:
    results = {
        0: (0.5, of(0.5, 90)),
        1: (0.3, of(0.3, 100)),
        2: (0.4, of(0.4, 95)),  # between 0 and 1
        3: (0.6, of(0.6, 95)),  # behind 0
        4: (None, of(None, 10)),
        5: (0.3, of(0.3, 100)),  # as 1
    }
    orders = [promoted(BOTH, Promotion(top=top), results) for top in (1, 3, 4, 9)]
    assert orders == [[0], [0, 1, 5], [0, 1, 5, 2], [0, 1, 5, 2, 3]]


def test_who_breaks_a_constraint_is_never_promoted() -> None:
    results = {0: (0.1, of(0.1, 50, usage=0.0)), 1: (0.4, of(0.4, 50)), 2: (0.3, of(0.3, 500))}
    for objective in ({"metric": "fvu"}, {"metrics": ["fvu", "parameters"]}):
        constraints = ["usage_min >= 0.05", "parameters <= 100"]
        goal = goal_of({"objective": objective, "constraints": constraints})
        assert promoted(goal, Promotion(top=3), results) == [1]
        assert nearest(goal, results) is None


def test_without_a_feasible_trial_the_nearest_is_named_with_what_it_breaks() -> None:
    goal = goal_of({"constraints": ["usage_min >= 0.05", "parameters <= 100"]})
    results = {3: (0.1, of(0.1, 150, usage=0.04)), 1: (0.4, of(0.4, 171)), 2: (0.3, {})}
    assert promoted(goal, Promotion(top=3), results) == []
    assert nearest(goal, results) == (
        "no trial meets the constraints; trial 3 comes nearest: it breaks usage_min >= 0.05 "
        "(0.04), parameters <= 100 (150)"
    )
    assert nearest(goal, {}) is None


def test_patience_with_two_objectives_forgives_a_place_behind_the_fronts_once() -> None:
    rungs = Rungs(epochs=(1, 2, 3, 5), patience=1)
    behind, ahead = Place((9.0, 9.0), [(1.0, 2.0), (2.0, 1.0)]), Place((0.5, 0.5), [(1.0, 2.0)])
    assert not prune_between(rungs, 1, behind.point, behind.others)
    assert prune_between(rungs, 2, behind.point, behind.others, [behind])
    assert not prune_between(rungs, 2, behind.point, behind.others, [ahead])
    assert prune_between(rungs, 2, None, [], [ahead])
    goal = goal_of({"objective": {"metrics": ["fvu", "parameters"]}})
    here = met(9.0, of(9.0, 90), [(0.1, of(0.1, 20)), (0.2, of(0.2, 10))])
    assert not ends(rungs, goal, 1, here)
    assert ends(rungs, goal, 2, here, [here])


def test_by_a_factor_a_share_of_the_results_on_fronts_is_due() -> None:
    reached = {number: (number, of(number, 100 - number)) for number in range(4)}
    due = promoted(BOTH, Promotion(reduction_factor=2.0), reached)
    assert len(due) == 2
    assert set(due) == {0, 3}  # both ends of the front


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("rule", ["asha", "median"])
def test_values_that_rise_are_judged_as_any_others(rule: str, direction: str) -> None:
    generator, rungs = random.Random(1), Rungs(epochs=(1, 2), rule=rule)
    for _ in range(300):
        values = sorted(generator.randrange(8) / 4 for _ in range(generator.randrange(12)))
        value = generator.randrange(8) / 4
        said = [prune(rungs, 1, value, each, direction) for each in (values, Rising(values))]
        assert said[0] == said[1], (values, value)
