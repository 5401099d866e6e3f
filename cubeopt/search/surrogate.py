"""A model of learning curves: a Gaussian process over points and epochs, and where to try next.

As in freeze-thaw optimisation (Swersky, Snoek and Adams 2014, arXiv 1406.3896) every rung that any
trial has reached teaches the model, so a trial that was cut at the first epoch tells of the last.
The kernel is a trend that all curves share, and a part of each point: what stays the same over the
epochs, and what changes with them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

_SCALES = (0.6, 1.2, 2.4)  # of the points, of which each value lies between 0 and 1
_STAYS = (0.3, 0.7)  # share of a point's variance that is the same at all epochs
_EPOCH_SCALE = 1.0  # of the epochs, on a scale on which the last of the full run is 1
_NOISE = 1e-2  # share of the variance
_OUTLIER = 3.0  # interquartile ranges above the median, beyond which a value is only "bad"


@dataclass(frozen=True)
class Observed:
    """What is known: *values* (less is better) of *points* (N, D) at *epochs*, 0 to 1."""

    points: Array
    epochs: Array
    values: Array


class Surrogate:
    """The model of what is *observed*; its two scales are those of the highest likelihood."""

    def __init__(self, observed: Observed) -> None:
        values = without_outliers(observed.values)
        self._middle, self._spread = float(values.mean()), float(values.std()) or 1.0
        self._points, self._epochs = observed.points, observed.epochs
        self._values = (values - self._middle) / self._spread
        _, self._scale, self._stays = max(
            (self._likelihood(scale, stays), scale, stays) for scale in _SCALES for stays in _STAYS
        )
        self._solve()

    def believe(self, points: Array, epoch: float) -> None:
        """Take *points* that are being tried to come to what is expected of them at *epoch*."""
        if len(points):
            expected, _ = self._predict(points, epoch)
            self._points = np.vstack([self._points, points])
            self._epochs = np.append(self._epochs, np.full(len(points), epoch))
            self._values = np.append(self._values, expected)
            self._solve()

    def improvement(self, points: Array, epoch: float) -> Array:
        """By how much each of *points* is expected to beat, at *epoch*, the best of those known.

        Values are noisy, so the best known is that of the lowest expectation (Jones et al. 1998).
        """
        best = self._predict(self._points, epoch)[0].min()
        mean, deviation = self._predict(points, epoch)
        z = (best - mean) / deviation
        below = 0.5 * (1.0 + np.array([math.erf(each / math.sqrt(2.0)) for each in z]))
        density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
        gain: Array = (best - mean) * below + deviation * density
        return gain

    def expected(self, points: Array, epoch: float) -> Array:
        """The values that *points* are expected to have at *epoch*."""
        found: Array = self._middle + self._spread * self._predict(points, epoch)[0]
        return found

    def _predict(self, points: Array, epoch: float) -> tuple[Array, Array]:
        epochs = np.full(len(points), epoch)
        cross = self._kernel(points, epochs, self._points, self._epochs, self._scale, self._stays)
        half = cross @ self._inverse_root.T
        variance = 2.0 - np.square(half).sum(axis=1)
        return cross @ self._weights, np.sqrt(np.maximum(variance, 1e-9))

    def _solve(self) -> None:
        root = np.linalg.cholesky(self._own(self._scale, self._stays))
        self._inverse_root = np.linalg.inv(root)
        self._weights = self._inverse_root.T @ (self._inverse_root @ self._values)

    def _likelihood(self, scale: float, stays: float) -> float:
        """The logarithm, up to a constant."""
        root = np.linalg.cholesky(self._own(scale, stays))
        white = np.linalg.solve(root, self._values)
        return float(-0.5 * white @ white - np.log(np.diag(root)).sum())

    def _own(self, scale: float, stays: float) -> Array:
        given = (self._points, self._epochs)
        return self._kernel(*given, *given, scale, stays) + _NOISE * np.eye(len(self._values))

    @staticmethod
    def _kernel(
        points: Array, epochs: Array, others: Array, their: Array, scale: float, stays: float
    ) -> Array:
        """Variance 1 of the shared trend, and 1 of the points."""
        squares = (
            np.square(points).sum(1)[:, None] + np.square(others).sum(1) - 2 * points @ others.T
        )
        distance = math.sqrt(5.0) * np.sqrt(np.maximum(squares, 0.0)) / scale
        near = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)  # Matern, 5/2
        together = np.exp(-0.5 * np.square((epochs[:, None] - their) / _EPOCH_SCALE))
        kernel: Array = together + near * (stays + (1.0 - stays) * together)
        return kernel


def without_outliers(values: Array) -> Array:
    """*values* with the very bad ones, and NaN, made equal to the worst that is usual."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros_like(values)
    low, middle, high = np.quantile(finite, (0.25, 0.5, 0.75))
    worst = middle + _OUTLIER * (high - low)
    found: Array = np.minimum(np.where(np.isfinite(values), values, worst), worst)
    return found
