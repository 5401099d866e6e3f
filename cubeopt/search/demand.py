"""How many trials to keep waiting: enough that no worker waits for a sampler, and no more.

A trial that is asked early is drawn with fewer results known, so the fewer wait the better the
search. What may be needed before the next look: a whole pack at once, because its runs end at the
same epoch; what was claimed since the last look, and as much again; a run for each idle worker.
"""

from collections.abc import Iterable

from cubeopt.db.outcomes import Standing

LEAST = 4  # trials
_MEMORY = 0.8  # of what was claimed that counts at the next look


class Demand:
    """The demand for the trials of one study."""

    def __init__(self) -> None:
        self._claimed = 0.0  # from one look to the next
        self._offered: frozenset[int] = frozenset()

    def ahead(self, standing: Standing) -> int:
        """How many trials should wait."""
        claimed = len(self._offered - standing.waiting)
        self._claimed = max(claimed, _MEMORY * self._claimed)
        self._offered = standing.waiting
        return max(LEAST, standing.most_held, round(2 * self._claimed), standing.idle)

    def offer(self, numbers: Iterable[int]) -> None:
        """Note trials that wait from now on."""
        self._offered |= frozenset(numbers)
