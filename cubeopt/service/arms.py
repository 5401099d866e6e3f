"""The arms of a comparison: configurations whose trainings may be set against each other."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cubeopt.data import dataset
from cubeopt.data.dataset import Dataset
from cubeopt.errors import ConfigError, DataError, InputError
from cubeopt.lattice import geometry
from cubeopt.search import configuration
from cubeopt.training.feed import check_rows
from cubeopt.trial import TrialSpec

_SEEDS = 2**31  # as many as a configuration may name
_SHARED = {  # what arms must have in common, and why
    "task": "the arms would be given different rows",
    "batch_size": "the arms would see different batches",
    "data_seed": "the batches would come in another order",
    "epochs": "one arm would be trained for longer",
}
# What these say changes no number of a training that starts from a seed of our own.
_NO_MATTER = frozenset({"seed", "dataset", "save_checkpoint_every", "log_interval"})


@dataclass(frozen=True)
class Arm:
    """One configuration that is compared."""

    name: str
    file: Path
    spec: TrialSpec

    def trial(self, seed: int) -> TrialSpec:
        """The training that is paired with those of the other arms with the same *seed*.

        Weights come from *seed*, the order of batches from the file's data_seed + *seed*.
        """
        data_seed = (self.spec.plan.data_seed + seed) % _SEEDS
        return self.spec.with_values({"seed": seed, "data_seed": data_seed})


def read(files: Sequence[Path], epochs: int | None) -> list[Arm]:
    """The arms in *files*, with *epochs* put in; ConfigError where they cannot be compared."""
    if len(files) < 2:
        raise InputError(f"compare needs two or more files, got {len(files)}: {files[0]}")
    real = [os.path.realpath(file) for file in files]
    for place, file in enumerate(files):
        if real[place] in real[:place]:
            raise InputError(
                f"{file}: given twice; the difference to itself would be nought, give another file"
            )
    found = [_arm(file, name, epochs) for file, name in zip(files, _names(files), strict=True)]
    for value in _SHARED:
        _check_shared(found, value)
    for place, arm in enumerate(found):
        for other in found[:place]:
            if not differing([other, arm]):
                raise ConfigError(
                    f"{other.file} and {arm.file} say the same: the difference would be nought; "
                    "change a value in one of them (seed does not count, --seeds replaces it)"
                )
    return found


def differing(arms: Sequence[Arm]) -> dict[str, list[Any]]:
    """The values that are not the same in all *arms*, by name, in the order of the arms."""
    flat = [arm.spec.flat() for arm in arms]
    return {
        name: [each[name] for each in flat]
        for name in flat[0]
        if name not in _NO_MATTER and any(each[name] != flat[0][name] for each in flat)
    }


def check_data(arms: Sequence[Arm], folder_of: Callable[[str], Path]) -> Dataset:
    """The dataset of all *arms*, each of which can be trained on it; else one error.

    *folder_of* gives the folder of a dataset as a configuration names it.
    """
    loaded: dict[Path, Dataset] = {}
    for arm in arms:
        folder = folder_of(arm.spec.plan.dataset)
        if folder not in loaded:
            loaded[folder] = dataset.load(folder)
        _check_same(arms[0], arm, loaded[folder_of(arms[0].spec.plan.dataset)], loaded[folder])
        _check_fits(arm, loaded[folder])
    return loaded[folder_of(arms[0].spec.plan.dataset)]


def _arm(file: Path, name: str, epochs: int | None) -> Arm:
    spec, _ = configuration.read_training(file)
    return Arm(name, file, spec if epochs is None else spec.with_values({"epochs": epochs}))


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names without folder and ending, or as they were given where two are equal."""
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


def _check_shared(arms: Sequence[Arm], value: str) -> None:
    first = arms[0]
    for arm in arms[1:]:
        here, there = first.spec.flat()[value], arm.spec.flat()[value]
        if here != there:
            advice = "give --epochs N, or the same in all" if value == "epochs" else "give the same"
            raise ConfigError(
                f"{value} is {here} in {first.file} and {there} in {arm.file}: "
                f"{_SHARED[value]}; {advice}"
            )


def _check_same(first: Arm, arm: Arm, here: Dataset, there: Dataset) -> None:
    if here.fingerprint != there.fingerprint:
        raise DataError(
            f"dataset is {here.folder} in {first.file} and {there.folder} in {arm.file}, and their "
            f"fingerprints differ ({here.fingerprint[:12]} and {there.fingerprint[:12]}): "
            "the arms would see different batches; give the same"
        )


def _check_fits(arm: Arm, data: Dataset) -> None:
    """What would else come out only after other arms had been trained."""
    check_rows(data, arm.spec.plan.task)
    width = data.embeddings.shape[1]
    if arm.spec.shape.embedding_size != width:
        raise ConfigError(
            f"{arm.file}: embedding_size is {arm.spec.shape.embedding_size}, but the dataset "
            f"{data.folder} has embeddings of {width}; set embedding_size to {width}"
        )
    try:
        geometry.geometry(arm.spec.shape)
    except ConfigError as error:
        raise ConfigError(f"{arm.file}: {error}") from error
