"""One configuration, one training, in a folder of its own: what `cubeopt train` runs.

experiments/NAME/
  config.yaml      the whole configuration, as it was resolved
  metrics.jsonl    one line per epoch
  checkpoints/     step_00000480/ ...
  result.json      what came out, beside the baselines and what was found: written at the end
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cubeopt.data import dataset
from cubeopt.errors import CheckpointError, ConfigError, DataError, DivergedError
from cubeopt.search import configuration
from cubeopt.search.objective import DIRECTIONS
from cubeopt.service import yardsticks
from cubeopt.service.yardsticks import Yardstick
from cubeopt.settings import Settings
from cubeopt.training import checkpoint, logbook
from cubeopt.training.diagnosis import Finding, diagnose
from cubeopt.training.feed import Feed
from cubeopt.training.loop import EpochEnd, PackRun, TrialState
from cubeopt.trial import TrialSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of an experiment, and of its folder
_TRAIN = "train/"  # begins the names of the training's own numbers in an epoch's row
_NEAR = ("fvu", "cosine")
_SLOT = 0  # the trial's place; idle slots fill the pack to the width of the run it repeats


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    config: Path
    name: str
    device: torch.device
    resume: bool = False
    force: bool = False  # train although the dataset is another one than the config's


@dataclass(frozen=True)
class Progress:
    """Where the training stands."""

    epoch: int  # ended
    epochs: int
    step: int
    total_steps: int
    numbers: Mapping[str, float | None]  # of the training: means over the current epoch's batches
    samples_per_second: float  # since this call began, validations included
    seconds_left: float  # at this pace
    metrics: Mapping[str, float | None] | None = None  # at the end of an epoch
    findings: Sequence[Finding] = ()  # that this epoch is the first to show


@dataclass(frozen=True)
class CorpusScores:
    """A corpus of a pooled dataset on its own; fvu is relative to the training mean of all."""

    corpus: str
    split: str
    rows: int
    fvu: float | None  # None: not finite, as where the targets do not vary
    cosine: float | None
    pca_fvu: float | None  # of PCA through as many numbers as the cube
    pca_cosine: float | None


@dataclass(frozen=True)
class Result:
    """What came out."""

    metric: str
    value: float | None
    epochs: int
    checkpoint: str
    log: str  # a line for each epoch
    metrics: dict[str, float | None]
    baselines: list[Yardstick]
    findings: list[Finding]
    corpora: list[CorpusScores]  # of a dataset of several

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def train(
    request: Request,
    settings: Settings,
    provenance: Mapping[str, Any],
    stop: threading.Event,
    tell: Callable[[Progress], None],
) -> Result | None:
    """Train *request* to its last epoch; None when *stop* ended it early, with a checkpoint."""
    folder = settings.experiments_dir / _checked(request.name)
    spec, origin = configuration.read_training(request.config)
    origin = origin or {}
    metric = _metric(origin, request.config)
    loaded = _dataset(request, spec, origin, settings)
    feed = Feed(loaded, spec.plan.task, request.device)
    run = PackRun(spec.shape, _width(origin, request.config), feed)
    experiment = _Experiment(folder, run, spec, provenance)
    experiment.open(request.resume)
    total_steps = spec.plan.epochs * run.steps_per_epoch
    pace = _Pace(run, spec)
    while (step := run.steps_done(_SLOT)) < total_steps:
        if stop.is_set():
            experiment.stop()
            return None
        ends = run.step()
        if ends:
            row, found = experiment.epoch_ended(ends[0])
            numbers = {
                name.removeprefix(_TRAIN): x for name, x in row.items() if name.startswith(_TRAIN)
            }
            tell(pace.progress(numbers, row, found))
            if ends[0].diverged:
                raise DivergedError(
                    f"training diverged in epoch {ends[0].epoch}: a metric is NaN or infinite; "
                    "lower learning_rate or gradient_clip"
                )
        elif (step + 1) % spec.plan.log_interval == 0:
            tell(pace.progress(run.running(_SLOT)))
    return experiment.finish(metric)


class _Pace:
    """How fast this call trains."""

    def __init__(self, run: PackRun, spec: TrialSpec) -> None:
        self._run, self._spec = run, spec
        self._first, self._started = run.steps_done(_SLOT), time.perf_counter()

    def progress(
        self,
        numbers: Mapping[str, float | None],
        metrics: Mapping[str, float | None] | None = None,
        findings: Sequence[Finding] = (),
    ) -> Progress:
        """Where the training stands now."""
        step, epochs = self._run.steps_done(_SLOT), self._spec.plan.epochs
        total = epochs * self._run.steps_per_epoch
        seconds = (time.perf_counter() - self._started) / (step - self._first)
        return Progress(
            epoch=step // self._run.steps_per_epoch,
            epochs=epochs,
            step=step,
            total_steps=total,
            numbers=numbers,
            samples_per_second=self._spec.shape.batch_size / seconds,
            seconds_left=(total - step) * seconds,
            metrics=metrics,
            findings=findings,
        )


class _Experiment:
    """The folder of a training, and the run that writes to it.

    A checkpoint stands at the end of an epoch: who goes on from it sums up whole epochs.
    """

    def __init__(
        self, folder: Path, run: PackRun, spec: TrialSpec, provenance: Mapping[str, Any]
    ) -> None:
        self._folder, self._run, self._spec = folder, run, spec
        self._provenance = dict(provenance)
        self._row: dict[str, float | None] = {}  # of the last epoch
        self._rows: list[dict[str, float | None]] = []  # of all epochs, numbered, as in the log
        self._border: TrialState = run.fresh(spec)  # where it ended

    @property
    def _checkpoints(self) -> Path:
        return self._folder / logbook.CHECKPOINTS

    @property
    def _log(self) -> Path:
        return self._folder / logbook.LOG

    def open(self, resume: bool) -> None:
        """Start fresh, or from the newest checkpoint."""
        saved = sorted(self._checkpoints.glob("step_*")) if self._checkpoints.is_dir() else []
        if saved and not resume:
            raise ConfigError(
                f"experiment {self._folder.name!r} has checkpoints in {self._checkpoints}; "
                "continue it with --resume, or choose another --experiment-name"
            )
        if resume and not saved:
            raise CheckpointError(f"nothing to resume: no checkpoint in {self._checkpoints}")
        if not resume:
            content = {configuration.TRAINING_SECTION: self._spec.flat()}
            configuration.write(content, self._folder / logbook.CONFIG)
            self._rows = self._kept_rows(0)
            self._run.fill(_SLOT, self._border)
            return
        state, facts = checkpoint.load(saved[-1], self._run.cube.layout)
        if state.spec != self._spec:
            raise CheckpointError(
                f"{saved[-1]} was trained with other values than the config's; "
                "resume with the config it was started with"
            )
        if facts.dataset_fingerprint != self._run.feed.dataset.fingerprint:
            raise CheckpointError(f"{saved[-1]} was trained on another dataset")
        if facts.pack_width != self._run.width:
            raise CheckpointError(
                f"{saved[-1]} was trained at pack width {facts.pack_width}, the config asks for "
                f"{self._run.width}"
            )
        self._rows = self._kept_rows(facts.epoch)
        self._row, self._border = dict(facts.metrics), state
        self._run.fill(_SLOT, state)

    def epoch_ended(self, end: EpochEnd) -> tuple[dict[str, float | None], list[Finding]]:
        """Write the epoch's line, and its checkpoint when one is due; what it is first to show."""
        row = checkpoint.finite(end.metrics)
        self._rows.append({"epoch": end.epoch, **row})
        self._row, self._border = row, self._run.state(_SLOT)
        with _writing(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self._rows[-1]) + "\n")
        plan = self._spec.plan
        due = end.epoch % plan.save_checkpoint_every == 0 or end.epoch == plan.epochs
        if due and not end.diverged:
            self._save()
        return row, [each for each in diagnose(self._rows) if each.first == end.epoch]

    def stop(self) -> None:
        """Leave a checkpoint of the last whole epoch, if it has none yet."""
        if not self._path.exists():
            self._save()

    @property
    def _path(self) -> Path:
        return self._checkpoints / f"step_{self._border.step:08d}"

    def _save(self) -> None:
        feed = self._run.feed
        facts = checkpoint.Facts(
            epoch=self._border.step // self._run.steps_per_epoch,
            pack_width=self._run.width,
            dataset_fingerprint=feed.dataset.fingerprint,
            metrics=self._row,
            provenance=self._provenance,
        )
        checkpoint.save(self._path, self._border, self._run.cube.layout, feed, facts)

    def finish(self, metric: str) -> Result:
        """Test once, measure the baselines on the same rows, and write what came out."""
        tested = checkpoint.finite(self._run.evaluate("test")[_SLOT])
        metrics = {**self._row, **{f"test/{name}": value for name, value in tested.items()}}
        feed = self._run.feed
        result = Result(
            metric=metric,
            value=metrics[f"validation/{metric}"],
            epochs=self._spec.plan.epochs,
            checkpoint=str(self._path),
            log=str(self._log),
            metrics=metrics,
            baselines=yardsticks.yardsticks(feed.dataset, feed.tasks, self._spec.shape.face_cells),
            findings=diagnose(self._rows),
            corpora=self._corpora() if len(feed.dataset.corpora) > 1 else [],
        )
        draft = self._folder / ".result.json"
        with _writing(draft):
            draft.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self._folder / logbook.RESULT)
        return result

    def _corpora(self) -> list[CorpusScores]:
        feed, width = self._run.feed, self._spec.shape.face_cells
        found = []
        for split in ("validation", "test"):
            own = self._run.by_corpus(_SLOT, split)
            pca = yardsticks.pca_by_corpus(feed.dataset, feed.tasks, width, split, own)
            for corpus, scores in own.items():
                kept = checkpoint.finite({**scores, **{f"pca_{m}": pca[corpus][m] for m in _NEAR}})
                rows = int(scores["rows"])
                numbers = (kept[name] for name in ("fvu", "cosine", "pca_fvu", "pca_cosine"))
                found.append(CorpusScores(corpus, split, rows, *numbers))
        return found

    def _kept_rows(self, epoch: int) -> list[dict[str, float | None]]:
        """The log up to *epoch*; later lines, the last of which may be half, come again."""
        with _writing(self._log):
            text = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
            lines = text.splitlines(keepends=True)[:epoch]
            kept = [line for line in lines if line.endswith("\n")]
            self._log.write_text("".join(kept), encoding="utf-8")
        try:
            return [json.loads(line) for line in kept]
        except ValueError as error:
            raise CheckpointError(f"{self._log} is damaged: {error}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}") from error


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"experiment name {name!r}: must begin with a letter or digit and have at most 100 "
            "letters, digits, dots, dashes and underscores"
        )
    return name


