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
