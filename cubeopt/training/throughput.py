"""How many trials ride together best: measured, not guessed."""

import logging
import time
from dataclasses import dataclass

import torch

from cubeopt.training import memory
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import TrialSpec

logger = logging.getLogger(__name__)

_WIDEST = {"cpu": 8, "cuda": 256}
_GAIN = 1.1  # a wider pack must train this many times more samples a second to be worth its memory
_SECONDS = 0.5  # of measuring at each width
_MEMORY_SHARE = 0.8  # of the device's memory that a pack may take


@dataclass(frozen=True)
class Throughput:
    """What a device does with packs of one shape."""

    width: int
    rate: float  # steps of single trials in a second


def best_width(spec: TrialSpec, feed: Feed, widest: int | None = None) -> int:
    """The pack width for *spec*'s shape: doubled while throughput grows and memory allows."""
    return best(spec, feed, widest).width


def best(spec: TrialSpec, feed: Feed, widest: int | None = None) -> Throughput:
    """`best_width`, and what it does."""
    limit = widest or _WIDEST[feed.device.type]
    found, width, rate = Throughput(1, 0.0), 1, 0.0
    while width <= limit:
        try:
            measured = _trial_steps_per_second(spec, feed, width)
        except memory.ERRORS as error:
            if not memory.is_shortage(error):
                raise
            break
        logger.info("pack width %d: %.1f trial-steps/s", width, measured)
        if measured < rate * _GAIN:
            break
        found, rate = Throughput(width, measured), measured
        if _memory_share(feed.device) * 2 > _MEMORY_SHARE:
            break
        width *= 2
    return found


def _trial_steps_per_second(spec: TrialSpec, feed: Feed, width: int) -> float:
    run = PackRun(spec.shape, width, feed)
    for slot in range(width):
        run.fill(slot, run.fresh(spec))
    _seconds(run, 1)  # the first step allocates
    while not run.settled:
        run.step()
    steps = max(1, int(_SECONDS / _seconds(run, 1)))
    return width * steps / _seconds(run, steps)


def _seconds(run: PackRun, steps: int) -> float:
    """Wall time of *steps* steps, waited for."""
    start = time.perf_counter()
    for _ in range(steps):
        run.step()
    if run.feed.device.type == "cuda":
        torch.cuda.synchronize(run.feed.device)
    return time.perf_counter() - start


def _memory_share(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return 1.0 - free / total
