"""Save and load one trial: safetensors for the numbers, JSON for what they mean.

A checkpoint is a folder with `state.safetensors` and `state.json`. It appears by one rename, so it
is whole or not there, and what it holds is enough to continue to the same numbers.

A *thinned* one keeps only what evaluates: the weights, their average, the scales and the facts. It
can be looked at, not continued.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cubeopt import atomic, trial
from cubeopt.errors import CheckpointError, ConfigError
from cubeopt.lattice.layers import Layout
from cubeopt.training.feed import Feed
from cubeopt.training.loop import TrialState
from cubeopt.training.scale import Scale
from cubeopt.training.schedules import Plateau
from cubeopt.trial import TrialSpec

_FORMAT = 4
_TENSORS, _FACTS = "state.safetensors", "state.json"
_MOMENTS = ("weights", "mean", "square")
_DAMAGE = (
    OSError,
    SafetensorError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    ConfigError,
)
_SOME = ("average", "gathered")  # of trials that have them
_EVALUATING = ("weights", "average", "scale")


@dataclass(frozen=True)
class Facts:
    """What a checkpoint's numbers mean."""

    epoch: int
    pack_width: int
    dataset_fingerprint: str
    metrics: Mapping[str, float | None]  # of the epoch's end
    provenance: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What a checkpoint, whole or thinned, evaluates with."""

    spec: TrialSpec
    weights: dict[str, Tensor]  # or their average, by name
    source_scale: Scale
    target_scale: Scale
    facts: Facts


def save(folder: Path, state: TrialState, layout: Layout, feed: Feed, facts: Facts) -> None:
    """Write the checkpoint *folder*, whole or not at all; it takes the place of an older one.

    With the weights goes what serving needs: ``scale/*`` leads from embeddings as the dataset
    stores them to the cube's units and back (of ``standardise`` all is in it), ``normalisation``
    says how those stored differ from the teacher's (``l2``: unit rows, and the mean norm before),
    ``serve`` which weights were evaluated: ``weights/*`` or, with ema_decay, ``average/*``.
    """
    rows = {part: getattr(state, part) for part in (*_MOMENTS, *_SOME)}
    tensors = {
        f"{part}/{name}": view.contiguous()
        for part, row in rows.items()
        if row is not None
        for name, view in layout.named(row).items()
    }
    tensors |= {f"kept/{name}": tensor for name, tensor in state.kept.items()}
    for side, scale in (("source", feed.source_scale), ("target", feed.target_scale)):
        tensors[f"scale/{side}_mean"] = scale.mean
        tensors[f"scale/{side}_deviation"] = scale.deviation
    content = {
        "format": _FORMAT,
        "spec": state.spec.flat(),
        "step": state.step,
        "plateau": asdict(state.plateau),
        "serve": "weights" if state.average is None else "average",
        "epoch": facts.epoch,
        "pack_width": facts.pack_width,
        "dataset_fingerprint": facts.dataset_fingerprint,
        "normalisation": feed.dataset.normalisation.facts(),
        "metrics": dict(facts.metrics),
        "provenance": dict(facts.provenance),
    }
    try:
        _write(folder, tensors, content)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error.strerror}") from error


def load(folder: Path, layout: Layout) -> tuple[TrialState, Facts]:
    """Read the checkpoint *folder*; CheckpointError when missing, damaged or of another shape."""
    content = _read_facts(folder)
    if content.get("thinned"):
        raise CheckpointError(
            f"checkpoint {folder} was thinned: it can be analysed, but no training goes on from "
            "it; take the newest one of its run"
        )
    with _damage(folder):
        tensors = safetensors.torch.load_file(folder / _TENSORS)
        return _state(content, tensors, layout, str(folder / _FACTS)), _facts(content)


def evaluated(folder: Path) -> Evaluated:
    """Read what evaluates from *folder*, whole or thinned; CheckpointError as of `load`."""
    content = _read_facts(folder)
    with _damage(folder):
        tensors = safetensors.torch.load_file(folder / _TENSORS)
        source, target = (
            Scale(tensors[f"scale/{side}_mean"], tensors[f"scale/{side}_deviation"])
            for side in ("source", "target")
        )
        spec = trial.from_flat(content["spec"], str(folder / _FACTS))
        weights = _part(tensors, content["serve"])
        return Evaluated(spec, weights, source, target, _facts(content))


def save_interval(folder: Path) -> int:
    """Epochs from one save point of its training to the next; CheckpointError as of `load`."""
    content = _read_facts(folder)
    with _damage(folder):
        return trial.from_flat(content["spec"], str(folder / _FACTS)).plan.save_checkpoint_every


def thin(folder: Path) -> None:
    """Leave of a checkpoint what evaluates; one that was thinned before stays as it is.

    The mark comes first: whatever happens in between, nobody trains on from half a checkpoint.
    """
    content = _read_facts(folder)
    try:
        with safe_open(folder / _TENSORS, "pt") as file:
            names = list(file.keys())
            keep = {
                name: file.get_tensor(name)
                for name in names
                if name.partition("/")[0] in _EVALUATING
            }
        if not content.get("thinned"):
            _replace(folder / _FACTS, json.dumps(content | {"thinned": True}, indent=1).encode())
        if len(keep) < len(names):
            _replace(folder / _TENSORS, safetensors.torch.save(keep))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot thin checkpoint {folder}: {error}") from error


def remove(folder: Path) -> None:
    """Delete a checkpoint that nothing refers to any more."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """What is wrong with a checkpoint, in one line."""
    try:
        yield
    except _DAMAGE as error:
        raise CheckpointError(
            f"checkpoint {folder} is damaged or of another shape: {error}"
        ) from error


def _facts(content: Mapping[str, Any]) -> Facts:
    return Facts(
        int(content["epoch"]),
        int(content["pack_width"]),
        str(content["dataset_fingerprint"]),
        content["metrics"],
        content["provenance"],
    )


def _state(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], layout: Layout, where: str
) -> TrialState:
    some = {part: found for part in _SOME if (found := _part(tensors, part))}
    rows = {part: layout.row(_part(tensors, part)) for part in _MOMENTS}
    rows |= {part: layout.row(found) for part, found in some.items()}
    return TrialState(
        spec=trial.from_flat(content["spec"], where),
        step=int(content["step"]),
        weights=rows["weights"],
        mean=rows["mean"],
        square=rows["square"],
        average=rows.get("average"),
        gathered=rows.get("gathered"),
        plateau=Plateau(**content["plateau"]),
        kept=_part(tensors, "kept"),
    )


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {folder}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"checkpoint {folder} is not of format {_FORMAT}")
    return content


def _write(folder: Path, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        data = safetensors.torch.save(tensors)
        _write_synced(draft / _TENSORS, data)
        _write_synced(draft / _FACTS, json.dumps(content, indent=1).encode())
        os.chmod(draft, 0o755)
        remove(folder)
        os.rename(draft, folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    atomic.sync(folder.parent)


def _replace(path: Path, data: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        _write_synced(Path(draft), data)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """*metrics* with None for what JSON cannot hold."""
    return {
        name: value if torch.tensor(value).isfinite() else None for name, value in metrics.items()
    }
