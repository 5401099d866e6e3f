"""A table of learning curves: every configuration of a study trained to its last epoch.

It is made from a study without rungs (studies/curves.yaml) by `cubeopt bench curves`, and replayed
by `cubeopt bench search`.
"""

import json
import lzma
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from cubeopt import atomic
from cubeopt.errors import InputError
from cubeopt.search import space, study
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec

COMMITTED = Path(__file__).with_name("curves.json.xz")
_FORMAT = 1
_DIGITS = 7  # of a value: those of the float32 in which the cube computes


@dataclass(frozen=True)
class Curve:
    """One configuration."""

    point: Point
    values: tuple[float, ...]  # of the metric after epoch 1, 2, ...; NaN from where it diverged on
    epoch_seconds: float  # of its shape


@dataclass(frozen=True)
class Curves:
    """All configurations of a study, in the order of their numbers."""

    spec: StudySpec
    rows: tuple[Curve, ...]
    facts: Mapping[str, Any]  # how the table was made

    @property
    def epochs(self) -> int:
        return self.spec.full_epochs

    @property
    def sign(self) -> float:
        """What makes less be better."""
        return 1.0 if self.spec.objective.direction == "minimize" else -1.0

    @cached_property
    def best(self) -> float:
        """The best value at the last epoch."""
        last = [self.sign * row.values[-1] for row in self.rows]
        return self.sign * min(each for each in last if not math.isnan(each))

    @property
    def seconds(self) -> float:
        """Of training all of it, one after the other."""
        return sum(row.epoch_seconds for row in self.rows) * self.epochs

    def shortfall(self, value: float) -> float:
        """How much worse than the best of the table, as a share of that; negative if better."""
        return self.sign * (value - self.best) / abs(self.best)

    def nearest(self, point: Mapping[str, Any], among: Sequence[int]) -> int:
        """The row of *among* that is nearest to *point*, in shares of the searched intervals."""
        there = np.array(list(among))
        distances = np.square(self._places[there] - self._place(point)).sum(axis=1)
        return int(there[np.argmin(distances)])

    def part(self, rows: Sequence[int]) -> "Curves":
        """A table with only these rows."""
        return Curves(self.spec, tuple(self.rows[row] for row in rows), self.facts)

    @cached_property
    def _places(self) -> np.ndarray:
        return np.array([self._place(row.point) for row in self.rows])

    def _place(self, point: Mapping[str, Any]) -> np.ndarray:
        return np.array(space.place(self.kinds, point))

    @cached_property
    def kinds(self) -> dict[str, BaseDistribution]:
        return self.spec.distributions()


def write(curves: Curves, path: Path) -> None:
    """Write the table to *path*, whole or not at all."""
    names = sorted(curves.spec.search)
    content = {
        "format": _FORMAT,
        "facts": dict(curves.facts),
        "study": curves.spec.model_dump(mode="json"),
        "names": names,
        "points": [[row.point[name] for name in names] for row in curves.rows],
        "epoch_seconds": [row.epoch_seconds for row in curves.rows],
        "values": [[_rounded(value) for value in row.values] for row in curves.rows],
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    atomic.write(lzma.compress(text.encode(), preset=9), path)


def read(path: Path) -> Curves:
    """The table in *path*; InputError when it is none."""
    try:
        content = json.loads(lzma.decompress(path.read_bytes()))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (lzma.LZMAError, ValueError) as error:
        raise InputError(f"{path} is no table of `cubeopt bench curves`: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(
            f"{path} is no table of `cubeopt bench curves` in format {_FORMAT}; make it again"
        )
    names = content["names"]
    columns = zip(content["points"], content["values"], content["epoch_seconds"], strict=True)
    rows = tuple(
        Curve(
            dict(zip(names, point, strict=True)),
            tuple(math.nan if value is None else value for value in values),
            seconds,
        )
        for point, values, seconds in columns
    )
    return Curves(study.parse(content["study"], str(path)), rows, content["facts"])


def _rounded(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
