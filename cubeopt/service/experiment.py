"""One configuration, one training, in a folder of its own: what `cubeopt train` runs.

experiments/NAME/
  config.yaml      the whole configuration, as it was resolved
  metrics.jsonl    one line per epoch
  checkpoints/     step_00000480/ ...
  result.json      metric, value, epochs, checkpoint, metrics: written at the end
"""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cubeopt.data import dataset
from cubeopt.errors import CheckpointError, ConfigError, DataError, DivergedError
from cubeopt.search import configuration
from cubeopt.search.study import DIRECTIONS
from cubeopt.settings import Settings
from cubeopt.training import checkpoint
from cubeopt.training.feed import Feed
from cubeopt.training.loop import EpochEnd, PackRun, TrialState
from cubeopt.trial import TrialSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of an experiment, and of its folder
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
    step: int
    total_steps: int
    loss: float  # weighted, mean over the current epoch's batches
    metrics: Mapping[str, float | None] | None = None  # at the end of an epoch


@dataclass(frozen=True)
class Result:
    """What came out."""

    metric: str
    value: float | None
    epochs: int
    checkpoint: str
    metrics: dict[str, float | None]

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
    while (step := run.steps_done(_SLOT)) < total_steps:
        if stop.is_set():
            experiment.stop()
            return None
        ends = run.step()
        step += 1
        if ends:
            row = experiment.epoch_ended(ends[0])
            tell(Progress(ends[0].epoch, step, total_steps, row["train/loss/total"], row))
            if ends[0].diverged:
                raise DivergedError(
                    f"training diverged in epoch {ends[0].epoch}: a metric is NaN or infinite; "
                    "lower learning_rate or gradient_clip"
                )
        elif step % spec.plan.log_interval == 0:
            epoch = step // run.steps_per_epoch
            tell(Progress(epoch, step, total_steps, run.running_loss(_SLOT)))
    return experiment.finish(metric)


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
        self._border: TrialState = run.fresh(spec)  # where it ended

    @property
    def _checkpoints(self) -> Path:
        return self._folder / "checkpoints"

    @property
    def _log(self) -> Path:
        return self._folder / "metrics.jsonl"

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
            configuration.write(content, self._folder / "config.yaml")
            self._keep_rows(0)
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
        self._keep_rows(facts.epoch)
        self._row, self._border = dict(facts.metrics), state
        self._run.fill(_SLOT, state)

    def epoch_ended(self, end: EpochEnd) -> dict[str, Any]:
        """Write the epoch's line, and its checkpoint when one is due."""
        row = checkpoint.finite(end.metrics)
        self._row, self._border = row, self._run.state(_SLOT)
        with _writing(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": end.epoch, **row}) + "\n")
        plan = self._spec.plan
        due = end.epoch % plan.save_checkpoint_every == 0 or end.epoch == plan.epochs
        if due and not end.diverged:
            self._save()
        return row

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
        """Test once, and write what came out."""
        tested = checkpoint.finite(self._run.evaluate("test")[_SLOT])
        metrics = {**self._row, **{f"test/{name}": value for name, value in tested.items()}}
        result = Result(
            metric=metric,
            value=metrics[f"validation/{metric}"],
            epochs=self._spec.plan.epochs,
            checkpoint=str(self._path),
            metrics=metrics,
        )
        draft = self._folder / ".result.json"
        with _writing(draft):
            draft.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self._folder / "result.json")
        return result

    def _keep_rows(self, epoch: int) -> None:
        """Forget the lines after *epoch*, the last of which may be half: they come again."""
        with _writing(self._log):
            text = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
            lines = text.splitlines(keepends=True)[:epoch]
            kept = "".join(line for line in lines if line.endswith("\n"))
            self._log.write_text(kept, encoding="utf-8")


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
