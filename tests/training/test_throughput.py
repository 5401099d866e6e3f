"""The width of a pack is measured."""

import pytest
import torch

from cubeopt.training import throughput

from .conftest import spec


def rates(monkeypatch, by_width):
    """Pretend that packs train so many trial-steps a second; a width without one has no memory."""

    def measured(trial, feed, width):
        if width not in by_width:
            raise torch.OutOfMemoryError("too wide")
        return by_width[width]

    monkeypatch.setattr(throughput, "_trial_steps_per_second", measured)


@pytest.mark.parametrize(
    ("by_width", "best"),
    [
        ({1: 10.0, 2: 10.5}, 1),
        ({1: 10.0, 2: 15.0, 4: 16.0}, 2),
        ({1: 10.0, 2: 15.0, 4: 29.0, 8: 50.0}, 8),
        ({1: 10.0, 2: 19.0}, 2),
    ],
)
def test_a_pack_grows_while_it_pays_and_memory_allows(feed, monkeypatch, by_width, best):
    rates(monkeypatch, by_width)
    assert throughput.best_width(spec(), feed) == best
    assert throughput.best(spec(), feed) == throughput.Throughput(best, by_width[best])


def test_it_really_measures(feed, monkeypatch):
    monkeypatch.setattr(throughput, "_SECONDS", 0.02)
    assert throughput.best_width(spec(), feed, widest=2) in (1, 2)
