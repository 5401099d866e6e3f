"""Whether an error says that memory ran out, what was asked for, and what there was."""

import re
import resource

import psutil  # type: ignore[import-untyped]
import torch

from cubeopt.training.loop import peak_memory

ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)  # those that may say so
_OF_A_CPU = ("DefaultCPUAllocator: can't allocate memory", "std::bad_alloc")
_ASKED = re.compile(r"(?:tried to allocate|Tried to allocate) ([\d.]+) (bytes|[KMG]iB)")
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def is_shortage(error: Exception) -> bool:
    """Whether *error* says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OF_A_CPU)


def shortage(error: Exception, device: torch.device) -> str:
    """What was needed and what there was, in one line."""
    asked = _ASKED.search(str(error))
    more = "more" if asked is None else _size(int(float(asked[1]) * _UNITS[asked[2]])) + " more"
    total, of = _total(device)
    used = _size(peak_memory(device))
    return f"out of memory: needed {more} beside the {used} in use; there are {_size(total)} {of}"


def _total(device: torch.device) -> tuple[int, str]:
    """Bytes that this process may have, and who says so."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1], "on the GPU"
    machine = int(psutil.virtual_memory().total)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < machine:
        return limit, "of addresses, the limit of this process"
    return machine, "in this machine"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
