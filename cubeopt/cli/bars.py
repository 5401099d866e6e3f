"""A bar for each training that runs, on a terminal."""

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID


class Bars:
    """Bars of epochs, by name; they vanish at the end, and off a terminal there are none."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._known: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, name: str, epoch: int, epochs: int) -> None:
        """*name* has ended *epoch* of *epochs*."""
        if name not in self._known:
            self._known[name] = self._progress.add_task(escape(name), total=epochs)
        self._progress.update(self._known[name], completed=epoch)
