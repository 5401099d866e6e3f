"""What simple predictors reach on a dataset's validation split.

In the metric of the study: fvu, the fraction of variance unexplained, is the sum of squared errors
over the sum of squared distances of the targets to their *training* mean (0 is perfect); cosine is
the mean cosine of prediction and target (1 is perfect).

Shapes: N rows, D embedding, K principal components.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import Dataset
from cubeopt.errors import DataError
from cubeopt.trial import Task

_TO_ITSELF = (Task.RECONSTRUCT, Task.SENTIMENT)
_NAMES = ("mean", "identity", "pca")
_CHUNK = 8192  # rows held in float64 at a time


@dataclass(frozen=True)
class Baselines:
    """Scores on the validation split; a trial has to beat them to have learned anything."""

    mean: float  # always predict the training mean
    identity: float | None  # copy the input; None where that is the target itself
    pca: float  # the best linear map through the leading principal components of the input
    pca_width: int  # components used: fewer than asked for where the training rows span fewer


@dataclass(frozen=True)
class _Linear:
    """Target from input: through K numbers, best in squares on the training rows."""

    input_mean: Float[Tensor, " D"]
    target_mean: Float[Tensor, " D"]
    encode: Float[Tensor, "D K"]
    decode: Float[Tensor, "K D"]


def baselines(
    dataset: Dataset,
    tasks: Sequence[Task],
    pca_width: int,
    metric: Literal["fvu", "cosine"] = "fvu",
) -> Baselines:
    """Fit on the training rows of *tasks*, all together, and measure on their validation rows.

    Where each sentence is asked back, *pca* is PCA itself: project and back. Where another one is
    asked for, it is PCA of the inputs and then least squares from the components to the targets.
    """
    assert pca_width > 0, "a bottleneck has at least one number"
    fit = _fit(dataset, tasks, pca_width)
    spread, rows = 0.0, 0
    errors, cosines = dict.fromkeys(_NAMES, 0.0), dict.fromkeys(_NAMES, 0.0)
    for source, target in _chunks(dataset, tasks, "validation"):
        spread += _squares(target - fit.target_mean)
        rows += len(target)
        for name, prediction in _predictions(fit, source).items():
            errors[name] += _squares(target - prediction)
            cosines[name] += float(F.cosine_similarity(prediction, target, dim=1).sum())
    if not spread > 0:
        raise DataError(
            f"{dataset.folder}: the validation targets of {', '.join(tasks)} do not vary, "
            "so there is nothing to explain"
        )
    paired = any(task not in _TO_ITSELF for task in tasks)
    sums, count = (errors, spread) if metric == "fvu" else (cosines, rows)
    return Baselines(
        mean=sums["mean"] / count,
        identity=sums["identity"] / count if paired else None,
        pca=sums["pca"] / count,
        pca_width=fit.encode.shape[1],
    )


def _predictions(fit: _Linear, source: Float[Tensor, "N D"]) -> dict[str, Float[Tensor, "N D"]]:
    components = (source - fit.input_mean) @ fit.encode
    return {
        "mean": fit.target_mean.expand_as(source),
        "identity": source,
        "pca": fit.target_mean + components @ fit.decode,
    }


def _squares(difference: Float[Tensor, "N D"]) -> float:
    return float(difference.square().sum())


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
