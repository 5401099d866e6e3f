"""How long a study will go on, from what it has done so far; nothing where that would be a guess.

What is left of the budget of trials is counted in epochs: a trial to come costs what those that
ended have cost in the mean, prunings included, and one trial in so many is promoted as so far. A
sampler that gets better prunes fewer, and at the end fewer workers have something to do, so the
truth is rather more. Any other budget ends the study where it is spent.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cubeopt.db.budgets import Account
from cubeopt.db.chronicle import Pace
from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.search.study import Promotion, Rungs
from cubeopt.trial import Plan

FEWEST = 5  # trials that have ended, and epochs of late: below, the mean says little
WINDOW_SECONDS = 900.0  # over which the pace is taken
_OPEN = (RunState.WAITING, RunState.RUNNING)


@dataclass(frozen=True)
class Outlook:
    """What is left of a study that runs."""

    epochs: float | None  # until the trials and their full runs have ended
    epochs_per_minute: float | None
    seconds: float | None
    ends: str | None  # what ends it: a budget's name
    why_not: str | None  # no seconds are given


def outlook(
    spec: Mapping[str, Any],
    runs: Sequence[RunRecord],
    budgets: Sequence[Account],
    pace: Pace,
    devices: int,
) -> Outlook:
    """Of a study that runs; *devices* are the workers that hold its runs now."""
    rate = pace.rate
    minute = None if rate is None else 60.0 * rate
    if not devices or rate is None:
        return Outlook(None, minute, None, None, "nothing of it is being trained")
    accounts = {each.name: each for each in budgets}
    ended = [run for run in runs if run.kind == RunKind.SHORT and run.state not in _OPEN]
    to_come = None
    complete = any(run.state == RunState.COMPLETE for run in ended)
    if "trials" in accounts and len(ended) >= FEWEST and complete:
        to_come = _to_come(spec, runs, ended, accounts["trials"])
    ways = _ways(accounts, to_come, rate, devices)
    if pace.epochs < FEWEST:
        ways = {name: each for name, each in ways.items() if name == "hours"}
    if ("trials" in accounts and to_come is None) or not ways:
        why = (
            f"not known until {FEWEST} trials have ended, one of them complete, and {FEWEST} "
            f"epochs were recorded in {WINDOW_SECONDS / 60.0:.0f} min"
        )
        return Outlook(to_come, minute, None, None, why)
    ends = min(ways, key=lambda name: ways[name])
    return Outlook(to_come, minute, ways[ends], ends, None)


def _ways(
    accounts: Mapping[str, Account], to_come: float | None, rate: float, devices: int
) -> dict[str, float]:
    """Seconds until each budget is spent."""
    found = {} if to_come is None else {"trials": to_come / rate}
    per_unit = {"epochs": 1.0 / rate, "hours": 3600.0, "device_hours": 3600.0 / devices}
    for name, seconds in per_unit.items():
        if name in accounts:
            found[name] = accounts[name].left * seconds
    return found


def _to_come(
    spec: Mapping[str, Any],
    runs: Sequence[RunRecord],
    ended: Sequence[RunRecord],
    trials: Account,
) -> float:
    """Epochs until every trial, and what will be promoted, has ended."""
    mean = statistics.fmean(run.epoch for run in ended)
    open_short = [run for run in runs if run.kind == RunKind.SHORT and run.state in _OPEN]
    unasked = max(0.0, trials.limit - len(ended) - len(open_short))
    short = unasked * mean + sum(max(0.0, mean - run.epoch) for run in open_short)
    full = [run for run in runs if run.kind == RunKind.FULL]
    begun = sum(run.target_epochs - run.epoch for run in full if run.state in _OPEN)
    return short + begun + _unpromoted(spec, full, ended, trials.limit) * _full_epochs(spec)


def _unpromoted(
    spec: Mapping[str, Any], full: Sequence[RunRecord], ended: Sequence[RunRecord], trials: float
) -> float:
    """Trials that will be promoted yet."""
    promotion = Promotion.model_validate(spec.get("promotion", {}))
    complete = sum(run.state == RunState.COMPLETE for run in ended)
    expected = max(trials, len(ended)) * complete / len(ended)
    if promotion.reduction_factor is None:
        due = min(float(promotion.top or 0), math.ceil(expected))
    else:
        due = math.floor(expected / promotion.reduction_factor)
    return max(0.0, due - len({run.trial_number for run in full}))


def _full_epochs(spec: Mapping[str, Any]) -> int:
    """Epochs of a promoted trial beyond its short run."""
    whole = int(spec.get("base", {}).get("epochs", Plan().epochs))
    short = Rungs.model_validate(spec.get("rungs", {})).epochs[-1]
    return whole * Promotion.model_validate(spec.get("promotion", {})).seeds - short
