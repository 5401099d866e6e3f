"""The cube as one would write it first, to compare with: one trial, autograd, torch's own AdamW.

B samples, C cells, F cells of a face, S state size, D embedding size, L links.
"""

from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cubeopt.lattice.cube import Cube, Passage
from cubeopt.lattice.links import Hearing, Links
from cubeopt.lattice.pack import columns
from cubeopt.training import losses, weighting
from cubeopt.trial import OptimKnobs, TrialSpec

_HEAD_SIZE = 16  # numbers that a head of the attention compares


class Tiers(Enum):
    """How a cell hears the cells of a tier."""

    DENSE = "dense"  # a masked matrix of all pairs of cells
    SPARSE = "sparse"  # only the links there are: the plain code without a trial axis
    # Dense, but the functional expert attends to its tier: another function, about as expressive.
    ATTENTION = "attention"


class StraightCube(nn.Module):
    """What `cubeopt.lattice` computes with three experts, a gate and a fixed number of steps."""

    def __init__(self, cube: Cube, row: Float[Tensor, " N"], tiers: Tiers) -> None:
        super().__init__()
        assert len(cube.shape.experts) == 3
        assert (cube.shape.gate, cube.shape.halting) == ("learned", "fixed")
        self.shape, self.wiring, self.tiers = cube.shape, cube.wiring, tiers
        self.own = nn.ParameterDict()
        self._hearing = {
            name.value: Hearing([getattr(cube.wiring, name)]) for name in cube.shape.experts
        }
        links = {f"{name}.link": getattr(cube.wiring, name) for name in cube.shape.experts}
        for name, value in cube.layout.named(row).items():
            if tiers is not Tiers.SPARSE and name in links:
                value = _matrix(links[name], value)
                self.register_buffer(f"{name}_mask".replace(".", "_"), value != 0.0)
            self.own[name.replace(".", "_")] = nn.Parameter(value.clone())
        if tiers is Tiers.ATTENTION:
            size = cube.shape.state_size
            self.queries = nn.Linear(size, 3 * size)

    def forward(self, source: Float[Tensor, "B D"]) -> Passage:
        state = self._enter(source)
        gates, change = [], torch.zeros((), dtype=source.dtype, device=source.device)
        for _ in range(self.shape.lattice_steps):
            shown = state * torch.rsqrt(1.0 + state.square().mean(-1, keepdim=True))
            shown = shown + self["place.vector"][:, None]
            share = self._linear("gate", shown).softmax(-1)
            proposals = [self._local(shown), self._functional(shown), self._distant(shown)]
            move = (torch.stack(proposals, -1) * share[:, :, None]).sum(-1)
            state = state + move
            gates.append(share.permute(2, 0, 1))
            change = change + move.square().mean()
        steps = float(self.shape.lattice_steps)
        active = torch.ones_like(source[:, 0]).expand(1, len(gates), -1)
        return Passage(
            self._leave(state)[None],
            torch.stack(gates)[None],
            active,
            active.sum(1),
            torch.zeros_like(change)[None],
            change[None] / steps,
            self._roughness(state)[None],
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.own[name.replace(".", "_")]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"] + self[f"{name}.bias"]

    def _enter(self, source: Float[Tensor, "B D"]) -> Float[Tensor, "C B S"]:
        values = self._linear("enter", source).T
        shape = (self.shape.cells, len(source), self.shape.state_size)
        state = source.new_zeros(shape)
        return state.index_copy(0, self.wiring.written, values[..., None] * self["enter.write"])

    def _heard(self, name: str, links: Links, said: Float[Tensor, "C B S"]) -> Tensor:
        rows = said.flatten(1)
        if self.tiers is Tiers.SPARSE:
            bags = self._hearing[name].of_pack(1)
            weights = self[f"{name}.link"]
            heard = F.embedding_bag(
                bags.speaker, rows, bags.starts, mode="sum", per_sample_weights=weights
            )
        else:
            mask = self.get_buffer(f"{name}_link_mask")
            heard = (self[f"{name}.link"] * mask) @ rows
        return heard.view(said.shape) @ self[f"{name}.heard"]

    def _local(self, shown: Float[Tensor, "C B S"]) -> Float[Tensor, "C B S"]:
        return self._linear("local", shown) + self._heard("local", self.wiring.local, shown)

    def _functional(self, shown: Float[Tensor, "C B S"]) -> Float[Tensor, "C B S"]:
        if self.tiers is Tiers.ATTENTION:
            return self._linear("functional", self._attended(shown))
        said = F.glu(self._linear("functional.speech", shown))
        heard = self._heard("functional", self.wiring.functional, said)
        return torch.tanh(self._linear("functional", shown) + heard)

    def _attended(self, shown: Float[Tensor, "C B S"]) -> Float[Tensor, "C B S"]:
        cells, samples, size = shown.shape
        heads = max(1, size // _HEAD_SIZE)
        query, key, value = (
            part.reshape(cells, samples * heads, -1).transpose(0, 1)
            for part in self.queries(shown).chunk(3, dim=-1)
        )
        mask = self.get_buffer("functional_link_mask")
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return heard.transpose(0, 1).reshape(shown.shape)

    def _distant(self, shown: Float[Tensor, "C B S"]) -> Float[Tensor, "C B S"]:
        heard = self._heard("distant", self.wiring.distant, shown)
        rate = 0.5 / (self["distant.time"].square() + 0.5)
        inside = shown
        for _ in range(2):
            target = torch.tanh(self._linear("distant", inside) + heard)
            inside = inside + (target - inside) * rate
        return inside - shown

    def _leave(self, state: Float[Tensor, "C B S"]) -> Float[Tensor, "B D"]:
        face = state[self.wiring.read]
        if self.shape.readout == "value":
            return self._linear("leave", (face @ self["leave.read"]).T)
        return self._linear("leave", face.transpose(0, 1).flatten(1))

    def _roughness(self, state: Float[Tensor, "C B S"]) -> Float[Tensor, ""]:
        grid = state.unflatten(0, self.wiring.size)
        along = [grid.diff(dim=axis).square().mean() for axis in range(3)]
        return (along[0] + along[1] + along[2]) / 3.0


def optimizer(cube: StraightCube, knobs: OptimKnobs) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        cube.parameters(), lr=knobs.learning_rate, weight_decay=knobs.weight_decay
    )


def step(
    cube: StraightCube,
    adamw: torch.optim.AdamW,
    source: Float[Tensor, "B D"],
    target: Float[Tensor, "B D"],
    spec: TrialSpec,
) -> float:
    """One training step of *spec* with all terms of the loss; the weighted loss before it."""
    knobs = columns([spec], source.device, source.dtype)
    each = losses.terms(cube(source), source[None], target[None], knobs.legacy_log)
    weights = zip(weighting.start(spec.loss), each.values(), strict=True)
    loss = torch.stack([weight * term.sum() for weight, term in weights]).sum()
    adamw.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(cube.parameters(), spec.optim.gradient_clip)
    adamw.step()
    return float(loss.detach())


def _matrix(links: Links, weight: Float[Tensor, " L"]) -> Float[Tensor, "C C"]:
    matrix = weight.new_zeros(links.cells, links.cells)
    matrix[links.listener, links.speaker] = weight
    return matrix
