"""What a step of training costs: beside the plain code, beside the floor, in packs, in processes.

All cases of a section take their turns in every round, and a ratio is taken within its round. On a
CPU times are those of the process in one thread, so that other work on the machine counts little.
"""

import multiprocessing
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from cubeopt import provenance
from cubeopt.bench import feeding, floor, straightforward
from cubeopt.bench.operations import Operations
from cubeopt.bench.straightforward import StraightCube, Tiers
from cubeopt.errors import ConfigError
from cubeopt.lattice.cube import Cube
from cubeopt.training import device as devices
from cubeopt.training import loop, throughput
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import CubeShape, Task, TrialSpec

_ROWS = 512  # random ones, to train on
_WARM_UP = 2  # steps
_WIDTHS = (1, 4, 8)  # of packs whose operations are counted
_TOGETHER_SECONDS = 10.0  # of training side by side
DENSE_GOAL, PLAIN_GOAL, FLOOR_GOAL = 0.48, 1.10, 4.2
OPERATIONS_GOAL, MEMORY_GOAL, CORES_GOAL = 600, 6.0, 0.9  # MEMORY_GOAL in GB

PACK = "pack of one"
SHAPE = CubeShape()  # of all sections but the sizes
Shapes = Mapping[str, CubeShape]
SHAPES: Shapes = {
    "8x8x8, state 32": SHAPE,
    "8x8x8, state 64": CubeShape(state_size=64),
    "8x8x8, state 128": CubeShape(state_size=128),
    "4x4x4, state 32": CubeShape(lattice_size=(4, 4, 4)),
    "15x15x15, state 32": CubeShape(lattice_size=(15, 15, 15)),
    "27x27x27, state 32": CubeShape(lattice_size=(27, 27, 27)),
}


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


@dataclass(frozen=True)
class Report:
    """What was measured, on what."""

    figures: Sequence[Figure]
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Tell = Callable[[str], None]


