"""What the course of a training says: findings from its epochs' rows, each in a plain sentence.

A row maps names of metrics to numbers, as the loop reports them at the end of an epoch (None where
a number was not finite), with "epoch" beside them. Epochs without a validation have no
``validation/...``.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate

Row = Mapping[str, int | float | None]

PATIENCE = 5  # validated epochs: shorter calms are common while a training still goes on
SETTLED = 0.005  # of fvu: another seed of the same training moves its end by about as much
TREND = 0.01  # of a loss: the mean of an epoch moves by less from one draw of batches to another
FULL_RATE = 0.5  # of the highest rate so far: below it a schedule has begun to settle the weights
LEAP = 2.0  # times the best training loss so far: no noise of an epoch's mean, a loss of control
IDLE_PERCENT = 1.0  # of usage: an expert that gives less could be left out unseen
IDLE_EPOCHS = 3  # a gate may waver for one
SILENT = 1e-5  # of the whole gradient's norm: with one clip for all such a module stands still
LEARNING_EPOCHS = 3  # by then a training that learns has beaten the mean


class Kind(StrEnum):
    """What can be found."""

    DIVERGED = "diverged"  # a number is NaN or infinite
    DIVERGING = "diverging"  # the training loss is far above its best
    WORSE_THAN_MEAN = "worse than the mean"  # a constant would do as well
    OVERFITTING = "overfitting"  # validation gets worse while training gets better
    PLATEAU = "plateau"  # nothing gets better, away from the best, at a high learning rate
    CONVERGED = "converged"  # at its best, which hardly gets better any more
    DEAD_EXPERT = "dead expert"  # an expert that the gate does not use
    DEAD_GRADIENT = "dead gradient"  # a module that learns nothing


@dataclass(frozen=True)
class Finding:
    """Something that a training shows: first seen in epoch *first*, and last in *last*."""

    kind: Kind
    subject: str  # an expert, a module or a metric; "" for the training as a whole
    first: int
    last: int
    sentence: str  # as of the first epoch


def diagnose(rows: Sequence[Row]) -> list[Finding]:
    """Everything that *rows*, all epochs of a training so far, show; the earliest first.

    What later epochs bring may add findings and prolong them, but takes none back.
    """
    found: dict[tuple[Kind, str], Finding] = {}
    for look in _LOOKS:
        for sign in look(rows):
            key = sign.kind, sign.subject
            found[key] = replace(found[key], last=sign.last) if key in found else sign
    order = list(Kind)
    return sorted(found.values(), key=lambda each: (each.first, order.index(each.kind)))


def _sign(kind: Kind, subject: str, row: Row, sentence: str) -> Finding:
    """A finding in one epoch."""
    epoch = row["epoch"]
    assert epoch is not None, "every row has its epoch"
    return Finding(kind, subject, int(epoch), int(epoch), sentence)


def _diverged(rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        wrong = [name for name, value in row.items() if value is None or not math.isfinite(value)]
        if wrong:
            yield _sign(
                Kind.DIVERGED,
                "",
                row,
                f"{wrong[0]} is NaN or infinite; lower learning_rate or gradient_clip",
            )


def _diverging(rows: Sequence[Row]) -> Iterator[Finding]:
    held = _having(rows, "train/loss/reconstruction")
    losses = [_number(row, "train/loss/reconstruction") for row in held]
    for row, loss, best in zip(held, losses, accumulate(losses, min), strict=True):
        if loss > LEAP * best:
            yield _sign(
                Kind.DIVERGING,
                "",
                row,
                f"the training's reconstruction loss is {loss:.3g}, its best was {best:.3g}; "
                "lower learning_rate or gradient_clip",
            )


def _worse_than_mean(rows: Sequence[Row]) -> Iterator[Finding]:
    held = _having(rows, "validation/fvu")
    fvus = [_number(row, "validation/fvu") for row in held]
    for row, fvu, best in zip(held, fvus, accumulate(fvus, min), strict=True):
        if _number(row, "epoch") >= LEARNING_EPOCHS and fvu >= 1.0:
            course = (
                "nothing is learned yet; look at reconstruction_weight and learning_rate"
                if best >= 1.0
                else f"it has been better ({best:.4f})"
            )
            sentence = f"validation fvu is {fvu:.4f}, predicting the mean has 1: {course}"
            yield _sign(Kind.WORSE_THAN_MEAN, "", row, sentence)


def _course(rows: Sequence[Row]) -> Iterator[Finding]:
    """Overfitting, plateau or converged: at most one of them in an epoch."""
    held = _having(rows, "validation/fvu", "train/loss/reconstruction")
    fvus = [_number(row, "validation/fvu") for row in held]
    losses = list(accumulate((_number(row, "train/loss/reconstruction") for row in held), min))
    bests = list(accumulate(fvus, min))
    rates = [row.get("learning_rate") or math.nan for row in held]
    highest = list(accumulate(rates, max))
    for now in range(PATIENCE, len(held)):
        before = now - PATIENCE
        gained, fallen = (_gain(series[before], series[now]) for series in (bests, losses))
        if gained >= SETTLED:
            continue
        above = -_gain(bests[now], fvus[now])
        if above > TREND and fallen > TREND:
            kind, sentence = Kind.OVERFITTING, _overfits(fvus[now], bests[now])
        elif above <= SETTLED:
            kind, sentence = Kind.CONVERGED, _settled(fvus[now], gained)
        elif fallen <= TREND and not rates[now] < FULL_RATE * highest[now]:
            kind, sentence = Kind.PLATEAU, _stuck(fvus[now], bests[now])
        else:
            continue
        yield _sign(kind, "", held[now], sentence)


def _gain(before: float, now: float) -> float:
    """By what share a number has fallen."""
    return 1.0 - now / before if before > 0.0 else 0.0


def _overfits(fvu: float, best: float) -> str:
    return (
        f"validation fvu is {fvu:.4f}, above its best of {best:.4f}, and has not bettered it for "
        f"{PATIENCE} validated epochs, while the training loss falls; "
        "raise input_noise, dropout or weight_decay, or train on more data"
    )


def _settled(fvu: float, gained: float) -> str:
    return (
        f"validation fvu {fvu:.4f} is at its best and has gained {100.0 * max(gained, 0.0):.2f} % "
        f"in {PATIENCE} validated epochs; more epochs at this rate will bring little"
    )


def _stuck(fvu: float, best: float) -> str:
    return (
        f"neither validation fvu ({fvu:.4f}, best {best:.4f}) nor the training loss has got better "
        f"for {PATIENCE} validated epochs at a high learning rate; lower it, or wait for its decay"
    )


def _dead_experts(rows: Sequence[Row]) -> Iterator[Finding]:
    prefix = "validation/usage/"
    runs: dict[str, int] = {}  # epochs on end in which an expert was idle
    for row in rows:
        for name in _named(row, prefix):
            usage = _number(row, name)
            runs[name] = runs.get(name, 0) + 1 if usage < IDLE_PERCENT else 0
            if runs[name] >= IDLE_EPOCHS:
                yield _sign(
                    Kind.DEAD_EXPERT,
                    name.removeprefix(prefix),
                    row,
                    f"the expert has had {usage:.2g} % of the choices, for {IDLE_EPOCHS} validated "
                    "epochs under 1 %; raise emergence_weight, or leave it out of experts",
                )


def _dead_gradients(rows: Sequence[Row]) -> Iterator[Finding]:
    prefix = "train/gradient_norm/"
    for row in _having(rows, f"{prefix}all"):
        whole = _number(row, f"{prefix}all")
        for name in _named(row, prefix):
            norm = _number(row, name)
            if name != f"{prefix}all" and norm <= SILENT * whole:
                yield _sign(
                    Kind.DEAD_GRADIENT,
                    name.removeprefix(prefix),
                    row,
                    f"the module's gradient has a mean norm of {norm:.2g}, the whole gradient of "
                    f"{whole:.2g}: it learns nothing",
                )


_LOOKS: tuple[Callable[[Sequence[Row]], Iterator[Finding]], ...] = (
    *(_diverged, _diverging, _worse_than_mean, _course, _dead_experts, _dead_gradients),
)


def _having(rows: Sequence[Row], *names: str) -> list[Row]:
    """The rows in which all of *names* are finite."""
    return [row for row in rows if all(_is_finite(row.get(name)) for name in names)]


def _named(row: Row, prefix: str) -> list[str]:
    """The finite numbers of *row* whose names begin with *prefix*."""
    return [name for name, value in row.items() if name.startswith(prefix) and _is_finite(value)]


def _is_finite(value: int | float | None) -> bool:
    return value is not None and math.isfinite(value)


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert value is not None
    return float(value)
