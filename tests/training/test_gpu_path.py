"""The way that a pack goes on a GPU, gone without one.

Every operation of a step is done, on the CPU, with a register of where each tensor would lie (see
`pretended`). It proves that no operation meets tensors of both devices, that the part which is
recorded as a CUDA graph reads nothing back and copies nothing from the CPU, that no step within an
epoch waits for the GPU, that torch has a kernel of CUDA's for each operation, and that the numbers
are those of the same way on a CPU. It proves nothing about what those kernels compute, their bits,
streams, memory or time.
"""

from pathlib import Path

import pytest
import torch
from torch.utils import checkpoint

from cubeopt import trial
from cubeopt.training.feed import Feed
from cubeopt.training.optim import PackAdamW
from cubeopt.trial import Task

from .conftest import CPU, FEATURES, WHOLE, spec, start
from .pretended import GPU, PretendedGpu

# torch's wheels have a header for each operation and device, those without CUDA, too.
HEADERS = Path(torch.__file__).parent / "include" / "ATen" / "ops"
ANYWHERE = ("compositeexplicitautograd", "compositeimplicitautograd")
STEPS = 4  # of three an epoch
BASE = {**WHOLE, "batch_size": 16}
# What a shape has, and what each trial has beside it.
CASES = {
    "fixed steps": ({}, [{}, {"gradient_accumulation": 2, "weighting": "uncertainty"}]),
    "every feature": (
        {"state_size": 32},
        [
            {**FEATURES, "gradient_accumulation": 2},
            {**FEATURES, "weighting": "uncertainty", "data_seed": 1},
            {**FEATURES, "weighting": "dynamic_average", "ema_decay": 0.0},
            {"weighting": "annealed", "spatial_weight_end": 1.0, "emergence": "legacy_log"},
        ],
    ),
    "halting by a threshold, pairs in their file": (
        {"halting": "threshold", "halting_threshold": 0.5},
        [{}, {"data_seed": 1}],
    ),
    "learned halting, each step computed twice": (
        {"halting": "learned", "readout": "value"},
        [{"dropout": 0.2}, {}],
    ),
}


def trained(dataset, device, case, after_a_step=None):
    """A pack of *case*, one slot idle, after some steps and another trial in a slot."""
    shape, trials = CASES[case]
    tasks = (Task.DIALOGUE, Task.NLI) if "pairs" in case else (Task.RECONSTRUCT,)
    feed = Feed(dataset, tasks, device, resident_bytes=0 if "file" in case else None)
    specs = [trial.from_flat({**BASE, **shape, **each}) for each in trials]
    run = start(feed, len(specs) + 1, dict(enumerate(specs)))
    run.cube.stops_early = False
    for step in range(STEPS):
        ended = run.step()
        if after_a_step is not None:
            after_a_step(run, step, ended)
    run.empty(0)
    run.fill(0, run.fresh(specs[-1].with_values({"seed": 17})))
    run.step()
    return run


def has_kernel(operation):
    """Whether CUDA has a kernel for an *operation*, or the operation is made of others."""
    name = operation.strip("_") if operation.startswith("__") else operation.rstrip("_")
    return any((HEADERS / f"{name}_{kind}_dispatch.h").exists() for kind in ("cuda", *ANYWHERE))


@pytest.mark.parametrize("case", CASES)
def test_a_pack_goes_its_way_on_one_device_and_waits_for_it_at_the_ends_of_epochs(
    dataset, case, monkeypatch
):
    monkeypatch.setenv("CUBEOPT_CUDA_GRAPHS", "off")
    monkeypatch.setattr(PackAdamW, "one_by_one", PackAdamW.together)
    if "twice" in case:
        monkeypatch.setattr("cubeopt.lattice.cube._MOST_KEPT", {"cpu": 0, "cuda": 0})
        # Its own check asks for devices in the engine, where the register is not heard.
        monkeypatch.setitem(
            checkpoint._allowed_determinism_checks_to_fns, "default", torch.Tensor.size
        )
    expected = trained(dataset, CPU, case)
    gpu, captured = PretendedGpu(monkeypatch), []

    def after_a_step(run, step, ended):
        begins = not ended and step % run.steps_per_epoch == 0  # orders and batches are fetched
        assert begins or ended or not gpu.waits, f"step {step} waits: {gpu.waits}"
        gpu.waits.clear()
        if step == 0:  # what is made once has been made
            compute = run._compute

            def watched(given):
                with gpu.capturing():
                    captured.append(compute(given))
                return captured[-1]

            run._compute = watched

    with gpu:
        run = trained(dataset, GPU, case, after_a_step)
        found = {slot: run.state(slot) for slot in run.busy}
        measured = run.evaluate("validation")
        assert run.running(0)
        assert run.by_corpus(0, "test")
    assert [name for name in sorted(gpu.operations) if not has_kernel(name)] == []
    assert len(captured) == STEPS
    assert all(gpu.holds(each.gradient) for each in captured)
    for slot, state in found.items():
        for name in ("weights", "mean", "square", "average", "gathered"):
            one, other = getattr(state, name), getattr(expected.state(slot), name)
            assert one is other is None or torch.equal(one, other), (slot, name)
            assert one is None or not gpu.holds(one)
    for slot, metrics in expected.evaluate("validation").items():
        assert measured[slot] == pytest.approx(metrics, rel=1e-4, abs=1e-6, nan_ok=True)


def test_the_pretended_gpu_refuses_what_a_real_one_would(monkeypatch):
    with PretendedGpu(monkeypatch) as gpu:
        here, there = torch.ones(3, device=GPU), torch.ones(3)
        assert (here.device, there.device, (here + 2.0).device) == (GPU, CPU, GPU)
        for mixed in (
            lambda: here + there,
            lambda: torch.cat([there, here[1:]]),
            lambda: there @ here,
        ):
            with pytest.raises(RuntimeError, match="tensors of both devices"):
                mixed()
        assert gpu.waits == []
        waits = [
            lambda: bool(here.sum() > 0),
            lambda: here.tolist(),
            lambda: here[here > 0],
            lambda: here[[0, 2]],
            lambda: here.cpu(),
            lambda: there.to(GPU, non_blocking=True),
            lambda: torch.tensor([1.0], device=GPU),
            lambda: here.copy_(there),
        ]
        for number, wait in enumerate(waits, start=1):
            wait()
            assert len(gpu.waits) >= number
            with (
                gpu.capturing(),
                pytest.raises(RuntimeError, match="while operations are captured"),
            ):
                wait()
        gpu.waits.clear()
        assert there.pin_memory().to(GPU, non_blocking=True).device == GPU
        assert gpu.waits == []


def test_an_operation_without_a_kernel_is_told_from_one_that_has_one():
    found = ["baddbmm_", "__rshift__", "_embedding_bag_forward_only", "_to_copy"]
    assert all(map(has_kernel, found))
    assert not any(map(has_kernel, ["histogram", "no_such_thing"]))


def test_a_pass_that_asks_whether_anybody_goes_on_is_found_out(dataset, monkeypatch):
    monkeypatch.setenv("CUBEOPT_CUDA_GRAPHS", "off")
    with PretendedGpu(monkeypatch) as gpu:
        feed = Feed(dataset, [Task.RECONSTRUCT], GPU)
        run = start(feed, 1, {0: spec(halting="threshold")})
        assert run.cube.stops_early is False
        run.step()
        run.cube.stops_early = True
        with gpu.capturing(), pytest.raises(RuntimeError, match=r"captured: .*_local_scalar_dense"):
            run._compute(run._given([0]))
