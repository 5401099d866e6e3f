"""How much each term of the loss weighs, for each trial of a pack, while it is trained.

`fixed` and `annealed` are functions of the step. The others put factors on the weights that a
person (or a search) gave, from what the terms do; a term whose weight is 0 stays out of it, and so
does one that can be negative. Minus a variance (diversity) and minus a mutual information
(emergence) can: the sum that `uncertainty` minimises would have no lower bound, and ratios of them
mean nothing. Ponder is the price of a step, which a person sets.

P slots, G of them in one pass, K terms of the loss.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cubeopt.training import device as devices
from cubeopt.training.accumulation import Accumulation
from cubeopt.training.losses import TERMS
from cubeopt.training.optim import Pace, PackAdamW
from cubeopt.trial import LossKnobs

_ERRORS = frozenset({"reconstruction", "similarity", "lattice", "spatial"})  # never negative
OF_OUTPUT = frozenset({"reconstruction", "similarity"})  # those that the output decides
_LEARNED = {"uncertainty": _ERRORS, "gradnorm": OF_OUTPUT}
_SMALLEST = 1e-3  # factor of gradnorm: a step too far must not turn a term around
_TINY = 1e-12


def start(knobs: LossKnobs) -> tuple[float, ...]:
    """The weights that a person gave, in the order of TERMS."""
    return (
        knobs.reconstruction_weight,
        knobs.similarity_weight,
        knobs.diversity_weight,
        knobs.emergence_weight,
        knobs.lattice_weight,
        knobs.spatial_weight,
        knobs.ponder_weight,
    )


def end(knobs: LossKnobs) -> tuple[float | None, ...]:
    """Where `annealed` leads them."""
    return (
        knobs.reconstruction_weight_end,
        knobs.similarity_weight_end,
        knobs.diversity_weight_end,
        knobs.emergence_weight_end,
        knobs.lattice_weight_end,
        knobs.spatial_weight_end,
        None,
    )


def annealed(knobs: LossKnobs, progress: float) -> list[float]:
    """The weights at *progress*, from 0 to 1, of the full run: on a line from start to end."""
    pairs = zip(start(knobs), end(knobs), strict=True)
    return [a if b is None else a + (b - a) * progress for a, b in pairs]


def weighed(knobs: LossKnobs, names: frozenset[str]) -> Bool[Tensor, " K"]:
    """Which of the terms *names* have a weight."""
    pairs = zip(TERMS, start(knobs), strict=True)
    return torch.tensor([name in names and weight > 0 for name, weight in pairs])


def dynamic_average(knobs: LossKnobs, means: Float[Tensor, "2 K"]) -> Float[Tensor, " K"]:
    """The factors after two epochs with these *means* of the terms (Liu, Johns, Davison 2019).

    K softmax(ratio / temperature) over the K terms that are weighed, where ratio is the mean of
    the last epoch to that of the one before; 1 while a mean is not known yet (NaN).
    """
    chosen = weighed(knobs, _ERRORS)
    before, last = means
    ratio = torch.where(before > 0, last / before, 1.0)
    powers = (ratio / knobs.dynamic_average_temperature).masked_fill(~chosen, -torch.inf)
    return torch.where(chosen, chosen.sum() * powers.softmax(0), 1.0)


class _Masks(NamedTuple):
    """Which terms of each slot of a pass have a learned weight."""

    uncertain: Bool[Tensor, "G K"]
    balanced: Bool[Tensor, "G K"]


class Factors(NamedTuple):
    """What the terms of G slots are multiplied by: a function of tensors alone.

    Of slots none of which learns there is nothing but what is given.
    """

    given: Float[Tensor, "G K"]
    learned: Float[Tensor, "G K"] | None = None
    uncertain: Bool[Tensor, "G K"] | None = None  # what is learned is a log-variance
    balanced: Bool[Tensor, "G K"] | None = None  # or a factor; None where none is

    def coefficients(self) -> Float[Tensor, "G K"]:
        """The factors themselves."""
        if self.learned is None or self.uncertain is None:
            return self.given
        halved = 0.5 * torch.exp(-self.learned) * self.given
        uncertain = torch.where(self.uncertain, halved, self.given)
        if self.balanced is None:
            return uncertain
        return torch.where(self.balanced, self.learned * self.given, uncertain)

    def total(self, weighted: Float[Tensor, "G K"]) -> Float[Tensor, " G"]:
        """The loss, from *weighted* terms."""
        if self.learned is None or self.uncertain is None:
            return weighted.sum(1)
        halves = torch.where(self.uncertain, 0.5 * self.learned, 0.0)
        return weighted.sum(1) + halves.sum(1)


class Weighting:
    """The weights of P slots, and what their trials have learned about them.

    *learned* is the log-variance s of a term under `uncertainty` (Kendall, Gal, Cipolla 2018: the
    term L of weight w becomes exp(-s) w L / 2 + s / 2), its factor under `gradnorm` (Chen et al.
    2018), which balances the unweighted terms: a weight says how much more one should pull.
    """

    def __init__(self, width: int, like: Tensor) -> None:
        zeros = like.new_zeros(width, len(TERMS))
        self._learned, self._first = zeros.clone(), zeros.clone()
        self._adam = PackAdamW(self._learned, torch.zeros(len(TERMS)))
        self._gathered = Accumulation(width, len(TERMS), like)
        self._means = torch.full((width, 2, len(TERMS)), torch.nan, dtype=torch.float64)
        self._knobs = [LossKnobs()] * width
        self._fixed: dict[tuple[int, ...], Tensor] = {}
        self._kinds: dict[tuple[int, ...], _Masks] = {}

    @property
    def learned(self) -> Float[Tensor, "P K"]:
        """What the slots have learned; always the same tensor."""
        return self._learned

    @property
    def learns(self) -> bool:
        """Whether some slot has weights that follow a gradient."""
        return any(each.weighting in _LEARNED for each in self._knobs)

    def fill(self, slot: int, knobs: LossKnobs, group: int, kept: Mapping[str, Tensor]) -> None:
        """A trial is in *slot*, of *group* batches to an update, with what `kept` gave for it."""
        self._knobs[slot] = knobs
        for rows in (self._learned, self._first, self._adam.mean, self._adam.square):
            rows[slot] = 0.0
        self._means[slot] = torch.nan
        if knobs.weighting == "gradnorm":
            self._learned[slot] = 1.0
        for name, rows in self._memory(slot).items():
            if name in kept:
                rows[slot] = kept[name].to(rows)
        group = group if knobs.weighting in _LEARNED else 1
        self._gathered.fill(slot, group, kept.get("weighting_gathered"))
        self._fixed.clear()
        self._kinds.clear()

    def empty(self, slot: int) -> None:
        """What the trial in *slot* has learned is forgotten."""
        self.fill(slot, LossKnobs(), 1, {})

    def kept(self, slot: int) -> dict[str, Tensor]:
        """A copy of what the trial in *slot* needs to go on, on the CPU."""
        found = {name: rows[slot].cpu().clone() for name, rows in self._memory(slot).items()}
        gathered = self._gathered.row(slot) if self._knobs[slot].weighting in _LEARNED else None
        return found if gathered is None else {**found, "weighting_gathered": gathered}

    def factors(self, slots: Sequence[int], progress: Sequence[float]) -> Factors:
        """Those of *slots*, at the *progress* of their full runs."""
        given = self._given(tuple(slots), progress)
        masks = self._masks(tuple(slots))
        if masks is None:
            return Factors(given)
        # A whole pack's are given as they lie, and stay where they are.
        learned = self._learned if len(slots) == len(self._learned) else self._learned[list(slots)]
        balanced = masks.balanced if self._balances(slots) else None
        return Factors(given, learned, masks.uncertain, balanced)

    def gradient(
        self,
        slots: Sequence[int],
        terms: Float[Tensor, "G K"],
        weighted: Float[Tensor, "G K"],
        norms: Float[Tensor, "G K"] | None,
    ) -> Float[Tensor, "G K"]:
        """Of what is learned, at a batch with these terms (and *norms*, if some slot balances)."""
        masks = self._masks(tuple(slots))
        if masks is None:
            return torch.zeros_like(terms)
        slope = torch.where(masks.uncertain, 0.5 - weighted, 0.0)
        if norms is None:
            return slope
        rows = self._rows(slots)
        first = self._first[rows]
        self._first[rows] = torch.where(first == 0.0, terms, first)
        asymmetry = self._column(slots, "gradnorm_asymmetry")
        pull = self._pull(rows, masks.balanced, terms, norms, asymmetry)
        return torch.where(masks.balanced, pull, slope)

    @torch.no_grad()
    def update(self, gradient: Float[Tensor, "P K"], counts: Sequence[int], pace: Pace) -> None:
        """Move what is learned where a group of batches ends (see `Accumulation.mean`)."""
        mean = self._gathered.mean(gradient, counts)
        moved = {
            choice: [
                slot
                for slot, (knobs, count) in enumerate(zip(self._knobs, counts, strict=True))
                if count and knobs.weighting == choice
            ]
            for choice in _LEARNED
        }
        if uncertain := moved["uncertainty"]:
            resting = [slot for slot in range(len(counts)) if slot not in uncertain]
            self._adam.step(self._learned, mean, pace, resting)
        if balanced := moved["gradnorm"]:
            rows = self._rows(balanced)
            self._learned[rows] = self._rebalanced(balanced, rows, mean[rows])

    def epoch_ended(self, slot: int, means: Sequence[float]) -> None:
        """The terms of *slot* had these *means* over the epoch that ended."""
        if self._knobs[slot].weighting == "dynamic_average":
            last = torch.tensor(means, dtype=torch.float64)
            self._means[slot] = torch.stack([self._means[slot, 1], last])
            self._fixed.clear()

    def _balances(self, slots: Sequence[int]) -> bool:
        return any(self._knobs[slot].weighting == "gradnorm" for slot in slots)

    def _memory(self, slot: int) -> dict[str, Tensor]:
        """The tensors whose row *slot* the weighting of its trial needs to go on."""
        return {
            "dynamic_average": {"weighting_means": self._means},
            "uncertainty": {
                "weighting_learned": self._learned,
                "weighting_mean": self._adam.mean,
                "weighting_square": self._adam.square,
            },
            "gradnorm": {"weighting_learned": self._learned, "weighting_first": self._first},
        }.get(self._knobs[slot].weighting, {})

    def _given(self, slots: tuple[int, ...], progress: Sequence[float]) -> Float[Tensor, "G K"]:
        """The weights of *slots* but for what is learned; kept until something changes them."""
        if slots not in self._fixed:
            rows = [self._weights(*each) for each in zip(slots, progress, strict=True)]
            found = devices.tensor(rows, self._learned.dtype, self._learned.device)
            if any(self._knobs[slot].weighting == "annealed" for slot in slots):
                return found
            self._fixed[slots] = found
        return self._fixed[slots]

    def _weights(self, slot: int, progress: float) -> list[float]:
        knobs = self._knobs[slot]
        if knobs.weighting == "annealed":
            return annealed(knobs, progress)
        if knobs.weighting == "dynamic_average":
            factors = dynamic_average(knobs, self._means[slot]).tolist()
            return [a * b for a, b in zip(start(knobs), factors, strict=True)]
        return list(start(knobs))

    def _masks(self, slots: tuple[int, ...]) -> _Masks | None:
        """None if no trial of these learns."""
        chosen = [self._knobs[slot] for slot in slots]
        if not any(each.weighting in _LEARNED for each in chosen):
            return None
        if slots not in self._kinds:
            marks = [
                [(weighed(each, names) & (each.weighting == name)).tolist() for each in chosen]
                for name, names in _LEARNED.items()
            ]
            device = self._learned.device
            self._kinds[slots] = _Masks(*(devices.tensor(m, torch.bool, device) for m in marks))
        return self._kinds[slots]

    def _pull(
        self,
        rows: Int64[Tensor, " G"],
        balanced: Bool[Tensor, "G K"],
        terms: Float[Tensor, "G K"],
        norms: Float[Tensor, "G K"],
        asymmetry: Float[Tensor, "G 1"],
    ) -> Float[Tensor, "G K"]:
        """d/dfactor of sum |G - mean(G) rate^asymmetry|, what is subtracted taken as constant.

        G is factor times norm; rate is a term's share of its first loss, relative to the mean one.
        """
        sizes = self._learned[rows] * norms
        left = terms / self._first[rows].clamp(min=_TINY)
        rate = (left / _mean(left, balanced)).clamp(min=_TINY)
        target = _mean(sizes, balanced) * torch.exp(asymmetry * rate.log())
        return (sizes - target).sign() * norms

    def _rebalanced(
        self, slots: Sequence[int], rows: Int64[Tensor, " G"], gradient: Float[Tensor, "G K"]
    ) -> Float[Tensor, "G K"]:
        """The factors of *slots* after a step down *gradient*; their sum is their number again."""
        masks = self._masks(tuple(slots))
        assert masks is not None
        moved = self._learned[rows] - self._column(slots, "gradnorm_rate") * gradient
        moved = moved.clamp(min=_SMALLEST)
        return torch.where(masks.balanced, moved / _mean(moved, masks.balanced), 1.0)

    def _rows(self, slots: Sequence[int]) -> Int64[Tensor, " G"]:
        """*slots* as an index that lies on the device: for a list a GPU would be waited for."""
        return devices.tensor(slots, torch.int64, self._learned.device)

    def _column(self, slots: Sequence[int], knob: str) -> Float[Tensor, "G 1"]:
        values = [[getattr(self._knobs[slot], knob)] for slot in slots]
        return devices.tensor(values, self._learned.dtype, self._learned.device)


def _mean(values: Float[Tensor, "G K"], chosen: Bool[Tensor, "G K"]) -> Float[Tensor, "G 1"]:
    """Of the *chosen* values of each row."""
    return torch.where(chosen, values, 0.0).sum(1, keepdim=True) / chosen.sum(1, keepdim=True)
