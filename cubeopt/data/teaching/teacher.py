"""The teacher: a model that turns texts into embeddings, and what makes it the one it is.

Any model of sentence-transformers or transformers, by name or from a folder. No code that comes
with a model is run.

Shapes: N texts, D embedding.
"""

import hashlib
import json
import logging
import logging.handlers
import queue
import re
import reprlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cubeopt import settings
from cubeopt.data.reading.sources import NORM_RANGE
from cubeopt.errors import DataError, DeviceError, InputError

_HUB = "huggingface.co"
_HUB_SECONDS = 10.0  # for the question whether the hub answers at all
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_NO_LIMIT = 1 << 30  # tokens; a tokenizer without a limit gives an absurd number
_SPECIAL_TOKENS = 16  # that a model may add to a text; two are usual
_LOGGERS = ("transformers", "sentence_transformers", "huggingface_hub")
_MISSING = re.compile(r"^(\S[^|\n]*?)\s*\|[^|\n]*MISSING", re.MULTILINE)  # a row of a table
# Where and by whom a model was stored says nothing of what it computes.
_NOT_OF_THE_MODEL = ("_name_or_path", "transformers_version", "architectures")


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model that is ready to embed texts."""

    name: str  # as files of embeddings tell it
    identity: str  # sha256 of all that decides its numbers: weights, tokenizer, pooling, length
    width: int
    pooling: str  # what makes one embedding of those of the tokens, in words
    max_length: int | None  # tokens; the rest of a longer text is not seen
    _model: Any

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """The embeddings of *texts* in one batch; DataError when one of them is of no use."""
        try:
            with _hushed():
                rows = self._model.encode(
                    list(texts),
                    batch_size=max(len(texts), 1),
                    show_progress_bar=False,
                    convert_to_tensor=True,
                )
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"a batch of {len(texts)} texts does not fit into the memory of "
                f"{self._model.device}; choose a smaller --batch-size"
            ) from error
        rows = rows.to("cpu", torch.float32)
        if rows.shape != (len(texts), self.width):
            raise DataError(
                f"teacher {self.name}: expected the shape [{len(texts)}, {self.width}], "
                f"got {list(rows.shape)}; use another teacher"
            )
        self._check(rows, texts)
        return rows

    def truncated(self, texts: Sequence[str]) -> Bool[Tensor, " N"]:
        """Which of *texts* have more tokens than the model sees."""
        cut = torch.zeros(len(texts), dtype=torch.bool)
        if self.max_length is None:
            return cut
        prompt = _prompt(self._model)
        # A token takes at least one character of plain text, so most texts need no look.
        doubtful = [
            number
            for number, text in enumerate(texts)
            if len(prompt + text) + _SPECIAL_TOKENS > self.max_length or not text.isascii()
        ]
        if doubtful:
            with _hushed():
                counts = self._model.tokenizer(
                    [prompt + texts[number] for number in doubtful],
                    truncation=False,
                    padding=False,
                )["input_ids"]
            cut[doubtful] = torch.tensor([len(ids) > self.max_length for ids in counts])
        return cut

    def _check(self, rows: Float[Tensor, "N D"], texts: Sequence[str]) -> None:
        low, high = NORM_RANGE
        norms = torch.linalg.vector_norm(rows, dim=1)
        bad = torch.nonzero(~((norms >= low) & (norms <= high)))
        if not len(bad):
            return
        first = int(bad[0])
        norm = float(norms[first])
        found = f"of norm {norm:.4g}" if norm < float("inf") else "that is not finite"
        raise DataError(
            f"teacher {self.name} gives {reprlib.repr(texts[first])} an embedding {found}, but "
            f"finite ones of norm {low:g} to {high:g} are needed; use a teacher that normalises"
        )


def load(name: str, device: torch.device) -> Teacher:
    """The teacher called *name*, or in the folder *name*, on *device*."""
    library = _library("sentence_transformers")
    folder = settings.expanded(name, "--model")
    place, offline = _locate(name, folder)
    # What a checkpoint lacks is drawn: by a fixed seed, or the identity would change by itself.
    with _hushed() as said, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = library.SentenceTransformer(
                place,
                device=str(device),
                trust_remote_code=False,
                local_files_only=folder.is_dir() or offline is not None,
            )
        # From what others put into a folder or a cache, the libraries raise what they please.
        except Exception as error:
            raise DataError(_unloadable(name, folder, offline, error)) from error
    _check_complete(name, said)
    identity = _identity(model)
    known = f"{folder.resolve().name}@{identity[:12]}" if folder.is_dir() else place
    limit = model.max_seq_length
    limit = None if limit is None or limit >= _NO_LIMIT else int(limit)
    with _hushed():
        width = len(model.encode("a text", show_progress_bar=False))
    return Teacher(known, identity, width, _pooling(model), limit, model)


def _library(name: str) -> Any:
    """A module of the extra; typed as Any, for mypy would read half a million lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries' deprecations are their authors'
            return import_module(name)
    except ImportError as error:
        raise InputError(
            f"a teacher needs {error.name or name}, which is not installed; "
            "run: pip install 'cubeopt[teacher]'"
        ) from error


