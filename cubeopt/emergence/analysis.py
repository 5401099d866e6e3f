"""A checkpoint looked at: who decides what where, and how news travels through the cube."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from cubeopt.data.dataset import Dataset
from cubeopt.emergence import findings, flow, gates
from cubeopt.emergence.model import Model, opened
from cubeopt.emergence.record import Emergence
from cubeopt.settings import Settings

_GATES_SHARE = 0.3  # of the work

Tell = Callable[[str, float], None]  # what is done now, and the share of all that is done


def analyse(folder: Path, settings: Settings, tell: Tell = lambda what, share: None) -> Emergence:
    """Look at the checkpoint *folder*; CheckpointError or DataError when it cannot be."""
    return Analyst(settings).analyse(folder, tell)


class Analyst:
    """Looks at one checkpoint after another; a dataset is read once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: Dataset | None = None

    def analyse(self, folder: Path, tell: Tell = lambda what, share: None) -> Emergence:
        """See `analyse`."""
        torch.set_num_threads(1)
        tell("reading the checkpoint and its dataset", 0.0)
        model, self._held = opened(folder, self._settings, self._held)
        return looked_at(model, str(folder), tell)


def looked_at(model: Model, name: str, tell: Tell = lambda what, share: None) -> Emergence:
    """What *model*, whose checkpoint has this *name*, shows."""
    choices = gates.choices(model, lambda share: tell("gates", _GATES_SHARE * share))
    rest = 1.0 - _GATES_SHARE
    shape, wiring = model.spec.shape, model.cube.wiring
    found = Emergence(
        checkpoint=name,
        epoch=model.epoch,
        dataset=model.spec.plan.dataset,
        dataset_fingerprint=model.fingerprint,
        rows=len(model.source),
        validation_rows=model.validation_rows,
        size=shape.lattice_size,
        placement=shape.placement,
        gate=shape.gate,
        halting=shape.halting,
        experts=[str(each) for each in shape.experts],
        written=wiring.written.tolist(),
        read=wiring.read.tolist(),
        metrics=gates.metrics(model, choices),
        steps=gates.steps(model, choices),
        tasks=gates.tasks(model, choices),
        flow=flow.flow(model, lambda share: tell("flow", _GATES_SHARE + rest * share)),
        findings=(),
    )
    return replace(found, findings=findings.findings(found))
