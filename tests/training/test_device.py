"""A device that is not there is one clear error."""

import pytest
import torch

from cubeopt.errors import DeviceError
from cubeopt.training import device


def test_the_cpu_is_used_in_one_thread():
    assert device.prepare(None) == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert device.describe(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize(("libc", "calls"), [("glibc", [(-3, 2**30), (-1, 2**31 - 1)]), ("", [])])
def test_only_glibc_is_told_to_keep_the_memory_of_tensors(monkeypatch, libc, calls):
    told = []

    class Library:
        def __init__(self, name):
            assert name is None  # what this process has loaded

        def mallopt(self, option, value):
            told.append((option, value))

    monkeypatch.setattr(device.ctypes, "CDLL", Library)
    monkeypatch.setattr(device.platform, "libc_ver", lambda: (libc, ""))
    device.prepare(None)
    assert told == calls


def test_a_gpu_that_is_not_there_is_an_input_error_that_says_why():
    missing = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(DeviceError, match=rf"--gpu {missing}: ") as error:
        device.prepare(missing)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_a_number_beyond_the_gpus_of_the_machine_names_those_that_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device.check(0)
    device.check(1)
    with pytest.raises(DeviceError, match=r"^--gpu 7: this machine has GPUs 0 to 1$"):
        device.check(7)