def _locate(name: str, folder: Path) -> tuple[str, str | None]:
    """Where to load from, and why not from the hub, which is None where it answers."""
    if not name:
        raise InputError("--model: give a name, or a folder that holds a model")
    if folder.is_dir():
        return str(folder), None
    if folder.exists():
        raise DataError(f"--model {name}: a file, expected a folder that holds a model, or a name")
    if name.startswith(("/", ".", "~")) or not _REPOSITORY.fullmatch(name):
        raise DataError(f"--model {name}: no such folder")
    originals = _library("sentence_transformers.util.misc").ORIGINAL_TRANSFORMER_MODELS
    if "/" not in name and name.lower() not in originals:
        name = f"sentence-transformers/{name}"  # what sentence-transformers takes it for
    hub, errors = _library("huggingface_hub"), _library("huggingface_hub.errors")
    try:
        # One question first: the libraries would ask for a minute before they give up.
        hub.HfApi().model_info(name, timeout=_HUB_SECONDS)
    except errors.RepositoryNotFoundError:
        return name, f"{_HUB} has no such model, or none that you may see"
    except (OSError, _library("huggingface_hub.utils").httpx.HTTPError) as error:
        return name, f"{_HUB} cannot be reached ({type(error).__name__})"
    return name, None


def _unloadable(name: str, folder: Path, offline: str | None, error: Exception) -> str:
    if offline is not None:
        return (
            f"--model {name}: not on this machine, and {offline}; give the path of a folder that "
            "holds the model, or fetch it once where there is a network"
        )
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    place = "the folder holds no" if folder.is_dir() else "this is no"
    return (
        f"--model {name}: {place} model that sentence-transformers or transformers can load "
        f"without running code of its own ({reason})"
    )


def _check_complete(name: str, said: Sequence[str]) -> None:
    """Refuse a checkpoint that lacks weights: random ones would stand in for them."""
    lacking = [key for line in said for key in _MISSING.findall(line) if "pooler" not in key]
    if lacking:
        raise DataError(
            f"--model {name}: its checkpoint lacks weights that the model needs "
            f"({', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}); random ones would "
            "stand in for them: give a complete model"
        )


def _identity(model: Any) -> str:
    """sha256 of all that decides the numbers, and of nothing else."""
    backbone = model.transformers_model
    config = {} if backbone is None else backbone.config.to_diff_dict()
    recipe = {
        "modules": _modules(model),
        "config": {key: config[key] for key in config if key not in _NOT_OF_THE_MODEL},
        "tokenizer": _tokenizer_text(model.tokenizer),
        "max_length": str(model.max_seq_length),
        "prompt": _prompt(model),
        "width": model.truncate_dim,
    }
    total = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode())
    for key, weight in sorted(model.state_dict().items()):
        total.update(f"{key} {weight.dtype} {list(weight.shape)}\n".encode())
        total.update(weight.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _modules(model: Any) -> list[str]:
    """The first module's name, and each that follows with its settings."""
    first, *later = model
    described = [f"{type(module).__name__} {module.get_config_dict()!r}" for module in later]
    return [type(first).__name__, *described]


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        return str(backend.to_str())
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    return f"{type(tokenizer).__name__} {sorted(vocabulary.items())}"


def _prompt(model: Any) -> str:
    """What the model wants before every text, by its own settings."""
    return model.prompts.get(model.default_prompt_name) or "" if model.default_prompt_name else ""


def _pooling(model: Any) -> str:
    """How the embeddings of tokens become one, in words."""
    words = []
    for module in model:
        kind = type(module).__name__
        if kind == "Pooling":
            modes = module.pooling_mode
            modes = modes if isinstance(modes, str) else " and ".join(modes)
            words.append(f"{modes} over the attention mask" if modes == "mean" else modes)
        elif kind == "Normalize":
            words.append("normalised")
        elif module is not model[0]:
            words.append(kind.lower())
    return ", ".join(words) or "the model's own"


@contextmanager
def _hushed() -> Iterator[list[str]]:
    """Nothing from the libraries on the screen; what they logged is in the list at the end."""
    said: list[str] = []
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(each, each.handlers, each.propagate, each.level) for each in loggers]
    bars = _library("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    for each in loggers:
        each.handlers, each.propagate = [handler], False
        each.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for each, handlers, propagate, level in before:
            each.handlers, each.propagate = handlers, propagate
            each.setLevel(level)
        if shown:
            bars.enable_progress_bar()
        while not records.empty():
            said.append(records.get().getMessage())
