"""What a comparison says of each arm against the first: in numbers, and in plain words.

Values stand by seed, in the order of the seeds; None where the training diverged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cubeopt.service import evidence
from cubeopt.service.evidence import ALPHA, Evidence


class Verdict(StrEnum):
    """What is shown of an arm against the first."""

    BETTER = "better"
    WORSE = "worse"
    NOTHING = "no difference shown"
    NO_ANSWER = "no answer"  # too few pairs, or the arm with better values diverged elsewhere


@dataclass(frozen=True)
class Outcome:
    """What an arm came to."""

    arm: str
    file: str
    weights: int  # of one trial
    mean: float | None  # of the values; None without one
    deviation: float | None  # of the values; None with fewer than two
    values: Sequence[float | None]  # of the metric
    diverged: Mapping[int, int]  # seed: epoch
    metrics: Sequence[Mapping[str, float] | None]  # all there are, at the last epoch
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """An arm against the first."""

    arm: str
    first: str
    differences: Sequence[float | None]  # the arm's value minus the first's
    evidence: Evidence | None  # None with fewer than two pairs
    p: float | None  # corrected for the number of comparisons
    verdict: Verdict
    words: str


def compare(outcomes: Sequence[Outcome], metric: str, lower_is_better: bool) -> list[Comparison]:
    """Every arm after the first against the first, with Holm's correction over them."""
    first, *others = outcomes
    pairs = [_differences(first, other) for other in others]
    found = [_evidence(differences) for differences in pairs]
    # A comparison without an answer was asked for, too.
    corrected = evidence.holm([1.0 if each is None else each.p for each in found])
    return [
        _comparison(_Case(first, other, differences, each, p, len(others), metric, lower_is_better))
        for other, differences, each, p in zip(others, pairs, found, corrected, strict=True)
    ]


def too_few(pairs: int, comparisons: int, what: str = "seeds") -> str | None:
    """A sentence where so many *pairs* can never show a difference, whatever comes out."""
    least = evidence.least_p(pairs, comparisons)
    if least < ALPHA:
        return None
    holm = f" with Holm's correction for {comparisons} comparisons" if comparisons > 1 else ""
    return (
        f"{pairs} {what} can never show p < {ALPHA}: the smallest p they can reach{holm} is "
        f"{least:.3g}; give --seeds {evidence.pairs_needed(comparisons)} or more"
    )


def method(compared: Sequence[Comparison]) -> list[str]:
    """How the numbers were come by, and what they take for granted."""
    drawn = any(each.evidence is not None and not each.evidence.exact for each in compared)
    flips = (
        f"{evidence.DRAWS} random sign flips of the differences, and the one that was seen"
        if drawn
        else "all 2^n sign flips of the n differences"
    )
    lines = [
        f"p: two-sided, from {flips}; 'better' and 'worse' go by p < {ALPHA} alone",
        "interval: Student's t; it takes the differences for independent and normally distributed, "
        "which few seeds cannot check",
    ]
    if len(compared) > 1:
        lines.append(
            f"every arm is set against the first, and p corrected for {len(compared)} "
            "comparisons (Holm); each interval stands for itself"
        )
    return lines


def diverged(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each arm that diverged, and one that says what became of the pairs."""
    lines = [
        f"{each.arm} diverged with {len(each.diverged)} of {len(each.values)} seeds: "
        + ", ".join(f"{seed} (epoch {epoch})" for seed, epoch in sorted(each.diverged.items()))
        for each in outcomes
        if each.diverged
    ]
    if lines:
        lines.append(
            "a pair with a diverged side is left out of difference, interval and p; an arm that "
            "diverged with some seed is never called better"
        )
    return lines


def no_better_than_mean(outcomes: Sequence[Outcome], metric: str) -> list[str]:
    """A sentence for each arm whose fvu says that it has learned nothing."""
    if metric != "fvu":
        return []
    return [
        f"{each.arm} is no better than predicting the mean, whose fvu is 1"
        for each in outcomes
        if each.mean is not None and each.mean >= 1.0
    ]


@dataclass(frozen=True)
class _Case:
    """All that a verdict looks at."""

    first: Outcome
    other: Outcome
    differences: Sequence[float | None]
    evidence: Evidence | None
    p: float  # corrected for the number of comparisons
    comparisons: int
    metric: str
    lower_is_better: bool

    @property
    def who(self) -> str:
        return f"{self.other.arm} against {self.first.arm}"


def _differences(first: Outcome, other: Outcome) -> list[float | None]:
    return [
        None if here is None or there is None else there - here
        for here, there in zip(first.values, other.values, strict=True)
    ]


def _evidence(differences: Sequence[float | None]) -> Evidence | None:
    whole = [each for each in differences if each is not None]
    return evidence.paired(whole) if len(whole) > 1 else None


def _comparison(case: _Case) -> Comparison:
    verdict, words = _judged(case)
    return Comparison(
        case.other.arm,
        case.first.arm,
        case.differences,
        case.evidence,
        None if case.evidence is None else case.p,
        verdict,
        words,
    )


def _judged(case: _Case) -> tuple[Verdict, str]:
    found = case.evidence
    if found is None:
        whole = sum(each is not None for each in case.differences)
        return Verdict.NO_ANSWER, (
            f"no answer for {case.who}: both stayed finite in {whole} of "
            f"{len(case.differences)} pairs, and two are needed"
        )
    if case.p >= ALPHA:
        return Verdict.NOTHING, f"no difference shown for {case.who}: {_size(case, found)}"
    gains = (found.mean < 0) == case.lower_is_better
    favoured = case.other if gains else case.first
    if favoured.diverged:
        return Verdict.NO_ANSWER, (
            f"no answer for {case.who}: {_size(case, found)} where both stayed finite, but "
            f"{favoured.arm} diverged with {len(favoured.diverged)} of {len(favoured.values)} seeds"
        )
    verdict = Verdict.BETTER if gains else Verdict.WORSE
    return verdict, f"{case.other.arm} is {verdict} than {case.first.arm}: {_size(case, found)}"


def _size(case: _Case, found: Evidence) -> str:
    """The mean difference, as "fvu lower by 0.012 (95 % interval 0.004 to 0.02; p = 0.008)"."""
    if not any(case.differences):
        return f"{case.metric} is equal in every pair"
    whose = "p" if case.comparisons == 1 else "Holm's p"
    word, low, high = "higher", found.low, found.high
    if found.mean < 0:
        word, low, high = "lower", -found.high, -found.low
    return (
        f"{case.metric} {word} by {abs(found.mean):.3g} "
        f"(95 % interval {low:.3g} to {high:.3g}; {whose} = {case.p:.2g})"
    )
