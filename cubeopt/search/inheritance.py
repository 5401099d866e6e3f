"""Which trials teach a study's sampler that were not asked for as it is now.

They come from an earlier study, or from this one before it was revised. One rule for both: what a
trial was, all its values, must be a point of the space over the base as they are now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cubeopt.db.priors import Earlier, Prior
from cubeopt.db.tables import RunState
from cubeopt.search import space
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec
from cubeopt.trial import TrialSpec

# They decide nothing about a result: the data go by their fingerprint, and a seed is a draw of the
# weights like any other, unless it is searched.
_IMMATERIAL = frozenset({"dataset", "save_checkpoint_every", "log_interval", "seed"})


@dataclass(frozen=True)
class Misfit:
    """Why a trial is no point of a space."""

    base: tuple[str, ...]  # names that are not searched, where it has another value
    outside: tuple[str, ...]  # searched names, where its value lies outside

    def __str__(self) -> str:
        if self.base:
            return f"other base values ({', '.join(self.base)})"
        return f"outside the space ({', '.join(self.outside)})"


class Room:
    """The space of a study, and the values that all its trials share."""

    def __init__(self, spec: StudySpec) -> None:
        self._search, self._distributions = spec.search, spec.distributions()
        self._base, self._defaults = spec.base_trial.flat(), TrialSpec().flat()
        self._seeded = "seed" in spec.base

    def values(self, params: Mapping[str, Any], number: int) -> dict[str, Any]:
        """All values of the study's trial *number*, of which *params* were drawn."""
        seed = {} if self._seeded else {"seed": number}
        return {**self._base, **seed, **params}

    def point(self, values: Mapping[str, Any]) -> Point | None:
        """The point that a trial with all these *values* would be here; None: it would be none."""
        found = self.place(values)
        return None if isinstance(found, Misfit) else found

    def place(self, values: Mapping[str, Any]) -> Point | Misfit:
        """The point of a trial with all these *values*, or why there is none.

        A value that an older version did not have is the default, as when the trial is trained.
        """
        values = {**self._defaults, **values}
        point: Point = {}
        outside = []
        for name in space.ordered(self._search):
            if not space.active(self._search[name], point):
                continue
            if space.holds(self._distributions[name], values[name]):
                point[name] = values[name]
            else:
                outside.append(name)
        base = [name for name in self._base if name not in point and self._differs(name, values)]
        # Without one of its parents a name is not active, whatever its own value is.
        base = [name for name in base if name not in self._search or not outside]
        return Misfit(tuple(base), tuple(outside)) if base or outside else point

    def _differs(self, name: str, values: Mapping[str, Any]) -> bool:
        return name not in _IMMATERIAL and values[name] != self._base[name]


def prior(source: str, earlier: Earlier, epochs: int) -> Prior | str:
    """What a trial of the study *source* tells one whose short runs end at *epochs*; or why not.

    With a result there it is complete. One that ended before is pruned, with what it reached.
    """
    values = {epoch: value for epoch, value in earlier.values.items() if epoch <= epochs}
    if epochs in values:
        return _prior(source, earlier, RunState.COMPLETE, values, epochs)
    if earlier.state == RunState.FAILED:
        return "failed"
    if earlier.diverged:
        return _prior(source, earlier, RunState.PRUNED, values, None)
    ended = earlier.state in (RunState.COMPLETE, RunState.PRUNED)
    if not ended or not values or len(values) < len(earlier.values):
        return f"not at epoch {epochs}"
    return _prior(source, earlier, RunState.PRUNED, values, max(values))


def _prior(
    source: str, earlier: Earlier, state: RunState, values: dict[int, float], last: int | None
) -> Prior:
    return Prior(
        source=source,
        number=earlier.number,
        spec=earlier.spec,
        state=state,
        value=None if last is None else values[last],
        values=values,
        metrics={} if last is None else earlier.metrics[last],
    )
