"""Cubes whose weights are set by hand, so that what they do is known."""

from typing import Any

import torch
from torch import Tensor

from cubeopt import trial
from cubeopt.data.dataset import TASKS
from cubeopt.emergence import analysis
from cubeopt.emergence.model import Model
from cubeopt.emergence.record import Emergence
from cubeopt.lattice.cube import Cube
from cubeopt.lattice.geometry import positions
from cubeopt.lattice.links import Links
from cubeopt.trial import Task

from ..training.conftest import dataset, feed

__all__ = ["dataset", "feed"]

# A number on each of four columns of three cells.
COLUMNS = {
    "lattice_size": [2, 2, 3],
    "embedding_size": 4,
    "state_size": 1,
    "lattice_steps": 3,
    "batch_size": 4,
    "experts": ["local"],
    "readout": "value",
    "functional_radius": 1.5,
    "distant_links": 1,
}


class Planted:
    """A cube, its weights by name (a view to write to), and the rows that it is shown."""

    def __init__(self, source: Tensor | None = None, seed: int | None = None, **values: Any):
        self.spec = trial.from_flat({**COLUMNS, **values})
        self.cube = Cube(self.spec.shape, torch.device("cpu"))
        self.row = self.cube.layout.initial(seed or 0)[None]
        self.weights = {name: view[0] for name, view in self.cube.layout.views(self.row).items()}
        self.source = torch.zeros(1, 4) if source is None else source
        self.tasks = [Task.RECONSTRUCT] * len(self.source)
        if seed is None:
            self.row.zero_()
            self.weights["enter.weight"].copy_(torch.eye(4))
            self.weights["enter.write"].fill_(1.0)
            self.weights["leave.weight"].copy_(torch.eye(4))
            self.weights["leave.read"].fill_(1.0)

    def layers(self, links: Links) -> tuple[Tensor, Tensor]:
        """Of each link the layer of the listener and of the speaker."""
        z = positions(self.spec.shape.lattice_size)[:, 2]
        return z[links.listener], z[links.speaker]

    def send(self, layer: int, strength: float) -> None:
        """Each cell of *layer* is heard by the one above it, and by no other."""
        links = self.cube.wiring.local
        there, here = self.layers(links)
        self.weights["local.link"][(here == layer) & (there == layer + 1)] = strength
        self.weights["local.heard"].fill_(1.0)

    def cut(self, layer: int) -> None:
        """Nothing is heard across the plane below *layer*."""
        wiring = self.cube.wiring
        for name, links in (
            ("local", wiring.local),
            ("functional", wiring.functional),
            ("distant", wiring.distant),
        ):
            if f"{name}.link" in self.weights:
                there, here = self.layers(links)
                self.weights[f"{name}.link"][(there < layer) != (here < layer)] = 0.0

    def model(self) -> Model:
        task = torch.tensor([TASKS.index(each) for each in self.tasks], dtype=torch.uint8)
        rows = len(self.source)
        return Model(self.cube, self.row, self.spec, self.source, task, rows, 7, "f" * 64)

    def look(self) -> Emergence:
        return analysis.looked_at(self.model(), "planted")


def chain(steps: int = 3) -> Planted:
    """A number goes up its column: each exchange adds twice what the cell below holds."""
    planted = Planted(lattice_steps=steps)
    for layer in (0, 1):
        planted.send(layer, 2.0)
    return planted


def sentences(found: Emergence) -> dict[str, str]:
    """What is found, by kind."""
    return {str(each.kind): each.sentence for each in found.findings}
