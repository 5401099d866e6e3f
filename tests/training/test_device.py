"""A device that is not there is one clear error."""

import pytest
import torch

from cubeopt.errors import DeviceError
from cubeopt.training import device


def test_the_cpu_is_used_in_one_thread():
    assert device.prepare(None) == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert device.describe(torch.device("cpu")) == "cpu"


def test_a_gpu_that_is_not_there_is_an_input_error_that_says_why():
    missing = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(DeviceError, match=rf"--gpu {missing}: ") as error:
        device.prepare(missing)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
