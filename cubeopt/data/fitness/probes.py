"""Linear probes: what a logistic regression reads out of embeddings.

Shapes: N rows, D numbers in a row, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import Dataset, Rows
from cubeopt.data.fitness import excerpt
from cubeopt.data.fitness.spectrum import Axes
from cubeopt.trial import Task

TRAIN, VALIDATION = 6_000, 4_000  # labelled rows, at most
LABELLED = (Task.NLI, Task.SENTIMENT)
# Weight of the squared weights against the mean cross entropy; the features have length about 1.
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
_REST = 0.2  # of the training rows choose the penalty
_ITERATIONS = 150


@dataclass(frozen=True, eq=False)
class Probe:
    """A logistic regression."""

    weights: Float32[Tensor, "D C"]
    bias: Float32[Tensor, " C"]

    def logits(self, rows: Float32[Tensor, "N D"]) -> Float32[Tensor, "N C"]:
        """Of each class, for each row."""
        return rows @ self.weights + self.bias


@dataclass(frozen=True)
class Reading:
    """How well a task's labels are read from its embeddings."""

    task: str
    name: str  # full, pca or random
    width: int  # numbers of a sentence that the probe sees
    train: int
    validation: int
    accuracy: float
    error: float  # standard error of the accuracy
    majority: float  # what always the commonest label reaches


def readings(dataset: Dataset, task: Task, fitted: Axes, width: int) -> list[Reading]:
    """From whole embeddings, from *width* axes of *fitted*, and from as many random axes.

    A sentence is read as it is; a pair u, v as [u, v, |u - v|, u * v].
    """
    train, unseen = (
        _labelled(excerpt.pairs(dataset, task, split, 1 << 62), limit)
        for split, limit in (("train", TRAIN), ("validation", VALIDATION))
    )
    if not len(train) or not len(unseen) or len(train.label.unique()) < 2:
        return []
    size = dataset.embeddings.shape[1]
    random = torch.linalg.qr(torch.randn(size, width, generator=excerpt.generator())).Q
    mean = fitted.mean.float()
    rest = excerpt.held_out(train.group, _REST)
    found = []
    for name, projection in (
        ("full", None),
        ("pca", fitted.vectors[:, :width].float()),
        ("random", random),
    ):
        given, scale = _features(dataset, task, train, mean, projection, None)
        asked, _ = _features(dataset, task, unseen, mean, projection, scale)
        probe = fit_best(given, train.label.long(), rest)
        right = probe.logits(asked).argmax(1) == unseen.label
        accuracy, count = float(right.double().mean()), len(right)
        found.append(
            Reading(
                str(task),
                name,
                size if projection is None else width,
                len(train),
                count,
                accuracy,
                math.sqrt(accuracy * (1.0 - accuracy) / count),
                float((unseen.label == train.label.mode().values).double().mean()),
            )
        )
    return found


def _labelled(rows: Rows, limit: int) -> Rows:
    places = (rows.label >= 0).nonzero().flatten()
    return excerpt.chosen(rows, places[excerpt.draw(len(places), limit)])


def _features(
    dataset: Dataset,
    task: Task,
    rows: Rows,
    mean: Float32[Tensor, " D"],
    projection: Float32[Tensor, "D K"] | None,
    scale: float | None,
) -> tuple[Float32[Tensor, "N F"], float]:
    """What the probe sees of *rows*; None for the *scale* of the training rows measures it."""

    def codes(places: Int64[Tensor, " N"]) -> Float32[Tensor, "N E"]:
        numbers = excerpt.numbers(dataset, places)
        return numbers if projection is None else (numbers - mean) @ projection

    given = codes(rows.source)
    scale = scale or float(given.square().sum(1).mean().sqrt()) or 1.0
    given = given / scale
    if task is Task.NLI:
        wanted = codes(rows.target) / scale
        given = torch.cat([given, wanted, (given - wanted).abs(), given * wanted], dim=1)
    return given, scale


def fit_best(
    rows: Float32[Tensor, "N D"], labels: Int64[Tensor, " N"], rest: Bool[Tensor, " N"]
) -> Probe:
    """Fitted on all rows, with the penalty that serves *rest* best when the others are fitted."""
    classes = int(labels.max()) + 1
    if not bool(rest.any()):
        return fit(rows, labels, classes, PENALTIES[len(PENALTIES) // 2])
    losses = {}
    probe: Probe | None = None
    for penalty in PENALTIES:  # from strong to weak, each starting from the last
        probe = fit(rows[~rest], labels[~rest], classes, penalty, probe)
        losses[penalty] = float(F.cross_entropy(probe.logits(rows[rest]), labels[rest]))
    best = min(losses, key=losses.__getitem__)
    return fit(rows, labels, classes, best, probe)


def fit(
    rows: Float32[Tensor, "N D"],
    labels: Int64[Tensor, " N"],
    classes: int,
    penalty: float,
    start: Probe | None = None,
) -> Probe:
    """The least mean cross entropy plus *penalty* / 2 times the squared weights, by L-BFGS."""
    weights = torch.zeros(rows.shape[1], classes) if start is None else start.weights.clone()
    bias = torch.zeros(classes) if start is None else start.bias.clone()
    parameters = [weights.requires_grad_(), bias.requires_grad_()]
    search = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        history_size=20,
        tolerance_grad=1e-5,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(rows @ weights + bias, labels)
        value = value + 0.5 * penalty * weights.square().sum()
        value.backward()
        return value

    search.step(loss)
    return Probe(weights.detach(), bias.detach())


def auc(high: Sequence[float] | Tensor, low: Sequence[float] | Tensor) -> float:
    """The share of pairs in which the one of *high* is above the one of *low*; ties count half."""
    above, below = (torch.as_tensor(each, dtype=torch.float64) for each in (high, low))
    ordered = below.sort().values
    less = torch.searchsorted(ordered, above)
    less_or_equal = torch.searchsorted(ordered, above, right=True)
    return float((less + less_or_equal).sum()) / (2.0 * len(above) * len(below))
