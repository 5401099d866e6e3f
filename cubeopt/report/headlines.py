"""What stands at the top of every page of a study."""

from datetime import UTC, datetime

from cubeopt.report.agreement import Agreement
from cubeopt.report.protocol import Protocol


def verdict(told: Protocol) -> tuple[str, str]:
    """How good the result is, and the sentence that says so."""
    if not told.winners:
        return ("fair", "No result yet") if told.goes_on else ("bad", "No result")
    if len(told.winners) > 1:
        return "good", f"A front of {len(told.winners)} trials in {told.metric} and {told.second}"
    best = told.winners[0]
    sentence = f"Best: trial {best.trial} with {told.metric} {best.value:.4f}"
    sign = 1.0 if told.direction == "minimize" else -1.0
    beaten = [e for e in told.baselines if e.difference is not None and sign * e.difference < 0]
    missed = [e for e in told.baselines if e not in beaten]
    if beaten:
        sentence += f", better than {_named([e.label for e in beaten])}"
    if missed:
        sentence += f", but no better than {_named([e.label for e in missed])}"
    return ("fair" if missed else "good"), sentence


def _named(labels: list[str]) -> str:
    return " and ".join(labels) if len(labels) < 3 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def tiles(told: Protocol, agreed: Agreement) -> list[tuple[str, str, str]]:
    """The few numbers that stand at the top: name, value, note."""
    tried = told.tried
    total = sum(tried.trials.values())
    states = ", ".join(f"{count:,} {state}" for state, count in tried.trials.items() if count)
    tiles = [("trials", f"{total:,}", states)]
    full = f"{tried.full_runs:,} full run{'s' * (tried.full_runs != 1)}"
    tiles.append(("epochs", f"{tried.epochs:,}", f"of short runs and {full}"))
    note = f"{tried.workers:,} worker{'s' * (tried.workers != 1)}; side by side counts once"
    tiles.append(("device time", duration(tried.device_seconds), note))
    tiles.append(("from first to last", duration(tried.seconds), moment(tried.first)))
    if agreed.spearman is not None:
        pairs = f"rank correlation over {agreed.pairs} trials"
        tiles.append(("short and full runs", f"{agreed.spearman:.2f}", pairs))
    return tiles


def duration(seconds: float) -> str:
    """ "2.31 min", "4.1 h"."""
    for name, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def moment(said: str | None) -> str:
    """A moment of ISO 8601 as people write it: "2026-11-24 15:40 UTC"."""
    if said is None:
        return "not yet"
    return f"{datetime.fromisoformat(said).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
