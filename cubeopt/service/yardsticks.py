"""What simple predictors reach on the rows that a training is judged by.

Shapes: N rows, D embedding.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from cubeopt.data import baselines
from cubeopt.data.dataset import Dataset, Rows
from cubeopt.data.fitness import excerpt, regression
from cubeopt.data.fitness.regression import Products, Ridge
from cubeopt.training import checkpoint
from cubeopt.trial import Task

_RIDGE_ROWS = 20_000  # of the training rows at most, as in `data check`
_REST = 0.2  # of them choose the strength of the ridge
_PIECE = 8192  # rows held in float64 at a time
_COPIES = frozenset({"identity", "ridge"})
_ORDER = ("mean", "identity", "pca", "ridge")


@dataclass(frozen=True)
class Yardstick:
    """A predictor's scores, by the names of a trial's metrics; None where one is not finite."""

    name: str  # mean: predict the training mean; identity: copy the input; pca; ridge
    width: int | None  # numbers that the prediction goes through; None: not through fewer
    validation: dict[str, float | None]
    test: dict[str, float | None]


def yardsticks(dataset: Dataset, tasks: Sequence[Task], pca_width: int) -> list[Yardstick]:
    """Fitted on the training rows of *tasks*, measured on the other splits.

    Ridge and identity have scores only of tasks whose target is not the source: of the others,
    they give back what they are given.
    """
    fitted = baselines.fit(dataset, tasks, pca_width)
    predictors = dict(fitted.predictors)
    paired = baselines.paired(tasks)
    if paired:
        ridge = _ridge(dataset, paired)
        predictors["ridge"] = lambda source: ridge.predict(source.float()).double()
    validation, test = (
        baselines.scores(dataset, tasks, split, fitted.target_mean, predictors)
        for split in ("validation", "test")
    )
    return [
        Yardstick(
            name,
            fitted.pca_width if name == "pca" else None,
            _fair(name, validation[name], tasks, paired),
            _fair(name, test[name], tasks, paired),
        )
        for name in _ORDER
        if name in predictors
    ]


def pca_by_corpus(
    dataset: Dataset, tasks: Sequence[Task], pca_width: int, split: str, corpora: Iterable[str]
) -> dict[str, dict[str, float]]:
    """The scores of PCA, fitted on the training rows of all, on the rows of each of *corpora*."""
    fitted = baselines.fit(dataset, tasks, pca_width)
    pca = {"pca": fitted.predictors["pca"]}
    return {
        name: baselines.scores(dataset.of_corpus(name), tasks, split, fitted.target_mean, pca)[
            "pca"
        ]
        for name in corpora
    }


def _fair(
    name: str, scores: dict[str, float], tasks: Sequence[Task], paired: Sequence[Task]
) -> dict[str, float | None]:
    """What says something of predictor *name*: nothing of rows whose source it need only copy."""
    if name in _COPIES and len(paired) < len(tasks):
        kept = tuple(f"/{task}" for task in paired)
        scores = {metric: value for metric, value in scores.items() if metric.endswith(kept)}
    return checkpoint.finite(scores)


def _ridge(dataset: Dataset, tasks: Sequence[Task]) -> Ridge:
    rows = dataset.rows(tasks, "train")
    train = excerpt.chosen(rows, excerpt.draw(len(rows), _RIDGE_ROWS))
    rest = excerpt.held_out(train.group, _REST)
    most, others = (_products(dataset, excerpt.chosen(train, some)) for some in (~rest, rest))
    return regression.ridge(most, others)


def _products(dataset: Dataset, rows: Rows) -> Products:
    def pieces() -> Iterator[tuple[Float64[Tensor, "N D"], Float64[Tensor, "N D"]]]:
        for first in range(0, len(rows), _PIECE):
            some = slice(first, first + _PIECE)
            source, target = (dataset.embeddings[side[some]] for side in (rows.source, rows.target))
            yield source.double(), target.double()

    return regression.products(dataset.embeddings.shape[1], pieces())
