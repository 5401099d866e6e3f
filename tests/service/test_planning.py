"""A study's cost before it begins, from real steps."""

import threading

import pytest

from cubeopt.errors import DataError, DeviceError
from cubeopt.search import study
from cubeopt.service import planning

TWO_SIZES = {"state_size": {"choices": [4, 8]}}


def planned(tiny_study, folder, stop=None, **values):
    spec = study.parse({**tiny_study, **values}, "the test's file")
    told = []
    found = planning.plan(
        spec, folder, None, stop or threading.Event(), lambda *at: told.append(at)
    )
    return found, told


def test_every_shape_is_measured_and_weighed(tiny_study, tiny_dataset):
    found, told = planned(tiny_study, tiny_dataset, search=TWO_SIZES)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert {cost.share.shape.state_size for cost in found.costs} == {4, 8}
    assert found.unmeasured == 0.0
    small, large = sorted(found.costs, key=lambda cost: cost.share.shape.state_size)
    assert small.checkpoint_bytes < large.checkpoint_bytes
    for cost in found.costs:
        assert cost.width in (1, 2, 4, 8)
        assert 5e7 < cost.bytes < 5e9
        assert cost.epoch_seconds > cost.step_ms / 1e3
    mean = sum(cost.epoch_seconds * cost.share.share for cost in found.costs)
    assert found.epoch_seconds == pytest.approx(mean)


def test_shapes_beyond_the_limit_are_counted(tiny_study, tiny_dataset, monkeypatch):
    monkeypatch.setattr(planning, "_MEASURED", 1)
    found, _ = planned(tiny_study, tiny_dataset, search=TWO_SIZES)
    (cost,) = found.costs
    assert found.unmeasured == pytest.approx(1.0 - cost.share.share)
    assert found.epoch_seconds == pytest.approx(cost.epoch_seconds)


def test_it_stops_when_it_is_told_to(tiny_study, tiny_dataset):
    stop = threading.Event()
    stop.set()
    found, told = planned(tiny_study, tiny_dataset, stop)
    assert found is None
    assert told == [(0, 1)]


def test_what_a_measuring_process_says_is_heard(tiny_study, tiny_dataset):
    with pytest.raises(DataError, match="the dataset has no rows"):
        planning._apart(_wrong, (), threading.Event())
    with pytest.raises(DeviceError, match="ended with exit code 9; is there enough memory"):
        planning._apart(_dies, (), threading.Event())


def _wrong():
    raise DataError("the dataset has no rows")


def _dies():
    raise SystemExit(9)
