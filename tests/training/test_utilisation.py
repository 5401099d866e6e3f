"""Percent of the time since the last look."""

import time
from types import SimpleNamespace

import pynvml
import pytest
import torch

from cubeopt.training import utilisation
from cubeopt.training.utilisation import Meter

from .conftest import CPU


def test_a_busy_process_is_busier_than_one_that_sleeps():
    meter = Meter(CPU)
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    busy = meter.read()["device_utilisation"]
    time.sleep(0.3)
    asleep = meter.read()["device_utilisation"]
    assert asleep < 20.0 < busy
    assert busy < 150.0


class Driver:
    """Samples of a GPU, stamped one after another."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, int]] = []
        self.error: pynvml.NVMLError | None = None

    def get(self, gpu, kind, seen):
        assert (gpu, kind) == ("gpu", pynvml.NVML_GPU_UTILIZATION_SAMPLES)
        if self.error is not None:
            raise self.error
        # The driver fills up with old samples, whatever was asked for.
        return 1, [
            SimpleNamespace(timeStamp=stamp, sampleValue=SimpleNamespace(uiVal=value))
            for stamp, value in self.samples
        ]


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(utilisation, "_gpu", lambda device: "gpu")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetSamples", made.get)
    return made


def test_of_a_gpu_it_is_the_mean_of_the_samples_since_the_last_look(driver):
    now = int(time.time() * 1e6)
    meter = Meter(torch.device("cuda", 0))
    driver.samples = [(now - 10**6, 77), (now + 10**6, 20), (now + 2 * 10**6, 40)]
    assert meter.read() == {"device_utilisation": 30.0}
    assert meter.read() == {}
    driver.samples.append((now + 3 * 10**6, 90))
    assert meter.read() == {"device_utilisation": 90.0}


def test_a_gpu_without_samples_has_no_number(driver):
    driver.error = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert Meter(torch.device("cuda", 0)).read() == {}


def test_a_driver_that_is_not_there_leaves_no_number(monkeypatch):
    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    named = SimpleNamespace(uuid="12345678-0000-0000-0000-000000000000")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: named)
    assert Meter(torch.device("cuda", 0)).read() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_at_work_is_seen():
    device = torch.device("cuda", 0)
    meter = Meter(device)
    rows = torch.randn(4096, 4096, device=device)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        rows = torch.tanh(rows @ rows)
        torch.cuda.synchronize(device)
    assert 20.0 < meter.read()["device_utilisation"] <= 100.0
