"""Files of embeddings: known by what they hold, not by their name, and never executed.

Shapes: N rows, D embedding.
"""

import os
import pickle
import reprlib
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cubeopt.errors import DataError

DEFAULT_WIDTH = 768
NORM_RANGE = (0.1, 100.0)  # an embedding outside of it is a mistake, not a sentence
# Wider than float32 loses digits, narrower gains none; 8-bit floats and integers are codes.
_FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
# What torch says when a pickle wants more than tensors and plain values.
_UNSAFE = ("GLOBAL", "unrecognized function", "unsupported class", "Can only")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"  # how torch's files begin, new and old
_MAX_NAMES = 20


class Kind(StrEnum):
    """What a file holds."""

    DIALOGUE = "dialogue"  # the questions and answers of one dialogue
    PREPARED = "prepared"  # question and answer embeddings of pairs that stand alone
    BARE = "bare"  # one tensor of sentences


KEYS = {
    Kind.DIALOGUE: ("questions", "answers"),
    Kind.PREPARED: ("question_embeddings", "answer_embeddings"),
    Kind.BARE: ("tensor",),
}


@dataclass(frozen=True)
class LeftOut:
    """Rows that were not taken, and why; *rows* is None when it is the whole file."""

    path: Path
    reason: str
    rows: int | None


@dataclass(frozen=True, eq=False)
class Source:
    """The usable rows of one file; *target* is None where the file has no pairs."""

    path: Path
    kind: Kind
    width: int
    rows: int  # in the file
    source: Float[Tensor, "N D"]
    target: Float[Tensor, "N D"] | None
    problems: tuple[str, ...]  # worth saying, but no row is lost by them
    left_out: tuple[LeftOut, ...]

    @property
    def usable_rows(self) -> int:
        return len(self.source)


def sample_dir() -> Path:
    """The embeddings of real dialogues that ship with the package."""
    return Path(__file__).resolve().parent / "sample"


def find(paths: Sequence[Path]) -> list[Path]:
    """Each file among *paths* and, sorted, each .pt file below a folder among them, once."""
    found: dict[str, Path] = {}
    for path in paths:
        for file in _below(path) if os.path.isdir(path) else [path]:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.pt") if not os.path.isdir(path))


def read(path: Path, width: int = DEFAULT_WIDTH) -> Source:
    """Read the embeddings at *path*; DataError says why a file is refused as a whole."""
    return parse(load(path), path, width)


def load(path: Path) -> object:
    """What the file at *path* holds: plain dict or tensor where it is one; runs no code."""
    try:
        return _plain(_load(path))
    except DataError:
        raise
    # On damaged bytes torch.load was seen to raise twelve unrelated types, struct.error,
    # AssertionError and UnicodeDecodeError among them.
    except Exception as error:
        raise DataError(f"{path}: {_reason(path, error)}") from error


def _load(path: Path) -> object:
    if os.path.isdir(path):
        raise DataError(f"{path}: a folder where a file is expected")
    if not os.path.exists(path):
        link = "link to a missing file" if os.path.islink(path) else "missing: no such file"
        raise DataError(f"{path}: {link}")
    if not os.path.isfile(path):
        raise DataError(f"{path}: not a regular file")
    if os.path.getsize(path) == 0:
        raise DataError(f"{path}: empty file (0 bytes)")
    if _unpacked_size(path) > os.path.getsize(path):
        raise DataError(f"{path}: refused: it unpacks to more than its own size")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words on formats are for the file's author
        return torch.load(path, map_location="cpu", weights_only=True)


def _unpacked_size(path: Path) -> int:
    """Bytes that a zip claims to hold: torch packs nothing, so more than its size is a trap."""
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return 0
        with zipfile.ZipFile(file) as archive:
            return sum(entry.file_size for entry in archive.infolist())


def _plain(content: object) -> object:
    """*content* without the attributes that a pickle may set to hide the methods of an object."""
    if isinstance(content, Tensor):
        return torch.detach(content)
    if isinstance(content, dict):
        items = {key: content[key] for key in content}
        return {
            key: torch.detach(value) if isinstance(value, Tensor) else value
            for key, value in items.items()
        }
    return content


def _reason(path: Path, error: Exception) -> str:
    message = str(error)
    name = type(error).__name__
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, MemoryError) or "allocate memory" in message:
        return "it needs more memory than there is"
    if isinstance(error, pickle.UnpicklingError) and any(word in message for word in _UNSAFE):
        return "refused: an unsafe pickle, it holds more than tensors and plain values"
    try:
        with path.open("rb") as file:
            head = file.read(len(_ZIP))
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    if head.startswith((_ZIP, _PICKLE)):
        return f"truncated or damaged ({name})"
    return f"not a torch file ({name})"


def kind_of(content: object) -> Kind | None:
    """The kind of file that *content* came from, or None when it holds no embeddings."""
    if isinstance(content, Tensor):
        return Kind.BARE
    if isinstance(content, dict):
        for kind, keys in KEYS.items():
            if any(key in content for key in keys) and kind is not Kind.BARE:
                return kind
    return None


def names(content: object) -> tuple[str, ...]:
    """The keys of *content*, fit to be shown; a file can make a key of anything."""
    if not isinstance(content, dict):
        return ()
    shown = [_name(key) for key in list(content)[:_MAX_NAMES]]
    return (*shown, "...") if len(content) > _MAX_NAMES else tuple(shown)


