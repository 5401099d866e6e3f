"""A GPU that is not there: tensors on the CPU of which a register says that they lie on it."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_GIVES_DEVICE = torch.Tensor.device.__get__
_READS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}


class PretendedGpu:
    """Answers for the device of every tensor, and watches every operation.

    What a real GPU refuses is refused: an operation over tensors of both devices (but for numbers
    without an axis, and for indices). What it must be waited for is noted in *waits*: reading
    numbers back, sizes that depend on numbers, copies from memory that is not pinned. Inside
    `capturing` waits are refused, too, and so is any copy between the devices.
    """

    def __init__(self, monkeypatch):
        self.waits = []
        self.operations = set()  # names of what was done with its tensors
        self.captures = False
        self._where = {}  # by storage; a weak reference keeps its address from being used again
        self._pinned = {}
        self._modes = (_Calls(self), _Operations(self))
        told = {
            "mem_get_info": (1 << 30, 2 << 30),
            "max_memory_allocated": 1 << 20,
            "synchronize": None,
            "get_device_properties": SimpleNamespace(uuid="pretended"),
        }
        for name, answer in told.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *raised):
        for mode in reversed(self._modes):
            mode.__exit__(*raised)

    @contextmanager
    def capturing(self):
        self.captures = True
        try:
            yield
        finally:
            self.captures = False

    def holds(self, tensor):
        """Whether *tensor* lies on it; None of one that torch has made on its own account."""
        found = self._where.get(tensor.untyped_storage()._cdata)
        return None if found is None else found[0]

    def put(self, made, here):
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                self._where[storage._cdata] = here, StorageWeakRef(storage)
        return made

    def pin(self, tensor):
        self._pinned[tensor.untyped_storage()._cdata] = StorageWeakRef(tensor.untyped_storage())
        return tensor

    def moved(self, tensor, here, non_blocking):
        """A copy on the other device."""
        self.refuse("a copy between devices")
        if not (here and non_blocking and tensor.untyped_storage()._cdata in self._pinned):
            self.wait("a copy to the GPU" if here else "a copy to the CPU")
        return self.put(tensor.clone(), here)

    def wait(self, what):
        self.refuse(what)
        self.waits.append(what)

    def refuse(self, what):
        if self.captures:
            raise RuntimeError(f"while operations are captured: {what}")


class _Calls(TorchFunctionMode):
    """What Python asks for: devices, tensors on a device, copies from one to the other."""

    def __init__(self, gpu):
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        gpu = self._gpu
        if func == _GIVES_DEVICE:
            return GPU if gpu.holds(args[0]) else func(*args, **kwargs)
        if func in (torch.Tensor.to, torch.Tensor.cpu):
            return self._to(func, args, kwargs)
        if func is torch.Tensor.pin_memory:
            return gpu.pin(gpu.put(args[0].clone(), False))
        if func in _READS and gpu.holds(args[0]):
            gpu.wait("numbers read back")
        if "device" not in kwargs and "pin_memory" not in kwargs:
            made = func(*args, **kwargs)
            fresh = not any(isinstance(each, torch.Tensor) for each in tree_leaves((args, kwargs)))
            return gpu.put(made, False) if fresh else made
        here = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        pinned = kwargs.pop("pin_memory", False)
        made = func(*args, **{**kwargs, "device": CPU})
        if func is torch.tensor and here:
            gpu.refuse("a copy between devices")
            gpu.wait("a copy to the GPU")
        gpu.put(made, here)
        return gpu.pin(made) if pinned else made

    def _to(self, func, args, kwargs):
        gpu, (tensor, *given) = self._gpu, args
        non_blocking = kwargs.pop("non_blocking", False)
        was, here, rest = bool(gpu.holds(tensor)), None, []
        if func is torch.Tensor.cpu:
            here = False
        for each in [*given, *kwargs.values()]:
            if isinstance(each, torch.Tensor):
                here, rest = bool(gpu.holds(each)), [*rest, each.dtype]
            elif isinstance(each, str | torch.device):
                here = torch.device(each).type == "cuda"
            elif isinstance(each, bool):
                non_blocking = each
            elif each is not None:
                rest.append(each)
        converted = tensor.to(*rest) if rest else tensor
        if here is None or here is was:
            return converted
        return gpu.moved(converted, here, non_blocking)


class _Operations(TorchDispatchMode):
    """What is computed, and on tensors of which device."""

    def __init__(self, gpu):
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu = self._gpu
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        where = [gpu.holds(each) for each in given]
        if True not in where:
            made = func(*args, **(kwargs or {}))
            if given:
                gpu.put(made, False)
            elif gpu.captures and func is torch.ops.aten.lift_fresh.default:
                gpu.refuse(f"{func} of numbers")
            return made
        gpu.operations.add(func._schema.name.removeprefix("aten::"))
        indexed = func.overloadpacket in (
            torch.ops.aten.index,
            torch.ops.aten.index_put,
            torch.ops.aten.index_put_,
        )
        apart = [x for x, here in zip(given, where, strict=True) if here is False and x.dim()]
        if indexed and where[0] is not False:
            if apart or any(each.dtype is torch.bool for each in given[1:]):
                gpu.wait(f"{func} by indices of the CPU, or by a mask")
        elif func.overloadpacket is torch.ops.aten.copy_:
            if apart:
                gpu.wait("a copy between devices")
        elif apart:
            sizes = [(tuple(x.size()), h) for x, h in zip(given, where, strict=True)]
            raise RuntimeError(f"{func} over tensors of both devices: {sizes}")
        elif {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
            gpu.wait(f"{func}")
        made = func(*args, **(kwargs or {}))
        changed = [x for x, here in zip(given, where, strict=True) if here is None]
        gpu.put(changed, True)  # torch has made it for this operation
        return made if func.overloadpacket is torch.ops.aten.copy_ else gpu.put(made, True)
