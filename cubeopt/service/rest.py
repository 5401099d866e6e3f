"""How long a worker that finds nothing to do waits before it looks again."""

import random

_FIRST_SECONDS, _LONGEST_SECONDS = 0.3, 1.0
_GROWTH = 1.5
_JITTER = 0.25  # share by which a pause is shorter or longer, so that workers do not look at once


class Rest:
    """Pauses that grow while there is nothing: many idle workers leave the storage in peace."""

    def __init__(self) -> None:
        self._next = _FIRST_SECONDS

    def seconds(self) -> float:
        """The next pause."""
        pause = self._next * random.uniform(1.0 - _JITTER, 1.0 + _JITTER)
        self._next = min(_GROWTH * self._next, _LONGEST_SECONDS)
        return pause

    def over(self) -> None:
        """There was something to do: the next pause is a short one."""
        self._next = _FIRST_SECONDS
