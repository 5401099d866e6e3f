"""What is said of paired values, in plain words."""

from dataclasses import replace

import pytest

from cubeopt.service import verdict
from cubeopt.service.verdict import Outcome, Verdict

STEPS = [0.010, 0.012, 0.014, 0.011, 0.013, 0.012, 0.011, 0.013]


def outcome(arm, values, diverged=()):
    return Outcome(
        arm=arm,
        file=f"{arm}.yaml",
        weights=10,
        mean=None,
        deviation=None,
        values=[None if seed in diverged else value for seed, value in enumerate(values)],
        diverged={seed: 2 for seed in diverged},
        metrics=[],
        configuration={},
    )


FIRST = outcome("A", [0.5] * 8)


def shifted(arm="B", steps=STEPS, sign=-1, diverged=()):
    return outcome(arm, [0.5 + sign * step for step in steps], diverged)


def words(*others, metric="fvu", lower=True, first=FIRST):
    return [each.words for each in verdict.compare([first, *others], metric, lower)]


def verdicts(*others, first=FIRST):
    return [each.verdict for each in verdict.compare([first, *others], "fvu", True)]


def test_lower_is_better_for_fvu():
    assert words(shifted()) == [
        "B is better than A: fvu lower by 0.012 (95 % interval 0.0109 to 0.0131; p = 0.0078)"
    ]
    assert words(shifted(sign=1)) == [
        "B is worse than A: fvu higher by 0.012 (95 % interval 0.0109 to 0.0131; p = 0.0078)"
    ]


def test_higher_is_better_for_the_others():
    assert words(shifted(sign=1), metric="cosine", lower=False) == [
        "B is better than A: cosine higher by 0.012 (95 % interval 0.0109 to 0.0131; p = 0.0078)"
    ]
    (found,) = verdict.compare([FIRST, shifted()], "cosine", False)
    assert found.verdict is Verdict.WORSE


def test_what_chance_brings_shows_nothing():
    wavering = shifted(steps=[0.01, -0.02, 0.015, -0.005, 0.02, -0.01, 0.004, -0.003])
    assert words(wavering) == [
        "no difference shown for B against A: fvu lower by 0.00138 "
        "(95 % interval -0.00984 to 0.0126; p = 0.8)"
    ]
    assert words(outcome("B", [0.5] * 8)) == [
        "no difference shown for B against A: fvu is equal in every pair"
    ]


def test_several_arms_are_corrected_for_their_number():
    barely = shifted("C", steps=[*STEPS[:6], -0.0005, -0.0001])  # p of 4 flips in 256, alone
    both = verdict.compare([FIRST, shifted(), barely], "fvu", True)
    assert [each.evidence.p for each in both] == [2 / 256, 8 / 256]
    assert [each.p for each in both] == [4 / 256, 8 / 256]
    assert both[0].words.endswith("; Holm's p = 0.016)")
    five = [shifted(name, steps=[*STEPS[:7], -0.0001]) for name in "BCDEF"]
    assert set(verdicts(*five)) == {Verdict.NOTHING}
    assert verdicts(five[0]) == [Verdict.BETTER]


def test_few_pairs_are_told_what_they_cannot_show():
    assert verdict.too_few(6, 1) is None
    assert verdict.too_few(5, 1) == (
        "5 seeds can never show p < 0.05: the smallest p they can reach is 0.0625; "
        "give --seeds 6 or more"
    )
    assert verdict.too_few(6, 2).endswith("for 2 comparisons is 0.0625; give --seeds 7 or more")


def test_pairs_with_a_diverged_side_are_left_out():
    lost = shifted(sign=1, diverged=(0, 1))
    (found,) = verdict.compare([FIRST, lost], "fvu", True)
    assert found.differences[:2] == [None, None]
    assert found.evidence.pairs == 6
    assert found.verdict is Verdict.WORSE
    assert verdict.diverged([FIRST, lost]) == [
        "B diverged with 2 of 8 seeds: 0 (epoch 2), 1 (epoch 2)",
        "a pair with a diverged side is left out of difference, interval and p; an arm that "
        "diverged with some seed is never called better",
    ]
    assert verdict.diverged([FIRST]) == []


def test_an_arm_that_diverged_is_never_called_better():
    assert words(shifted(diverged=(3,))) == [
        "no answer for B against A: fvu lower by 0.0121 (95 % interval 0.0109 to 0.0134; "
        "p = 0.016) where both stayed finite, but B diverged with 1 of 8 seeds"
    ]
    unsteady = outcome("A", [0.5] * 8, diverged=(7,))
    assert verdicts(shifted(sign=1), first=unsteady) == [Verdict.NO_ANSWER]
    assert verdicts(shifted(), first=unsteady) == [Verdict.BETTER]


@pytest.mark.parametrize("diverged", [range(7), range(8)])
def test_fewer_than_two_pairs_give_no_answer_and_still_count(diverged):
    lost = shifted("C", diverged=diverged)
    first, second = verdict.compare([FIRST, shifted(), lost], "fvu", True)
    assert first.p == 2 * first.evidence.p
    assert (second.verdict, second.evidence, second.p) == (Verdict.NO_ANSWER, None, None)
    assert f"in {8 - len(diverged)} of 8 pairs" in second.words


def test_an_arm_that_learned_nothing_is_told():
    useless, mean = (
        replace(FIRST, mean=1.2),
        "is no better than predicting the mean, whose fvu is 1",
    )
    assert verdict.no_better_than_mean([useless, replace(shifted(), mean=0.9)], "fvu") == [
        f"A {mean}"
    ]
    assert verdict.no_better_than_mean([useless], "effective_rank") == []


def test_the_method_names_what_it_takes_for_granted():
    few = verdict.compare([FIRST, shifted()], "fvu", True)
    assert "all 2^n sign flips" in verdict.method(few)[0]
    assert "normally distributed" in verdict.method(few)[1]
    many = [outcome("A", [0.5] * 30), outcome("B", [0.4] * 30), outcome("C", [0.3] * 30)]
    lines = verdict.method(verdict.compare(many, "fvu", True))
    assert "99999 random sign flips" in lines[0]
    assert "2 comparisons (Holm)" in lines[2]
