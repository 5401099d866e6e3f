"""The device that a person asked for, or one clear line that it is not there."""

import ctypes
import os
import platform
import warnings
from collections.abc import Sequence
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from cubeopt.errors import DeviceError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names, from malloc.h
_NEVER_TRIM, _LARGEST_MAPPED = 2**31 - 1, 1 << 30  # bytes


def prepare(gpu: int | None) -> torch.device:
    """The device for --gpu *gpu* (None: the CPU), set up for repeatable arithmetic.

    One thread a process: on a CPU several processes of one thread each beat one of several
    threads, and the order of additions, hence the bits, does not depend on the machine's load.
    """
    torch.set_num_threads(1)
    _keep_memory()
    if gpu is None:
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat
    check(gpu)
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def check(gpu: int) -> None:
    """DeviceError when this machine does not have the GPU with that number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about the driver; we say it in one line
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        reason = (
            "this torch build has no CUDA"
            if torch.version.cuda is None
            else "torch finds no NVIDIA GPU with a working driver"
        )
        raise DeviceError(f"--gpu {gpu}: {reason}; use --cpu to run on the CPU")
    if not 0 <= gpu < count:
        raise DeviceError(f"--gpu {gpu}: this machine has GPUs 0 to {count - 1}")


def describe(device: torch.device) -> str:
    """The device in words: its model's name for a GPU."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return "cpu"


def free_memory(device: torch.device) -> int:
    """Bytes that are free now: of the GPU, or of the machine's memory for a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def tensor(values: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """*values* on *device*; nobody waits for a GPU to take them."""
    if device.type == "cuda":
        pinned = torch.tensor(values, dtype=dtype, pin_memory=True)
        return pinned.to(device, non_blocking=True)
    return torch.tensor(values, dtype=dtype, device=device)


def _keep_memory() -> None:
    """Have glibc keep the memory of large tensors, which it maps and unmaps at each use otherwise.

    A step of the 8x8x8 cube costs 2 % less processor time so, one of a 10x10x10 cube 5 %, with
    half of the page faults and about the same memory (medians over processes, torch 2.13).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MAPPED)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
