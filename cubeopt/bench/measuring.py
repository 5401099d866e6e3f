"""How a benchmark measures: cases in turns, processes beside each other, a figure with its goal."""

import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cubeopt.errors import ConfigError
from cubeopt.training import device as devices

_WARM_UP = 2  # rounds


@dataclass(frozen=True)
class Figure:
    """One number, with quartiles where it was measured more than once, and its goal."""

    section: str
    what: str
    unit: str
    value: float
    low: float
    high: float
    goal: str | None = None
    met: bool | None = None


def figure(
    section: str,
    what: str,
    unit: str,
    values: Sequence[float],
    goal: float | None = None,
    least: bool = False,
) -> Figure:
    """Of *values* the median and the quartiles; *goal* is the most it may be, or the *least*."""
    low, middle, high = (values[0],) * 3
    if len(values) > 1:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    if goal is None:
        return Figure(section, what, unit, middle, low, high)
    met = middle >= goal if least else middle <= goal
    return Figure(
        section, what, unit, middle, low, high, f"at {'least' if least else 'most'} {goal:g}", met
    )


def in_processes(target: Callable[..., None], count: int, given: tuple[Any, ...]) -> list[Any]:
    """What each of *count* processes sends last; those that say they are ready begin together."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    workers = [context.Process(target=target, args=(theirs, *given)) for _, theirs in ends]
    for worker in workers:
        worker.start()
    for _, theirs in ends:
        theirs.close()
    try:
        found = [ours.recv() for ours, _ in ends]
        if found[0] == "ready":
            for ours, _ in ends:
                ours.send("go")
            found = [ours.recv() for ours, _ in ends]
    except EOFError as error:
        raise ConfigError("a measuring process ended early; is there enough memory?") from error
    finally:
        for worker in workers:
            worker.terminate()  # no loss: all that is wanted of it has come, or never will
            worker.join()
    return found


def times(
    cases: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each case in each round, in turns, after some rounds of warming up."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(_WARM_UP + rounds):
        for name, case in cases.items():
            start = clock()
            case()
            wait(device)
            if number >= _WARM_UP:
                times[name].append((clock() - start) * 1e3)
    return times


def ratio(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def settle(device: torch.device) -> None:
    """What a worker does before it trains; Ctrl-C is its parent's, who ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    devices.prepare(device.index if device.type == "cuda" else None)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
