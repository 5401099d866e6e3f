"""Files of embeddings: known by what they hold, not by their name, and never executed.

Shapes: N usable rows, K some rows, D embedding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cubeopt.data.reading import claims as claim_reader
from cubeopt.data.reading import containers, files
from cubeopt.data.reading import labels as label_reader
from cubeopt.data.reading.labels import Marks
from cubeopt.errors import DataError, WidthError
from cubeopt.trial import Task

DEFAULT_WIDTH = 768
NORM_RANGE = (0.1, 100.0)  # an embedding outside of it is a mistake, not a sentence
# Wider than float32 loses digits, narrower gains none; 8-bit floats and integers are codes.
_FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
_MARKS = ("labels", "groups")  # one whole number a row
_PIECE_BYTES = 1 << 23  # of float32 numbers looked at together
_MAX_NAMES = 20


class Kind(StrEnum):
    """What a file holds."""

    DIALOGUE = "dialogue"  # the questions and answers of one dialogue
    PREPARED = "prepared"  # question and answer embeddings of pairs that stand alone
    BARE = "bare"  # one tensor of sentences


KEYS = {
    Kind.DIALOGUE: ("questions", "answers"),
    Kind.PREPARED: ("question_embeddings", "answer_embeddings"),
}
BARE_KEY = "tensor"  # what a tensor without a name is called


@dataclass(frozen=True)
class LeftOut:
    """Rows that were not taken, and why; *rows* is None when it is the whole file."""

    path: Path
    reason: str
    rows: int | None
    lines: tuple[int, ...] = ()  # in a file of text, from 1
    fault: bool = True  # False: by design, no mistake of the file


@dataclass(frozen=True, eq=False)
class Source:
    """One file of embeddings: its numbers where they lie, and which rows of them are usable."""

    path: Path
    kind: Kind
    task: Task
    corpus: str
    width: int
    rows: int  # in the file
    sides: tuple[Shaped[Tensor, "rows D"], ...]  # sentences, or questions and answers
    good: Int[Tensor, " N"]
    labels: Int[Tensor, " rows"] | None  # -1: unknown
    label_names: tuple[str, ...]
    groups: Int[Tensor, " rows"] | None  # None: by kind
    teacher: str | None
    notes: tuple[str, ...]  # harmless
    problems: tuple[str, ...]  # suspicious, but no row is lost by them
    left_out: tuple[LeftOut, ...]

    @property
    def usable_rows(self) -> int:
        return len(self.good)

    def side(self, number: int, rows: Int[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """The *rows* of one side, counted as in the file; only to be read.

        Rows that follow one another are not copied out of the file where they are float32.
        """
        side, count = self.sides[number], len(rows)
        if count and int(rows[-1] - rows[0]) == count - 1 and bool((rows.diff() == 1).all()):
            first = int(rows[0])
            return side[first : first + count].to(torch.float32)
        return side.index_select(0, rows).to(torch.float32)  # twice as quick as side[rows]


def sample_dir() -> Path:
    """The embeddings of real dialogues that ship with the package."""
    return Path(__file__).resolve().parents[1] / "sample"


def load(path: Path) -> object:
    """What the file at *path* holds: plain dict or tensor where it is one; runs no code."""
    return containers.load(path)


def read(path: Path, width: int = DEFAULT_WIDTH, labels: Path | None = None) -> Source:
    """Read the embeddings at *path*; DataError says why a file is refused as a whole."""
    return parse(load(path), path, width, labels)


def kind_of(content: object) -> Kind | None:
    """The kind of file that *content* came from, or None when it holds no embeddings."""
    if isinstance(content, Tensor):
        return Kind.BARE
    if isinstance(content, dict):
        for kind, keys in KEYS.items():
            if any(key in content for key in keys):
                return kind
        if len(_unmarked(content)) == 1:
            return Kind.BARE
    return None


def _unmarked(content: Mapping[object, object]) -> list[object]:
    """The keys of the tensors that are not labels or groups of rows."""
    return [
        key for key, value in content.items() if isinstance(value, Tensor) and key not in _MARKS
    ]


def names(content: object) -> tuple[str, ...]:
    """The keys of *content*, fit to be shown; a file can make a key of anything."""
    if not isinstance(content, dict):
        return ()
    shown = [files.shown(key) for key in list(content)[:_MAX_NAMES]]
    return (*shown, "...") if len(content) > _MAX_NAMES else tuple(shown)


def named_tensors(content: object) -> dict[str, Tensor]:
    """Every tensor at the top of *content*; one without a name is called "tensor"."""
    if isinstance(content, Tensor):
        return {BARE_KEY: content}
    if not isinstance(content, dict):
        return {}
    tensors = [(key, value) for key, value in content.items() if isinstance(value, Tensor)]
    return {files.shown(key): value for key, value in tensors[:_MAX_NAMES]}


def sides_of(content: object) -> dict[str, Tensor]:
    """The tensors of *content* that are, or should be, rows of embeddings."""
    if isinstance(content, Tensor):
        return {BARE_KEY: content}
    kind = kind_of(content)
    if not isinstance(content, dict) or kind is None:
        return {}
    keys = KEYS[kind] if kind in KEYS else _unmarked(content)
    return {files.shown(key): content[key] for key in keys if isinstance(content.get(key), Tensor)}


def parse(
    content: object, path: Path, width: int = DEFAULT_WIDTH, labels: Path | None = None
) -> Source:
    """Check what *load* gave, from the outside in, and find the good rows."""
    kind = kind_of(content)
    if kind is None:
        raise DataError(f"{path}: {_unknown(content)}")
    tensors = _tensors(content, kind, path)
    rows = _check_forms(tensors, path, width)
    values = content if isinstance(content, dict) else {}
    marks = label_reader.marks(values, labels, rows, path, paired=len(tensors) == 2)
    claims = claim_reader.claims(values, rows, width, paired=len(tensors) == 2)
    good, left_out = _sift(list(tensors.values()), path)
    task, corpus = _default_task(kind, marks)
    return Source(
        path=path,
        kind=kind,
        task=claims.task or task,
        corpus=claims.corpus or corpus,
        width=width,
        rows=rows,
        sides=tuple(tensors.values()),
        good=good,
        labels=marks.labels,
        label_names=marks.names,
        groups=marks.groups,
        teacher=claims.teacher,
        notes=(*_conversions(tensors), *marks.notes),
        problems=claims.problems,
        left_out=left_out,
    )


def _default_task(kind: Kind, marks: Marks) -> tuple[Task, str]:
    """Task and corpus of a file that names none."""
    if kind is Kind.DIALOGUE:
        return Task.DIALOGUE, "dialogue"
    labelled = marks.labels is not None
    if kind is Kind.PREPARED:
        corpus = "snli" if marks.snli else "prepared"
        return (Task.NLI if labelled else Task.DIALOGUE), corpus
    return (Task.SENTIMENT, "sentiment") if labelled else (Task.RECONSTRUCT, "autoencoder")


def _unknown(content: object) -> str:
    pairs = " or ".join(" and ".join(keys) for keys in KEYS.values())
    found = f"the keys {', '.join(names(content)) or '(none)'}"
    if not isinstance(content, dict):
        found = f"a {type(content).__name__}"
    return f"expected one tensor, or a dict with {pairs}; found {found}"


def _tensors(content: object, kind: Kind, path: Path) -> dict[str, Tensor]:
    sides = sides_of(content)
    values = content if isinstance(content, dict) else {}
    for name in KEYS.get(kind, ()):
        if name not in values:
            raise DataError(f"{path}: the key {name!r} is missing")
        if name not in sides:
            found = type(values[name]).__name__
            raise DataError(f"{path}: {name}: expected a tensor, got a {found}")
    return sides


def _check_forms(tensors: Mapping[str, Tensor], path: Path, width: int) -> int:
    """The number of rows of *tensors*, which are rows of embeddings and equally many."""
    for name, tensor in tensors.items():
        if reason := _unfit(tensor, width):
            raise DataError(f"{path}: {name}: {reason}")
        if tensor.shape[1] != width:
            shape = f"(shape {list(tensor.shape)})"
            reason = f"expected width {width}, got {tensor.shape[1]} {shape}"
            raise WidthError(f"{path}: {name}: {reason}", tensor.shape[1])
        if tensor.dtype not in _FLOATS:
            reason = f"expected float32, float64, float16 or bfloat16, got {dtype_name(tensor)}"
            raise DataError(f"{path}: {name}: {reason}")
    counts = {name: len(tensor) for name, tensor in tensors.items()}
    rows = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        pair = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise DataError(f"{path}: the sides differ in length: {pair}")
    if rows == 0:
        raise DataError(f"{path}: no rows")
    for name, tensor in tensors.items():
        if reason := label_reader.hollow(tensor):
            raise DataError(f"{path}: {name}: {reason}")
    return rows


def _unfit(tensor: Tensor, width: int) -> str | None:
    """Why *tensor* cannot be rows of embeddings, by its form alone."""
    # A nested tensor has no shape and a meta tensor no numbers.
    if not label_reader.is_dense(tensor):
        return "expected a dense tensor"
    if tensor.ndim != 2:
        return f"expected the shape [N, {width}], got {list(tensor.shape)}"
    return None


def _sift(
    sides: Sequence[Shaped[Tensor, "rows D"]], path: Path
) -> tuple[Int[Tensor, " N"], tuple[LeftOut, ...]]:
    """Which rows are good on every side, and how many are not, each with its first reason."""
    low, high = NORM_RANGE
    reasons = ("not finite (NaN or infinity)", f"norm below {low:g}", f"norm above {high:g}")
    verdicts = torch.cat([_verdicts(pieces) for pieces in _pieces(sides)])
    good = torch.nonzero(verdicts == len(reasons)).flatten()
    counts = torch.bincount(verdicts, minlength=len(reasons)).tolist()
    left_out = tuple(
        LeftOut(path, reason, count)
        for reason, count in zip(reasons, counts, strict=False)
        if count
    )
    if not len(good):
        told = ", ".join(f"{fault.rows} {fault.reason}" for fault in left_out)
        raise DataError(f"{path}: no usable rows: {told}")
    return good, left_out


def _pieces(sides: Sequence[Shaped[Tensor, "rows D"]]) -> Iterator[list[Float[Tensor, "K D"]]]:
    """*sides* row by row in pieces small enough to have in memory."""
    step = max(1, _PIECE_BYTES // (4 * sides[0].shape[1]))
    for start in range(0, len(sides[0]), step):
        yield [side[start : start + step].to(torch.float32) for side in sides]


def _verdicts(sides: Sequence[Float[Tensor, "K D"]]) -> Int[Tensor, " K"]:
    """The first fault of each row on any side: its place among the reasons, or their number."""
    low, high = NORM_RANGE
    norms = torch.stack([torch.linalg.vector_norm(side, dim=1) for side in sides])
    verdicts = torch.full((norms.shape[1],), 3)
    verdicts[(norms > high).any(dim=0)] = 2
    verdicts[(norms < low).any(dim=0)] = 1
    # The norm of large finite numbers overflows, too; only such rows need a closer look.
    for row in torch.nonzero(~torch.isfinite(norms).all(dim=0)).flatten().tolist():
        if not all(bool(torch.isfinite(side[row]).all()) for side in sides):
            verdicts[row] = 0
    return verdicts


def _conversions(tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name}: {dtype_name(tensor)} converted to float32"
        for name, tensor in tensors.items()
        if tensor.dtype != torch.float32
    ]


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
