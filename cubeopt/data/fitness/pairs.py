"""Questions and answers: how alike they are, how hard it is to lead from one to the other.

Shapes: N pairs, D embedding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import SPLITS, Dataset, Rows
from cubeopt.data.fitness import excerpt, regression
from cubeopt.data.fitness.regression import Products
from cubeopt.data.fitness.spectrum import Axes, Score, score
from cubeopt.trial import Task

LIMIT = 20_000  # pairs of a task and split, at most
CANDIDATES = 120  # answers among which the right one is to be found: the measure in the literature
MANY = 4_000  # "among all": pairs, at most, for the work grows with their square
BINS = 50  # of a histogram, from -1 to 1
_BLOCKS = 20  # of CANDIDATES pairs, at most
_PIECE = 8192  # pairs held in float64 at a time
_REST = 0.2  # of the training pairs choose the strength of the ridge


@dataclass(frozen=True)
class Likeness:
    """Cosines of question and answer, and of questions with the answers of others."""

    task: str
    label: str | None  # None: all pairs of the task
    pairs: int
    of: int
    true: float
    shuffled: float  # mean over every question with every other pair's answer
    true_counts: list[int]  # by bin, from -1 to 1
    shuffled_counts: list[int]  # of one shuffle


@dataclass(frozen=True)
class Retrieval:
    """How often the right answer is the nearest, and the mean of 1 / its rank."""

    name: str
    candidates: int
    questions: int
    top1: float
    mrr: float


@dataclass(frozen=True)
class Difficulty:
    """Yardsticks of one task: fitted on its training pairs, measured on its validation pairs."""

    task: str
    train: int
    validation: int
    of: int  # validation pairs in all
    ridge_strength: float
    scores: list[Score]
    length: float  # mean length of the ridge's predictions over that of the targets
    retrieval: list[Retrieval]


def likeness(dataset: Dataset, task: Task) -> list[Likeness]:
    """Over the pairs of all splits: all of them, then those of each label."""
    parts = [dataset.rows([task], split) for split in SPLITS]
    source, target, label = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("source", "target", "label")
    )
    places = excerpt.draw(len(source), LIMIT)
    known = label >= 0
    wanted: list[tuple[str | None, Int64[Tensor, " N"], int]] = [(None, places, len(source))]
    for code, name in enumerate(dataset.label_names.get(task, ())):
        having = places[label[places] == code]
        wanted.append((name, having, int((known & (label == code)).sum())))
    return [
        _likeness(dataset, task, name, source[some], target[some], of)
        for name, some, of in wanted
        if len(some) > 1
    ]


def _likeness(
    dataset: Dataset,
    task: Task,
    label: str | None,
    source: Int64[Tensor, " N"],
    target: Int64[Tensor, " N"],
    of: int,
) -> Likeness:
    given, wanted = (excerpt.unit(excerpt.numbers(dataset, rows)) for rows in (source, target))
    true = (given * wanted).sum(1)
    count = len(true)
    everything = float(given.double().sum(0) @ wanted.double().sum(0))
    # One cycle through all pairs: nobody meets the own answer.
    order = torch.randperm(count, generator=excerpt.generator())
    shuffled = (given[order] * wanted[order.roll(1)]).sum(1)
    return Likeness(
        str(task),
        label,
        count,
        of,
        float(true.double().mean()),
        (everything - float(true.double().sum())) / (count * (count - 1)),
        _histogram(true),
        _histogram(shuffled),
    )


def _histogram(cosines: Float32[Tensor, " N"]) -> list[int]:
    return torch.histc(cosines.clamp(-1.0, 1.0), BINS, -1.0, 1.0).long().tolist()


def difficulty(dataset: Dataset, task: Task, fitted: Axes, width: int) -> Difficulty | None:
    """Copy, mean and ridge of *task*; the answer retrieved, also through *width* axes of *fitted*.

    None where the training or validation split has no pairs.
    """
    train = excerpt.pairs(dataset, task, "train", LIMIT)
    unseen = excerpt.pairs(dataset, task, "validation", LIMIT)
    if not len(train) or not len(unseen):
        return None
    rest = excerpt.held_out(train.group, _REST)
    most, rest_products = (
        _products(dataset, excerpt.chosen(train, rows)) for rows in (~rest, rest)
    )
    ridge = regression.ridge(most, rest_products)
    given, wanted = (excerpt.numbers(dataset, rows) for rows in (unseen.source, unseen.target))
    led = ridge.predict(given)
    mean = ridge.target_mean.to(wanted)
    lengths = led.norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-12)
    return Difficulty(
        str(task),
        len(train),
        len(unseen),
        dataset.counts([task])["validation"],
        ridge.strength,
        [
            score("copy", given, wanted, mean),
            score("mean", mean.expand_as(wanted), wanted, mean),
            score("ridge", led, wanted, mean),
        ],
        float(lengths.mean()),
        _retrievals(unseen.target, wanted, _guesses(given, wanted, led, fitted, width)),
    )


def _products(dataset: Dataset, rows: Rows) -> Products:
    def pieces() -> Iterator[tuple[Float64[Tensor, "N D"], Float64[Tensor, "N D"]]]:
        for source, target in zip(
            rows.source.split(_PIECE), rows.target.split(_PIECE), strict=True
        ):
            yield (
                excerpt.numbers(dataset, source).double(),
                excerpt.numbers(dataset, target).double(),
            )

    return regression.products(dataset.embeddings.shape[1], pieces())


def _guesses(
    given: Float32[Tensor, "N D"],
    wanted: Float32[Tensor, "N D"],
    led: Float32[Tensor, "N D"],
    fitted: Axes,
    width: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """What is compared with what: a guess from the question, and what stands for an answer."""
    codes = fitted.encode(given, width)
    return {
        "question": (given, wanted),
        "pca": (fitted.decode(codes), wanted),
        "pca_codes": (codes, fitted.encode(wanted, width)),
        "ridge": (led, wanted),
    }


def _retrievals(
    answers: Int64[Tensor, " N"],
    wanted: Float32[Tensor, "N D"],
    guesses: Mapping[str, tuple[Tensor, Tensor]],
) -> list[Retrieval]:
    """Among few candidates (the mean over blocks of pairs), and among all."""
    order = torch.randperm(len(wanted), generator=excerpt.generator())
    blocks = list(order.split(CANDIDATES))
    if len(blocks) > 1 and len(blocks[-1]) < CANDIDATES:
        blocks.pop()
    blocks = blocks[:_BLOCKS]
    found = []
    for name, (guess, answer) in guesses.items():
        found.append(_retrieval(name, [_ranks(guess[b], answer[b], answers[b]) for b in blocks]))
        if len(order) > CANDIDATES:
            some = order[:MANY]
            ranks = _ranks(guess[some], answer[some], answers[some])
            found.append(_retrieval(name, [ranks]))
    return found


def _ranks(guess: Tensor, answer: Tensor, which: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """The place of each right answer among all; the same sentence elsewhere is right as well."""
    cosines = F.normalize(guess, dim=1) @ F.normalize(answer, dim=1).T
    right = cosines.diag()[:, None]
    return 1 + ((cosines > right) & (which[:, None] != which)).sum(1)


def _retrieval(name: str, ranks: list[Int64[Tensor, " N"]]) -> Retrieval:
    every = torch.cat(ranks).double()
    return Retrieval(
        name,
        len(ranks[0]),
        len(every),
        float((every == 1).double().mean()),
        float((1.0 / every).mean()),
    )
