"""How the learning rate changes: pure functions of the step, laid out over the full run.

A short trial therefore follows the first part of its full run's schedule; promotion continues it.
"""

import math

from cubeopt.trial import OptimKnobs

_RESTARTS = 3  # cosine_restarts: periods of 1, 2 and 4 sevenths of the run


def multiplier(knobs: OptimKnobs, step: int, total_steps: int) -> float:
    """What the learning rate is multiplied by at *step* (0 is the first) of *total_steps*."""
    warmup = round(knobs.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    if knobs.schedule == "constant":
        return 1.0
    if knobs.schedule == "cosine":
        return _cosine(progress)
    if knobs.schedule == "cosine_restarts":
        return _cosine(_since_restart(progress))
    return _stable_decay(step, total_steps, round(knobs.decay_fraction * total_steps))


def _stable_decay(step: int, total_steps: int, decay: int) -> float:
    """1 until the last *decay* steps, then linearly towards 0 (Hu et al. 2024, MiniCPM)."""
    return min(1.0, (total_steps - step) / (decay + 1))


def _cosine(progress: float) -> float:
    """From 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _since_restart(progress: float) -> float:
    """Progress within the current period; each period is twice as long as the one before."""
    units = min(progress, 1.0) * (2**_RESTARTS - 1)
    period = min(_RESTARTS - 1, int(math.log2(units + 1.0)))
    return (units - (2**period - 1)) / 2**period
