"""What a step of training costs: beside the plain code, beside the floor, in packs, in processes.

All cases of a section take their turns in every round, and a ratio is taken within its round. On a
CPU times are those of the process in one thread, so that other work on the machine counts little.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from cubeopt import provenance
from cubeopt.bench import floor, packing, straightforward
from cubeopt.bench.measuring import Figure, figure, in_processes, ratio, settle, times
from cubeopt.bench.operations import Operations
from cubeopt.bench.packing import packed
from cubeopt.bench.straightforward import StraightCube, Tiers
from cubeopt.lattice.cube import Cube
from cubeopt.training import device as devices
from cubeopt.training import loop
from cubeopt.training.loop import PackRun
from cubeopt.trial import CubeShape, TrialSpec

_WIDTHS = (1, 4, 8)  # of packs whose operations are counted
_LAUNCHES = 2000  # of the smallest operation there is
DENSE_GOAL, PLAIN_GOAL, FLOOR_GOAL = 0.48, 1.10, 4.2
OPERATIONS_GOAL, MEMORY_GOAL = 600, 6.0  # the latter in GB

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
        ("operations", lambda: _operations(device, rounds)),
        ("sizes", lambda: _sizes(device, rounds, shapes)),
        ("side by side", lambda: packing.side_by_side(SHAPE, device)),
        *([("largest cube", lambda: packing.largest(device))] if device.type == "cuda" else []),
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


def plain(run: PackRun, tiers: Tiers) -> Callable[[], object]:
    """A training step of the plain code on the batches of *run*."""
    spec = TrialSpec(shape=run.shape)
    row = run.cube.layout.initial(0).to(run.feed.device)
    cube = StraightCube(run.cube, row, tiers).to(run.feed.device)
    adamw = straightforward.optimizer(cube, spec.optim)
    source, target = run.feed.batch({0: (0, 0)}, 1, run.shape.batch_size)
    return lambda: straightforward.step(cube, adamw, source[0], target[0], spec)


def _beside(device: torch.device, rounds: int) -> list[Figure]:
    section = "beside the plain code"
    run = packed(SHAPE, 1, device)
    cases = {PACK: run.step, **{tiers.value: plain(run, tiers) for tiers in Tiers}}
    spent = times(cases, device, rounds)
    figures = [figure(section, name, "ms", each) for name, each in spent.items()]
    for tiers, goal in ((Tiers.DENSE, DENSE_GOAL), (Tiers.SPARSE, PLAIN_GOAL)):
        than = ratio(spent[PACK], spent[tiers.value])
        figures.append(figure(section, f"{PACK} / {tiers.value}", "", than, goal))
    attention = ratio(spent[PACK], spent[Tiers.ATTENTION.value])
    return [*figures, figure(section, f"{PACK} / {Tiers.ATTENTION.value}", "", attention)]


def _operations(device: torch.device, rounds: int) -> list[Figure]:
    """How many a step asks for, and how its time compares with only launching so many."""
    section = "operations"
    launch = _launch(device, rounds)
    figures = [figure(section, "launch of the smallest operation", "us", launch)]
    least = min(launch) / 1e3  # ms
    for width in _WIDTHS:
        run = packed(SHAPE, width, device, graphs=False)
        with Operations() as operations:
            run.step()
        what, count = f"a step of a pack of {width}", float(operations.count)
        (spent,) = times({what: run.step}, device, rounds).values()
        figures += [
            figure(section, what, "", [count], OPERATIONS_GOAL),
            figure(section, f"{what} / its launches", "", [ms / (count * least) for ms in spent]),
        ]
        if device.type == "cuda":
            cases = {"with": packed(SHAPE, width, device).step, "without": run.step}
            each = times(cases, device, rounds)
            than = ratio(each["with"], each["without"])
            figures.append(figure(section, f"{what}: with CUDA graphs / without", "", than))
    return figures


def _launch(device: torch.device, rounds: int) -> list[float]:
    """Microseconds of each of many operations on one number."""
    number = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(_LAUNCHES):
            number.add_(1.0)

    (spent,) = times({"launches": many}, device, rounds).values()
    return [ms * 1e3 / _LAUNCHES for ms in spent]


def _sizes(device: torch.device, rounds: int, shapes: Shapes) -> list[Figure]:
    """Each size in a process of its own, whose memory is its own."""
    rates = floor.rates(device)
    figures = [
        figure("sizes", "products", "GFLOP/s", [rates.flops / 1e9]),
        figure("sizes", "memory", "GB/s", [rates.bytes / 1e9]),
    ]
    for name, shape in shapes.items():
        (found,) = in_processes(_one_size, 1, (shape, device, rounds))
        least = floor.work(Cube(shape, torch.device("cpu"))).seconds(rates) * 1e3
        goal = FLOOR_GOAL if shape == SHAPE else None
        figures += [
            figure("sizes", f"{name}: step", "ms", found["ms"]),
            figure("sizes", f"{name}: floor", "ms", [least]),
            figure("sizes", f"{name}: step / floor", "", [x / least for x in found["ms"]], goal),
            figure("sizes", f"{name}: peak memory", "GB", [found["bytes"] / 1e9], MEMORY_GOAL),
        ]
    return figures


def _one_size(pipe: Connection, shape: CubeShape, device: torch.device, rounds: int) -> None:
    settle(device)
    run = packed(shape, 1, device)
    spent = times({PACK: run.step}, device, rounds)
    pipe.send({"ms": spent[PACK], "bytes": float(loop.peak_memory(device))})