def _metric(origin: Mapping[str, Any], config: Path) -> str:
    """The metric of the study that the configuration comes from."""
    metric = origin.get("metric", "fvu")
    if not isinstance(metric, str) or metric not in DIRECTIONS:
        raise ConfigError(
            f"{config}: provenance.metric must be one of {', '.join(DIRECTIONS)}, got {metric!r}"
        )
    return metric


def _dataset(
    request: Request, spec: TrialSpec, origin: Mapping[str, Any], settings: Settings
) -> dataset.Dataset:
    folder = settings.dataset_dir(spec.plan.dataset)
    loaded = dataset.load(folder)
    expected = origin.get("dataset_fingerprint")
    if expected is not None and expected != loaded.fingerprint and not request.force:
        raise DataError(
            f"{request.config} was trained on a dataset with fingerprint {str(expected)[:12]}, but "
            f"{folder} has {loaded.fingerprint[:12]}; build that dataset again, or pass --force"
        )
    return loaded


def _width(origin: Mapping[str, Any], config: Path) -> int:
    """The pack width of the run to repeat: across widths the last bits may differ."""
    width = origin.get("pack_width", 1)
    if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= 4096:
        raise ConfigError(f"{config}: provenance.pack_width must be 1 to 4096, got {width!r}")
    return width