def _name(key: object) -> str:
    plain = isinstance(key, str) and key.isprintable() and len(key) <= 60
    return str(key) if plain else reprlib.repr(key)


def named_tensors(content: object) -> dict[str, Tensor]:
    """Every tensor at the top of *content*; a bare one is called "tensor"."""
    if isinstance(content, Tensor):
        return {KEYS[Kind.BARE][0]: content}
    if not isinstance(content, dict):
        return {}
    tensors = [(key, value) for key, value in content.items() if isinstance(value, Tensor)]
    return {_name(key): value for key, value in tensors[:_MAX_NAMES]}


def parse(content: object, path: Path, width: int = DEFAULT_WIDTH) -> Source:
    """Check what *load* gave, from the outside in, and keep the good rows."""
    kind = kind_of(content)
    if kind is None:
        raise DataError(f"{path}: {_unknown(content)}")
    tensors = _tensors(content, kind, path)
    for name, tensor in tensors.items():
        if reason := _unfit(tensor, width):
            raise DataError(f"{path}: {name}: {reason}")
    counts = {name: len(tensor) for name, tensor in tensors.items()}
    rows = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        pair = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise DataError(f"{path}: the sides differ in length: {pair}")
    if rows == 0:
        raise DataError(f"{path}: no rows")
    for name, tensor in tensors.items():
        if reason := _hollow(tensor):
            raise DataError(f"{path}: {name}: {reason}")
    sides = [tensor.to(torch.float32) for tensor in tensors.values()]
    good, left_out = _sift(sides, path)
    sides = [side[good] for side in sides]  # copies: of views and of the rest of the file
    problems = (*_conversions(tensors), *_claims(content, rows))
    target = sides[1] if len(sides) == 2 else None
    return Source(path, kind, width, rows, sides[0], target, problems, left_out)


def _unknown(content: object) -> str:
    pairs = [" and ".join(KEYS[kind]) for kind in (Kind.DIALOGUE, Kind.PREPARED)]
    found = f"the keys {', '.join(names(content)) or '(none)'}"
    if not isinstance(content, dict):
        found = f"a {type(content).__name__}"
    return f"expected a tensor, or a dict with {' or '.join(pairs)}; found {found}"


def _tensors(content: object, kind: Kind, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Tensor):
        return {KEYS[kind][0]: content}
    assert isinstance(content, dict)
    tensors = {}
    for name in KEYS[kind]:
        if name not in content:
            raise DataError(f"{path}: the key {name!r} is missing")
        value = content[name]
        if not isinstance(value, Tensor):
            raise DataError(f"{path}: {name}: expected a tensor, got a {type(value).__name__}")
        tensors[name] = value
    return tensors


def _unfit(tensor: Tensor, width: int) -> str | None:
    """Why *tensor* cannot be rows of embeddings, by its form alone."""
    # A nested tensor has no shape and a meta tensor no numbers.
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return "expected a dense tensor"
    if tensor.ndim != 2:
        return f"expected the shape [N, {width}], got {list(tensor.shape)}"
    if tensor.shape[1] != width:
        return f"expected width {width}, got {tensor.shape[1]} (shape {list(tensor.shape)})"
    if tensor.dtype not in _FLOATS:
        return f"expected float32, float64, float16 or bfloat16, got {dtype_name(tensor)}"
    return None


def _hollow(tensor: Tensor) -> str | None:
    """Whether *tensor* claims more numbers than it holds: copying it could fill the memory."""
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() <= held:
        return None
    return f"claims the shape {list(tensor.shape)}, but holds only {held} bytes"


def _sift(
    sides: Sequence[Float[Tensor, "N D"]], path: Path
) -> tuple[Bool[Tensor, " N"], tuple[LeftOut, ...]]:
    """Which rows are good on every side, and how many are not, each with its first reason."""
    low, high = NORM_RANGE
    norms = torch.stack([torch.linalg.vector_norm(side, dim=1) for side in sides])
    finite = torch.stack([torch.isfinite(side).all(dim=1) for side in sides])
    faults = {
        "not finite (NaN or infinity)": ~finite.all(dim=0),
        f"norm below {low:g}": (norms < low).any(dim=0),
        f"norm above {high:g}": (norms > high).any(dim=0),
    }
    good = torch.ones(len(sides[0]), dtype=torch.bool)
    left_out = []
    for reason, bad in faults.items():
        if count := int((bad & good).sum()):
            left_out.append(LeftOut(path, reason, count))
        good &= ~bad
    if not good.any():
        reasons = ", ".join(f"{fault.rows} {fault.reason}" for fault in left_out)
        raise DataError(f"{path}: no usable rows: {reasons}")
    return good, tuple(left_out)


def _conversions(tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name}: {dtype_name(tensor)} converted to float32"
        for name, tensor in tensors.items()
        if tensor.dtype != torch.float32
    ]


def _claims(content: object, rows: int) -> list[str]:
    """What the file says of itself that its tensors deny."""
    if not isinstance(content, dict):
        return []
    problems = []
    size, metadata = content.get("size"), content.get("metadata")
    if isinstance(size, int) and size != rows:
        problems.append(f"size says {size}, but the tensors hold {rows} rows")
    if isinstance(metadata, list) and len(metadata) != rows:
        problems.append(f"metadata has {len(metadata)} entries for {rows} rows")
    return problems


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
