"""What simple predictors reach on the rows that a training is judged by.

Shapes: N rows, D embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

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
_ORDER = ("mean", "identity", "pca", "ridge")


@dataclass(frozen=True)
class Yardstick:
    """A predictor's scores by metric; None where one is not finite."""

    name: str  # mean: predict the training mean; identity: copy the input; pca; ridge
    width: int | None  # numbers that the prediction goes through; None: not through fewer
    validation: dict[str, float | None]
    test: dict[str, float | None]


def yardsticks(dataset: Dataset, tasks: Sequence[Task], pca_width: int) -> list[Yardstick]:
    """Fitted on the training rows of *tasks*; ridge and identity where targets are not sources."""
    fitted = baselines.fit(dataset, tasks, pca_width)
    predictors = dict(fitted.predictors)
    if baselines.is_paired(tasks):
        ridge = _ridge(dataset, tasks)
        predictors["ridge"] = lambda source: ridge.predict(source.float()).double()
    validation, test = (
        baselines.scores(dataset, tasks, split, fitted.target_mean, predictors)
        for split in ("validation", "test")
    )
    return [
        Yardstick(
            name,
            fitted.pca_width if name == "pca" else None,
            checkpoint.finite(asdict(validation[name])),
            checkpoint.finite(asdict(test[name])),
        )
        for name in _ORDER
        if name in predictors
    ]


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
