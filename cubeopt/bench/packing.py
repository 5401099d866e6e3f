"""Trials an hour in packs of several widths and in processes; the largest cube that fits."""

import itertools
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from cubeopt.bench import feeding
from cubeopt.bench.measuring import Figure, figure, in_processes, settle, wait
from cubeopt.training import loop, throughput
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import CubeShape, Task, TrialSpec

CORES_GOAL = 0.9  # of the rate of one process, for each process more on a CPU
PACK_GOAL = 15.0  # times the trials an hour of one trial alone, on a GPU
TRIAL_STEPS = 1000  # of the trials that are counted: five epochs of 3,200 rows

_ROWS = 512  # random ones, to train on
_WARM_UP = 2  # steps
_TOGETHER_SECONDS = 10.0  # of training side by side
_WIDTHS = {"cpu": (1, 4), "cuda": (1, 4, 16, 64)}
_EDGES = range(8, 129, 4)  # of the cubes that are tried for their memory


def packed(shape: CubeShape, width: int, device: torch.device, graphs: bool = True) -> PackRun:
    """A full pack on random rows, warmed up; on a GPU, until it has decided on *graphs*."""
    dataset = feeding.synthetic(_ROWS, shape.embedding_size)
    feed = Feed(feeding.trimmed(dataset, Task.RECONSTRUCT), [Task.RECONSTRUCT], device)
    run = PackRun(shape, width, feed, graphs=graphs)
    for slot in range(width):
        run.fill(slot, run.fresh(TrialSpec(shape=shape, seed=slot)))
    for _ in range(_WARM_UP):
        run.step()
    while not run.settled:
        run.step()
    return run


def side_by_side(shape: CubeShape, device: torch.device) -> list[Figure]:
    """Trials of one *shape* an hour, and the memory of each process."""
    auto = throughput.best_width(TrialSpec(shape=shape), packed(shape, 1, device).feed)
    cases = {f"one process, pack of {width}": (1, width) for width in _WIDTHS[device.type]}
    cases[f"one process, pack of {auto} (auto)"] = (1, auto)
    several, width = (os.cpu_count() or 1, auto) if device.type == "cpu" else (4, 1)
    cases[f"{several} processes, pack of {width}"] = (several, width)
    rates, figures = {}, []
    for name, (count, width) in cases.items():
        found = in_processes(_steady, count, (shape, device, width))
        rates[name] = sum(each["rate"] for each in found)
        gigabytes = max(each["bytes"] for each in found) / 1e9
        hourly = rates[name] * 3600.0 / TRIAL_STEPS
        figures.append(figure(_SECTION, name, "trials/h", [hourly]))
        figures.append(figure(_SECTION, f"{name}: peak memory of one", "GB", [gigabytes]))
    alone = next(iter(rates.values()))
    goals = _goals(device, several, auto)
    for name, rate in list(rates.items())[1:]:
        what = f"{name} / one trial alone"
        goal = goals.get(cases[name])
        figures.append(figure(_SECTION, what, "", [rate / alone], goal, least=True))
    return figures


_SECTION = "side by side"


def _goals(device: torch.device, several: int, auto: int) -> dict[tuple[int, int], float]:
    """By processes and width, how many times one trial alone is wanted."""
    if device.type == "cpu":
        return {(several, auto): CORES_GOAL * several} if several > 1 else {}
    return {(1, auto): PACK_GOAL}


def _steady(pipe: Connection, shape: CubeShape, device: torch.device, width: int) -> None:
    """Trial-steps a second over some seconds, beside whoever else runs."""
    settle(device)
    run = packed(shape, width, device)
    pipe.send("ready")
    pipe.recv()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < _TOGETHER_SECONDS:
        run.step()
        steps += width
    wait(device)
    seconds = time.perf_counter() - start
    pipe.send({"rate": steps / seconds, "bytes": float(loop.peak_memory(device))})


def largest(device: torch.device) -> list[Figure]:
    """The longest edge of a cube, with default sizes, of which a GPU can train one trial."""
    edge = last(_EDGES, lambda n: _fits(CubeShape(lattice_size=(n, n, n)), device))
    return [figure("largest cube", "edge", "cells", [float(edge)])]


def last(edges: range, fits: Callable[[int], bool]) -> int:
    """The last of *edges* that fits, where each that fits follows one that does; 0 if none does."""
    return max(itertools.takewhile(fits, edges), default=0)


def _fits(shape: CubeShape, device: torch.device) -> bool:
    """Whether a process of its own can train it."""
    (fits,) = in_processes(_some_steps, 1, (shape, device))
    return bool(fits)


def _some_steps(pipe: Connection, shape: CubeShape, device: torch.device) -> None:
    settle(device)
    try:
        packed(shape, 1, device, graphs=False)
        wait(device)
    except torch.OutOfMemoryError:
        pipe.send(False)
    else:
        pipe.send(True)
