"""A thread beside a worker's training."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Companion(ABC):
    """Runs from the entry of a `with` statement to its exit, which waits for its end."""

    def __init__(self, name: str) -> None:
        self._done, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._woken.set()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None:
        """Work until `_done` is set."""

    def _rest(self, seconds: float) -> bool:
        """Sleep so long, or until somebody wakes us; whether there is more to do."""
        self._woken.wait(seconds)
        self._woken.clear()
        return not self._done.is_set()
