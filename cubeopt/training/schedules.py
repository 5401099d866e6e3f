"""How the learning rate changes: pure functions of the step, laid out over the full run.

A short trial therefore follows the first part of its full run's schedule; promotion continues it.
Only `plateau` also hears what the validations say: its memory is a value that goes with the trial.
"""

import math
from dataclasses import dataclass

from cubeopt.trial import OptimKnobs

_RESTARTS = 3  # cosine_restarts: periods of 1, 2 and 4 sevenths of the run
_RISE = 0.3  # one_cycle: share of the run until its peak
_FIRST, _LAST = 25.0, 25.0 * 1e4  # one_cycle: what the peak is divided by at both ends
_BETTER = 1e-4  # plateau: smallest relative improvement that counts


@dataclass(frozen=True)
class Plateau:
    """What a trial's `plateau` schedule remembers of its validations."""

    best: float | None = None  # fvu
    waited: int = 0  # validations since then
    factor: float = 1.0  # of the learning rate, by the cuts so far

    def after(self, fvu: float, knobs: OptimKnobs) -> "Plateau":
        """As torch's ReduceLROnPlateau goes on after a validation."""
        if self.best is None or fvu < self.best * (1.0 - _BETTER):
            return Plateau(fvu, 0, self.factor)
        if self.waited + 1 > knobs.plateau_patience:
            return Plateau(self.best, 0, self.factor * knobs.plateau_factor)
        return Plateau(self.best, self.waited + 1, self.factor)


def multiplier(
    knobs: OptimKnobs, step: int, total_steps: int, plateau: Plateau | None = None
) -> float:
    """What the learning rate is multiplied by at *step* (0 is the first) of *total_steps*."""
    if knobs.schedule == "one_cycle":
        return _one_cycle(step, total_steps)  # its rise is its warm-up
    warmup = round(knobs.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    if knobs.schedule == "warmup_stable_decay":
        return _stable_decay(step, total_steps, round(knobs.decay_fraction * total_steps))
    if knobs.schedule == "plateau":
        return 1.0 if plateau is None else plateau.factor
    return _AFTER_WARMUP[knobs.schedule](progress)


def _stable_decay(step: int, total_steps: int, decay: int) -> float:
    """1 until the last *decay* steps, then linearly towards 0 (Hu et al. 2024, MiniCPM)."""
    return min(1.0, (total_steps - step) / (decay + 1))


def _one_cycle(step: int, total_steps: int) -> float:
    """Up to the peak and far down again, each half a cosine (Smith and Topin 2018)."""
    peak, last = _RISE * total_steps - 1.0, total_steps - 1.0
    if step <= peak:
        return _between(1.0 / _FIRST, 1.0, step / peak)
    return _between(1.0, 1.0 / _LAST, (step - peak) / (last - peak))


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * _cosine(progress)


def _cosine(progress: float) -> float:
    """From 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _cosine_restarts(progress: float) -> float:
    return _cosine(_since_restart(progress))


def _since_restart(progress: float) -> float:
    """Progress within the current period; each period is twice as long as the one before."""
    units = min(progress, 1.0) * (2**_RESTARTS - 1)
    period = min(_RESTARTS - 1, int(math.log2(units + 1.0)))
    return (units - (2**period - 1)) / 2**period


def _linear(progress: float) -> float:
    return 1.0 - min(1.0, progress)


def _constant(progress: float) -> float:
    return 1.0


_AFTER_WARMUP = {
    "constant": _constant,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "linear": _linear,
}
