"""Is a dataset fit for the cube: every figure that says so, with the rows it rests on.

All of it is measured on the numbers as the cube is given them, after the dataset's normalisation.
*fvu* is the fraction of variance unexplained: 0 is perfect, 1 is no better than the training mean.

Shapes: N rows, D embedding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from cubeopt.data.dataset import SPLITS, Dataset
from cubeopt.data.fitness import autoencoder as networks
from cubeopt.data.fitness import drift as drifting
from cubeopt.data.fitness import excerpt, pairs, probes, spectrum
from cubeopt.data.fitness import neighbours as copies
from cubeopt.data.fitness.autoencoder import Trained
from cubeopt.data.fitness.drift import Drift
from cubeopt.data.fitness.excerpt import Excerpt
from cubeopt.data.fitness.findings import Finding, Severity, findings
from cubeopt.data.fitness.neighbours import Neighbours
from cubeopt.data.fitness.pairs import Difficulty, Likeness
from cubeopt.data.fitness.probes import Reading
from cubeopt.data.fitness.spectrum import Axes, Moments, Score
from cubeopt.errors import DataError
from cubeopt.trial import Task

FACES = (64, 225, 729)  # numbers on the face of 8x8x8, 15x15x15 and 27x27x27
WIDTHS = (8, 16, 32, 64, 128, 225, 256, 729)
FITTED = 50_000  # training sentences of a PCA, at most
MEASURED = 20_000  # sentences of every other split, at most
HELD_OUT = 0.2  # of the training groups stand for "unseen, but of the same split"
PAIRED = (Task.DIALOGUE, Task.NLI)

Progress = Callable[[str, float], None]  # what, and the share of it that is done


@dataclass(frozen=True)
class Geometry:
    """How the sentences of all splits lie."""

    sentences: int
    of: int
    effective_rank: float
    mean_cosine: float
    explained: list[float]  # by the first 1, 2, ... D axes, in-sample


@dataclass(frozen=True)
class Fitness:
    """Everything that was measured, and what is wrong."""

    folder: str
    fingerprint: str
    normalisation: str
    width: int
    code_width: int  # numbers of the codes below: those of the smallest usual face
    sentences: dict[str, int]  # by split
    rows: dict[str, dict[str, int]]  # by task and split
    limits: dict[str, int]  # from how many on rows are drawn by chance
    geometry: Geometry
    fitted_on: int  # training sentences of the PCA
    measured_on: int  # validation sentences
    reconstruction: list[Score]
    neighbours: list[Neighbours]
    likeness: list[Likeness]
    difficulty: list[Difficulty]
    readings: list[Reading]
    unlabelled: dict[str, float]  # share of the rows of each task that could have a label
    drift: Drift
    networks: list[Trained]
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """What makes the dataset unfit."""
        return [each for each in self.findings if each.severity is Severity.PROBLEM]

    def as_json(self) -> dict[str, Any]:
        """Plain rows, as the report and --json take them."""
        return asdict(self)


def check(
    dataset: Dataset, mlp: bool = False, seeds: int = 3, progress: Progress | None = None
) -> Fitness:
    """Measure *dataset*; with *mlp* also train small networks, *seeds* of each."""
    tell = progress or (lambda what, share: None)
    splits = {split: excerpt.sentences(dataset, split) for split in SPLITS}
    for split in ("train", "validation"):
        if len(splits[split]) < 2:
            raise DataError(
                f"{dataset.folder}: {len(splits[split])} {split} sentences: nothing to measure; "
                "build it from more files"
            )
    width = dataset.embeddings.shape[1]
    code_width = min(FACES[0], width)
    with _stage(tell, "variance"):
        parts, sums = _moments(dataset, splits)
        train = sums["train"] + sums["held-out train"]
        fitted = spectrum.axes(train)
        geometry = _geometry(sums, splits)
        unseen = parts["validation"]
        reconstruction = _reconstruction(dataset, fitted, unseen, code_width)
    with _stage(tell, "near copies"):
        near = copies.neighbours(dataset, splits, lambda share: tell("near copies", share))
    with _stage(tell, "pairs"):
        paired = [task for task in dataset.tasks if task in PAIRED]
        alike = [each for task in paired for each in pairs.likeness(dataset, task)]
        hard = [pairs.difficulty(dataset, task, fitted, code_width) for task in paired]
    with _stage(tell, "labels"):
        labelled = [task for task in dataset.tasks if task in probes.LABELLED]
        read = [
            each for task in labelled for each in probes.readings(dataset, task, fitted, code_width)
        ]
    with _stage(tell, "drift"):
        drift = _drift(dataset, splits, parts, sums, fitted)
    trained = _networks(dataset, splits, unseen, code_width, seeds, tell) if mlp else []
    measured = Fitness(
        str(dataset.folder),
        dataset.fingerprint,
        dataset.normalisation.name,
        width,
        code_width,
        {split: len(each) for split, each in splits.items()},
        {str(task): dataset.counts([task]) for task in dataset.tasks},
        _limits(),
        geometry,
        train.count,
        len(unseen),
        reconstruction,
        near,
        alike,
        [each for each in hard if each is not None],
        read,
        {str(task): _unlabelled(dataset, task) for task in labelled},
        drift,
        trained,
        [],
    )
    return replace(measured, findings=findings(measured))


@contextmanager
def _stage(tell: Progress, what: str) -> Iterator[None]:
    tell(what, 0.0)
    yield
    tell(what, 1.0)


def _moments(
    dataset: Dataset, splits: Mapping[str, Excerpt]
) -> tuple[dict[str, Excerpt], dict[str, Moments]]:
    """What is measured of each split, training in two, and the sums over it."""
    train = splits["train"].drawn(FITTED)
    held = excerpt.held_out(train.groups, HELD_OUT)
    parts = {
        "train": train.where(~held),
        "held-out train": train.where(held),
        **{name: splits[name].drawn(MEASURED) for name in SPLITS[1:]},
    }
    width = dataset.embeddings.shape[1]
    sums = {
        name: spectrum.moments(width, excerpt.pieces(dataset, part.rows))
        for name, part in parts.items()
    }
    return parts, sums


def _geometry(sums: Mapping[str, Moments], splits: Mapping[str, Excerpt]) -> Geometry:
    first, *others = sums.values()
    together = sum(others, first)
    values = spectrum.axes(together).values
    return Geometry(
        together.count,
        sum(map(len, splits.values())),
        spectrum.effective_rank(values),
        spectrum.mean_cosine(together),
        spectrum.explained(values).tolist(),
    )


def _reconstruction(
    dataset: Dataset, fitted: Axes, unseen: Excerpt, code_width: int
) -> list[Score]:
    def rows() -> Iterator[Any]:
        return excerpt.pieces(dataset, unseen.rows)

    widths = [width for width in WIDTHS if width < len(fitted.mean)]
    return [
        *spectrum.yardsticks(fitted, rows(), code_width),
        *spectrum.reconstructions(fitted, rows(), widths),
    ]


def _drift(
    dataset: Dataset,
    splits: Mapping[str, Excerpt],
    parts: Mapping[str, Excerpt],
    sums: Mapping[str, Moments],
    fitted: Axes,
) -> Drift:
    width = min(FACES[0], len(fitted.mean))
    return Drift(
        width,
        drifting.parts(dataset, parts, sums, width),
        drifting.told(dataset, splits["train"], splits["validation"], fitted, width),
        drifting.shares(dataset),
    )


def _networks(
    dataset: Dataset,
    splits: Mapping[str, Excerpt],
    unseen: Excerpt,
    width: int,
    seeds: int,
    tell: Progress,
) -> list[Trained]:
    train = splits["train"].drawn(networks.LIMIT)
    rest = excerpt.held_out(train.groups, networks.REST)
    rows, asked = (excerpt.numbers(dataset, each.rows) for each in (train, unseen))
    found = []
    for noise in (0.0, networks.NOISE):
        what = f"network, noise {noise}"

        def step(share: float, what: str = what) -> None:
            tell(what, share)

        found.append(networks.autoencoder(rows, rest, asked, width, noise, range(seeds), step))
    return found


def _unlabelled(dataset: Dataset, task: Task) -> float:
    labels = [dataset.rows([task], split).label for split in SPLITS]
    unknown = sum(int((each < 0).sum()) for each in labels)
    return unknown / max(1, sum(map(len, labels)))


def _limits() -> dict[str, int]:
    return {
        "PCA: training sentences": FITTED,
        "PCA: sentences of any other split": MEASURED,
        "near copies: sentences compared with": copies.COMPARED,
        "near copies: cosines": copies.PRODUCTS,
        "pairs of a task and split": pairs.LIMIT,
        "retrieval among all: pairs": pairs.MANY,
        "label probes: training rows": probes.TRAIN,
        "label probes: validation rows": probes.VALIDATION,
        "drift: sentences a split the classifier sees": drifting.TOLD,
        "networks: training sentences": networks.LIMIT,
    }