def measure(device: torch.device, rounds: int, shapes: Shapes, tell: Tell) -> Report:
    """Every section in turn; *tell* hears which one begins."""
    figures = []
    for name, section in (
        ("beside the plain code", lambda: _beside(device, rounds)),
        ("operations", lambda: _operations(device)),
        ("sizes", lambda: _sizes(device, rounds, shapes)),
        ("side by side", lambda: _side_by_side(device)),
    ):
        tell(name)
        figures += section()
    machine = {
        **provenance.hardware(),
        "device": devices.describe(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return Report(figures, machine)


def packed(shape: CubeShape, width: int, device: torch.device) -> PackRun:
    """A full pack on random rows, warmed up."""
    dataset = feeding.synthetic(_ROWS, shape.embedding_size)
    feed = Feed(feeding.trimmed(dataset, Task.RECONSTRUCT), [Task.RECONSTRUCT], device)
    run = PackRun(shape, width, feed)
    for slot in range(width):
        run.fill(slot, run.fresh(TrialSpec(shape=shape, seed=slot)))
    for _ in range(_WARM_UP):
        run.step()
    return run


def plain(run: PackRun, tiers: Tiers) -> Callable[[], object]:
    """A training step of the plain code on the batches of *run*."""
    spec = TrialSpec(shape=run.shape)
    cube = StraightCube(run.cube, run.cube.layout.initial(0), tiers).to(run.feed.device)
    adamw = straightforward.optimizer(cube, spec.optim)
    source, target = run.feed.batch({0: (0, 0)}, 1, run.shape.batch_size)
    return lambda: straightforward.step(cube, adamw, source[0], target[0], spec)


def _beside(device: torch.device, rounds: int) -> list[Figure]:
    section = "beside the plain code"
    run = packed(SHAPE, 1, device)
    cases = {PACK: run.step, **{tiers.value: plain(run, tiers) for tiers in Tiers}}
    times = _times(cases, device, rounds)
    figures = [_figure(section, name, "ms", each) for name, each in times.items()]
    for tiers, goal in ((Tiers.DENSE, DENSE_GOAL), (Tiers.SPARSE, PLAIN_GOAL)):
        ratio = _ratio(times[PACK], times[tiers.value])
        figures.append(_figure(section, f"{PACK} / {tiers.value}", "", ratio, goal))
    attention = _ratio(times[PACK], times[Tiers.ATTENTION.value])
    return [*figures, _figure(section, f"{PACK} / {Tiers.ATTENTION.value}", "", attention)]


def _operations(device: torch.device) -> list[Figure]:
    figures = []
    for width in _WIDTHS:
        run = packed(SHAPE, width, device)
        with Operations() as operations:
            run.step()
        what = f"a step of a pack of {width}"
        count = [float(operations.count)]
        figures.append(_figure("operations", what, "", count, OPERATIONS_GOAL))
    return figures


def _sizes(device: torch.device, rounds: int, shapes: Shapes) -> list[Figure]:
    """Each size in a process of its own, whose memory is its own."""
    rates = floor.rates(device)
    figures = [
        _figure("sizes", "products", "GFLOP/s", [rates.flops / 1e9]),
        _figure("sizes", "memory", "GB/s", [rates.bytes / 1e9]),
    ]
    for name, shape in shapes.items():
        (found,) = _in_processes(_one_size, 1, (shape, device, rounds))
        least = floor.work(Cube(shape, torch.device("cpu"))).seconds(rates) * 1e3
        goal = FLOOR_GOAL if shape == SHAPE else None
        figures += [
            _figure("sizes", f"{name}: step", "ms", found["ms"]),
            _figure("sizes", f"{name}: floor", "ms", [least]),
            _figure("sizes", f"{name}: step / floor", "", [x / least for x in found["ms"]], goal),
            _figure("sizes", f"{name}: peak memory", "GB", [found["bytes"] / 1e9], MEMORY_GOAL),
        ]
    return figures


def _one_size(pipe: Connection, shape: CubeShape, device: torch.device, rounds: int) -> None:
    _settle(device)
    run = packed(shape, 1, device)
    times = _times({PACK: run.step}, device, rounds)
    pipe.send({"ms": times[PACK], "bytes": float(loop.peak_memory(device))})


def _side_by_side(device: torch.device) -> list[Figure]:
    """Trials of one shape an hour: packs of several widths, and processes of one trial each."""
    section, shape = "side by side", SHAPE
    processes = [1, os.cpu_count() or 1] if device.type == "cpu" else [1, 4]
    widths = (1, 4) if device.type == "cpu" else (1, 4, 16, 64)
    auto = throughput.best_width(TrialSpec(shape=shape), packed(shape, 1, device).feed)
    rates = {}
    for width in (*widths, auto):
        name = f"one process, pack of {width}" + (" (auto)" if width == auto else "")
        rates[name] = sum(_in_processes(_steady, 1, (shape, device, width)))
    for count in processes[1:]:
        name = f"{count} processes, {'auto' if device.type == 'cpu' else 'pack of 1'}"
        width = auto if device.type == "cpu" else 1
        rates[name] = sum(_in_processes(_steady, count, (shape, device, width)))
    figures = [_figure(section, name, "trial-steps/s", [rate]) for name, rate in rates.items()]
    alone = next(iter(rates.values()))
    for name, rate in list(rates.items())[1:]:
        goal = None
        if device.type == "cpu" and name.startswith(f"{processes[1]} "):
            goal = CORES_GOAL * processes[1]
        figures.append(_figure(section, f"{name} / one trial alone", "", [rate / alone], goal))
    return figures


def _steady(pipe: Connection, shape: CubeShape, device: torch.device, width: int) -> None:
    """Trial-steps a second over some seconds, beside whoever else runs."""
    _settle(device)
    run = packed(shape, width, device)
    pipe.send("ready")
    pipe.recv()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < _TOGETHER_SECONDS:
        run.step()
        steps += width
    _wait(device)
    pipe.send(steps / (time.perf_counter() - start))


def _in_processes(target: Callable[..., None], count: int, given: tuple[Any, ...]) -> list[Any]:
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


def _times(
    cases: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each case in each round, in turns, after some rounds of warming up."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(_WARM_UP + rounds):
        for name, case in cases.items():
            start = clock()
            case()
            _wait(device)
            if number >= _WARM_UP:
                times[name].append((clock() - start) * 1e3)
    return times


def _ratio(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def _figure(
    section: str, what: str, unit: str, values: Sequence[float], goal: float | None = None
) -> Figure:
    """Of *values* the median and the quartiles; *goal* is the most it may be, or the least."""
    low, middle, high = (values[0],) * 3
    if len(values) > 1:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    if goal is None:
        return Figure(section, what, unit, middle, low, high)
    least = section == "side by side"
    met = middle >= goal if least else middle <= goal
    return Figure(
        section, what, unit, middle, low, high, f"at {'least' if least else 'most'} {goal:g}", met
    )


def _settle(device: torch.device) -> None:
    """What a worker does before it trains; Ctrl-C is its parent's, who ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    devices.prepare(device.index if device.type == "cuda" else None)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
