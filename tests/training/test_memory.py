"""Shortages are known by what the allocators really say."""

import pytest
import torch

from cubeopt.training import memory

CPU = torch.device("cpu")


def test_the_cpu_allocators_own_error_is_a_shortage_and_says_how_much_was_asked_for():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert memory.is_shortage(raised.value)
    said = memory.shortage(raised.value, CPU)
    assert said.startswith("out of memory: needed 1125899.91 GB more beside the ")
    assert "; there are " in said


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.15 GB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "20.97 MB"),
        (MemoryError(), "more beside"),
        (RuntimeError("std::bad_alloc"), "more beside"),
    ],
)
def test_shortages_of_every_kind_are_told(error, asked):
    assert memory.is_shortage(error)
    assert f"needed {asked}" in memory.shortage(error, CPU)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("memory")])
def test_other_errors_are_none(error):
    assert not memory.is_shortage(error)
