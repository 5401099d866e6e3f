"""What simple predictors reach on a split of a dataset.

In the metrics of a trial: fvu, the fraction of variance unexplained, is the sum of squared errors
over the sum of squared distances of the targets to their *training* mean (0 is perfect); cosine is
the mean cosine of prediction and target (1 is perfect); top1 and mrr say whether a prediction finds
its own target among those of its task in the split (see `retrieval`; 1 is perfect).

Shapes: N rows, D embedding, K principal components.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data import retrieval
from cubeopt.data.dataset import Dataset, task_groups
from cubeopt.errors import DataError
from cubeopt.trial import Task

_TO_ITSELF = (Task.RECONSTRUCT, Task.SENTIMENT)
_CHUNK = 8192  # rows held in float64 at a time

Predictor = Callable[[Float[Tensor, "N D"]], Float[Tensor, "N D"]]  # from sources


METRICS = ("fvu", "cosine", "top1", "mrr")


@dataclass(frozen=True)
class Baselines:
    """Scores on the validation split; a trial has to beat them to have learned anything."""

    mean: float  # always predict the training mean
    identity: float | None  # copy the input; None where that is the target itself
    pca: float  # the best linear map through the leading principal components of the input
    pca_width: int  # components used: fewer than asked for where the training rows span fewer


@dataclass(frozen=True)
class Fitted:
    """Predictors by name, fitted on the training rows."""

    target_mean: Float[Tensor, " D"]
    pca_width: int
    predictors: Mapping[str, Predictor]


def baselines(
    dataset: Dataset, tasks: Sequence[Task], pca_width: int, metric: str = "fvu"
) -> Baselines:
    """Fit on the training rows of *tasks*, all together, and measure on their validation rows."""
    fitted = fit(dataset, tasks, pca_width)
    found = scores(dataset, tasks, "validation", fitted.target_mean, fitted.predictors)
    if math.isnan(found["mean"]["fvu"]):
        raise DataError(
            f"{dataset.folder}: the validation targets of {', '.join(tasks)} do not vary, "
            "so there is nothing to explain"
        )
    values = {name: score[metric] for name, score in found.items()}
    return Baselines(values["mean"], values.get("identity"), values["pca"], fitted.pca_width)


def paired(tasks: Sequence[Task]) -> list[Task]:
    """Those of *tasks* that ask for another sentence than they give."""
    return [task for task in tasks if task not in _TO_ITSELF]


def fit(dataset: Dataset, tasks: Sequence[Task], pca_width: int) -> Fitted:
    """The mean, PCA and, where source and target differ, the copy of the source.

    Where each sentence is asked back, *pca* is PCA itself: project and back. Where another one is
    asked for, it is PCA of the inputs and then least squares from the components to the targets.
    """
    assert pca_width > 0, "a bottleneck has at least one number"
    linear = _fit(dataset, tasks, pca_width)
    predictors: dict[str, Predictor] = {
        "mean": lambda source: linear.target_mean.expand_as(source),
        "pca": lambda source: (
            linear.target_mean + (source - linear.input_mean) @ linear.encode @ linear.decode
        ),
    }
    if paired(tasks):
        predictors["identity"] = lambda source: source
    return Fitted(linear.target_mean, linear.encode.shape[1], predictors)


def scores(
    dataset: Dataset,
    tasks: Sequence[Task],
    split: str,
    target_mean: Float[Tensor, " D"],
    predictors: Mapping[str, Predictor],
) -> dict[str, dict[str, float]]:
    """METRICS of each of *predictors* on the rows of *tasks* in *split*.

    Of several tasks also by task, under the names that a trial's metrics have: fvu/nli, ... An fvu
    is NaN where the targets do not vary.
    """
    spread: list[Tensor] = []
    near: dict[str, list[Tensor]] = {name: [] for name in predictors}  # squared error and cosine
    for source, target in _chunks(dataset, tasks, split):
        spread.append((target - target_mean).square().sum(1))
        for name, predict in predictors.items():
            prediction = predict(source)
            errors = (target - prediction).square().sum(1)
            cosines = F.cosine_similarity(prediction, target, dim=1)
            near[name].append(torch.stack([errors, cosines]))
    groups = task_groups(dataset.rows(tasks, split).task, tasks)
    distances = torch.cat(spread)
    found = _retrieved(dataset, tasks, split, predictors)
    for name, parts in near.items():
        errors, cosines = torch.cat(parts, dim=1)
        for group, rows in groups.items():
            found[name][f"fvu{group}"] = float(errors[rows].sum() / distances[rows].sum())
            found[name][f"cosine{group}"] = float(cosines[rows].mean())
    return found


def _retrieved(
    dataset: Dataset, tasks: Sequence[Task], split: str, predictors: Mapping[str, Predictor]
) -> dict[str, dict[str, float]]:
    """top1 and mrr, of the rows of *split* on which trials are judged, too, and as precisely."""
    rows = dataset.rows(tasks, split)
    places = retrieval.places(len(rows))
    source, target = (_embedded(dataset, side[places]) for side in (rows.source, rows.target))
    found: dict[str, dict[str, float]] = {}
    for name, predict in predictors.items():
        guess = predict(source).float()
        ranks = retrieval.ranks(guess, target.float(), rows.target[places], rows.task[places])
        found[name] = {
            f"{metric}{group}": measure(ranks[some])
            for group, some in task_groups(rows.task[places], tasks).items()
            if bool(some.any())
            for metric, measure in (("top1", retrieval.top1), ("mrr", retrieval.mrr))
        }
    return found


@dataclass(frozen=True)
class _Linear:
    """Target from input: through K numbers, best in squares on the training rows."""

    input_mean: Float[Tensor, " D"]
    target_mean: Float[Tensor, " D"]
    encode: Float[Tensor, "D K"]
    decode: Float[Tensor, "K D"]


def _fit(dataset: Dataset, tasks: Sequence[Task], pca_width: int) -> _Linear:
    """Principal components of the inputs, and the regression of the targets on them.

    The components are uncorrelated, so the regression is one division; where target is input
    it gives the components back, which is PCA.
    """
    input_mean, target_mean = _means(dataset, tasks)
    width = len(input_mean)
    within = torch.zeros(width, width, dtype=torch.float64)
    across = torch.zeros(width, width, dtype=torch.float64)
    for source, target in _chunks(dataset, tasks, "train"):
        centred = source - input_mean
        within += centred.T @ centred
        across += centred.T @ (target - target_mean)
    values, vectors = torch.linalg.eigh(within)  # ascending
    # What float64 cannot tell from zero is no direction of the data.
    spanned = int((values > values[-1] * width * torch.finfo(torch.float64).eps).sum())
    used = min(pca_width, spanned)
    encode = vectors[:, width - used :].flip(1)
    decode = encode.T @ across / values[width - used :].flip(0)[:, None]
    return _Linear(input_mean, target_mean, encode, decode)


def _means(
    dataset: Dataset, tasks: Sequence[Task]
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    totals = [
        torch.stack([source.sum(0), target.sum(0)])
        for source, target in _chunks(dataset, tasks, "train")
    ]
    count = dataset.counts(tasks)["train"]
    input_mean, target_mean = torch.stack(totals).sum(0) / count
    return input_mean, target_mean


def _chunks(
    dataset: Dataset, tasks: Sequence[Task], split: str
) -> Iterator[tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]]:
    rows = dataset.rows(tasks, split)
    for source, target in zip(rows.source.split(_CHUNK), rows.target.split(_CHUNK), strict=True):
        yield _embedded(dataset, source), _embedded(dataset, target)


def _embedded(dataset: Dataset, rows: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
    return dataset.embeddings[rows].to(torch.float64)
