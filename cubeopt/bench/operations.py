"""How many operations torch is asked for: what a GPU has to launch, whatever their size."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts operations that compute or copy; a view of a tensor is none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func._schema.name not in _FREE:
            self.count += 1
        return func(*args, **(kwargs or {}))


# They give memory, a view by another name, or a number, and start nothing.
_FREE = frozenset(
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
        *("detach", "_unsafe_view", "_local_scalar_dense"),
    )
)
