"""Statistics against tables, integrals and plain enumeration."""

import itertools
import math
import random
from fractions import Fraction

import pytest

from cubeopt.service import evidence

PRINTED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 9: 2.262, 30: 2.042, 99: 1.984}


@pytest.mark.parametrize("freedom", PRINTED)
def test_the_bound_of_t_is_that_of_printed_tables(freedom):
    assert evidence.t_bound(0.95, freedom) == pytest.approx(PRINTED[freedom], abs=5e-4)


def density(t, freedom):
    top, bottom = math.lgamma((freedom + 1) / 2), math.lgamma(freedom / 2)
    power = -(freedom + 1) / 2 * math.log1p(t * t / freedom)
    return math.exp(top - bottom + power) / math.sqrt(freedom * math.pi)


@pytest.mark.parametrize("freedom", [1, 2, 3, 8, 15, 99])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_density_of_t_holds_the_confidence_within_the_bound(freedom, confidence):
    bound, pieces = evidence.t_bound(confidence, freedom), 20_000
    width = bound / pieces
    simpson = density(0, freedom) + density(bound, freedom)
    simpson += sum((4 if k % 2 else 2) * density(k * width, freedom) for k in range(1, pieces))
    assert 2 * simpson * width / 3 == pytest.approx(confidence, abs=1e-9)


def test_the_interval_of_a_worked_example():
    # Differences 1..5: mean 3, standard error sqrt(2.5 / 5), t of 4 degrees of freedom 2.776445.
    low, high = evidence.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451051977987 * math.sqrt(0.5)
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-12)


def enumerated(differences):
    """The exact p, written as a count over subsets whose sign is turned, in exact fractions."""
    exact = [Fraction(str(each)) for each in differences]
    total, hits, flips = sum(exact), 0, 0
    for size in range(len(exact) + 1):
        for turned in itertools.combinations(range(len(exact)), size):
            flips += 1
            hits += abs(total - 2 * sum(exact[place] for place in turned)) >= abs(total)
    return hits / flips


@pytest.mark.parametrize("count", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("seed", range(4))
def test_p_counts_every_flip_of_signs(count, seed):
    rng = random.Random(seed)
    # Few decimals, so that sums tie, as those of real differences can.
    differences = [round(rng.gauss(0.1, 0.3), 1) for _ in range(count)]
    assert evidence.sign_flip_p(differences) == enumerated(differences)


def test_p_of_differences_of_one_sign_is_the_smallest_there_is():
    for count in range(2, evidence.EXACT_MOST + 1):
        assert evidence.sign_flip_p([-0.1] * count) == evidence.least_p(count) == 2 / 2**count


def test_p_depends_neither_on_sign_nor_on_order_nor_on_the_unit():
    differences = [0.3, -0.1, 0.25, 0.7, -0.05, 0.2]
    p = evidence.sign_flip_p(differences)
    assert evidence.sign_flip_p([-each for each in differences]) == p
    assert evidence.sign_flip_p(sorted(differences)) == p
    assert evidence.sign_flip_p([1e-7 * each for each in differences]) == p


def test_equal_arms_show_nothing():
    found = evidence.paired([0.0] * 8)
    assert (found.p, found.mean, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)
    assert evidence.sign_flip_p([0.0] * 40) == 1.0


def test_many_pairs_draw_their_flips_and_come_near_the_exact_value():
    rng = random.Random(3)
    differences = [rng.gauss(0.25, 1.0) for _ in range(24)]
    p = evidence.sign_flip_p(differences)
    assert p == evidence.sign_flip_p(differences)
    # All 2^24 flips, as the sums of two halves.
    halves = []
    for half in (differences[:12], differences[12:]):
        signs = itertools.product((-1, 1), repeat=12)
        halves.append(sorted(sum(map(math.prod, zip(half, s, strict=True))) for s in signs))
    exact = beyond(halves, abs(sum(differences))) / 2**24
    assert 0.05 < exact < 0.95
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / evidence.DRAWS))


def beyond(halves, least):
    """Pairs of one number of each sorted half whose sum has size *least* or more."""
    from bisect import bisect_left, bisect_right

    left, right = halves
    near = 1e-9
    return sum(
        len(right) - bisect_left(right, least - near - x) + bisect_right(right, near - least - x)
        for x in left
    )


def test_drawn_flips_are_never_p_of_nought():
    assert evidence.sign_flip_p([1.0] * 60) == 1 / (1 + evidence.DRAWS) == evidence.least_p(60)
    found = evidence.paired([1.0, 1.1] * 30)
    assert (found.exact, found.flips) == (False, evidence.DRAWS)


def test_holm_of_a_worked_example_and_in_any_order():
    assert evidence.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert evidence.holm([0.04, 0.03, 0.01]) == pytest.approx([0.06, 0.06, 0.03])
    assert evidence.holm([0.2]) == [0.2]
    assert evidence.holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_calls_what_the_closed_test_of_bonferroni_calls():
    """Holm rejects a hypothesis when Bonferroni rejects every set of hypotheses with it."""
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.random() ** 3 for _ in range(rng.randint(2, 5))]
        places = range(len(values))
        sets = [s for n in places for s in itertools.combinations(places, n + 1)]
        for place, corrected in enumerate(evidence.holm(values)):
            closed = max(len(s) * min(values[k] for k in s) for s in sets if place in s)
            assert corrected == pytest.approx(min(1.0, closed))


def test_how_many_pairs_can_show_anything():
    assert evidence.least_p(5) == 0.0625
    assert [evidence.pairs_needed(n) for n in (1, 2, 3, 4)] == [6, 7, 7, 8]
    for comparisons in (1, 2, 5, 40):
        needed = evidence.pairs_needed(comparisons)
        same = [evidence.sign_flip_p([1.0] * needed)] * comparisons
        assert max(evidence.holm(same)) < evidence.ALPHA
        fewer = [evidence.sign_flip_p([1.0] * (needed - 1))] * comparisons
        assert min(evidence.holm(fewer)) >= evidence.ALPHA
