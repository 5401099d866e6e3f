"""Labels and groups of the rows of a file of embeddings, from the file or from one beside it.

A file beside it is JSON lines, one object a row, in the same order.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from cubeopt.data.reading import files, lines
from cubeopt.data.reading.claims import name_in, names_in, plain
from cubeopt.data.reading.lines import BadLine
from cubeopt.errors import DataError

NLI_NAMES = ("entailment", "neutral", "contradiction")
SENTIMENT_NAMES = ("negative", "positive")
LABEL_KEYS = ("gold_label", "label")
QUESTION_KEYS = ("premise", "sentence1", "question")
ANSWER_KEYS = ("hypothesis", "sentence2", "answer")
UNLABELLED = ("-", -1, None)  # the annotators did not agree
MOST_LABELS = 1000

_SAMPLE = "sample_pairs"
_IDENTITY = ("snli_id",)
_WHOLE = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


@dataclass(frozen=True, eq=False)
class Marks:
    """What is known of each row beside its embedding."""

    labels: Int[Tensor, " rows"] | None = None
    names: tuple[str, ...] = ()
    groups: Int[Tensor, " rows"] | None = None
    snli: bool = False  # the file says that it is made of SNLI
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """What a line of labels says of one row of embeddings."""

    label: int | str  # -1: unknown
    question: str | None
    answer: str | None
    identity: str | None


def is_dense(tensor: Tensor) -> bool:
    """Whether *tensor* has a shape and numbers to read."""
    strided = not tensor.is_nested and tensor.layout is torch.strided
    return strided and tensor.device.type == "cpu" and not tensor.is_quantized


def hollow(tensor: Tensor) -> str | None:
    """Why *tensor* claims more numbers than it holds: copying it could fill the memory."""
    held = tensor.untyped_storage().nbytes()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    reach = 1 + tensor.storage_offset() + sum((size - 1) * stride for size, stride in steps)
    if max(tensor.numel(), reach) * tensor.element_size() <= held:
        return None
    return f"claims the shape {list(tensor.shape)}, but holds only {held} bytes"


def marks(
    content: Mapping[Any, object], beside: Path | None, rows: int, path: Path, *, paired: bool
) -> Marks:
    """Labels and groups of the *rows* of *content*; a file *beside* it outweighs its own."""
    info, sample = plain(content.get("dataset_info")), _sample(content)
    names = names_in(content.get("label_names")) or names_in(info.get("label_names"))
    told = [each for each in (_row(pair) for pair in sample) if each]
    snli = paired and ("snli" in str(name_in(info.get("source"))).lower() or _any_identity(told))
    if beside is not None:
        found = _read(beside, rows, path)
        coded = _coded(found, names, beside, paired=paired)
        _compare(told, found, names, beside, path)
        return replace(coded, snli=snli or (paired and _any_identity(found)))
    groups = _column(content, "groups", rows, path)
    labels = _column(content, "labels", rows, path)
    if labels is not None:
        codes, names = _named(labels, names, path, paired=paired)
        return Marks(codes, names, groups, snli)
    if paired and len(told) == len(sample) == rows:
        return replace(_coded(told, names, path, paired=True), snli=snli)
    if not snli:
        return Marks(groups=groups)
    note = f"labels unknown: sample_pairs tells those of {len(sample)} rows; give a file of labels"
    return Marks(torch.full((rows,), -1), NLI_NAMES, groups, snli, notes=(note,))


def _sample(content: Mapping[Any, object]) -> list[dict[Any, object]]:
    """The pairs that a file shows as an example, or all of its pairs."""
    value = content.get(_SAMPLE)
    return [plain(pair) for pair in value] if isinstance(value, list) else []


def _any_identity(rows: Sequence[_Row]) -> bool:
    return any(row.identity is not None for row in rows)


def _row(values: Mapping[Any, object]) -> _Row | None:
    """What *values* say of a row, or None when they tell no label."""
    key = next((key for key in LABEL_KEYS if key in values), None)
    if key is None:
        return None
    label = values[key]
    if not isinstance(label, (str, int, float, type(None))):
        return None
    if label in UNLABELLED:
        code: int | str = -1
    elif isinstance(label, str):
        code = label.strip().lower()
    else:
        number = lines.whole_number(label)
        if number is None or not 0 <= number < MOST_LABELS:
            return None
        code = number
    return _Row(
        code, _first(values, QUESTION_KEYS), _first(values, ANSWER_KEYS), _first(values, _IDENTITY)
    )


def _first(values: Mapping[Any, object], keys: Sequence[str]) -> str | None:
    """The first text under one of *keys*."""
    return next((value.strip() for key in keys if isinstance(value := values.get(key), str)), None)


def _read(beside: Path, rows: int, path: Path) -> list[_Row]:
    """A row for each line of *beside*, which must be as many as the embeddings."""
    files.check_regular(beside)
    found: list[_Row] = []
    count = 0
    for line in lines.lines(beside):
        count += 1
        if count > rows:
            continue
        try:
            row = _row(lines.parse_object(line))
        except BadLine as error:
            raise DataError(f"{beside}: line {line.number}: {error}") from error
        if row is None:
            raise DataError(f"{beside}: line {line.number}: no label or gold_label of use")
        found.append(row)
    if count != rows:
        raise DataError(f"{beside}: {count} lines of labels for the {rows} rows of {path}")
    return found


def _coded(rows: Sequence[_Row], names: Sequence[str] | None, path: Path, *, paired: bool) -> Marks:
    """The labels of *rows* as numbers, and one group for each question."""
    codes = _name_codes(rows, names, paired=paired)
    numbers = []
    for place, row in enumerate(rows, start=1):
        if isinstance(row.label, str) and row.label not in codes:
            raise DataError(f"{path}: row {place}: unknown label {reprlib.repr(row.label)}")
        numbers.append(codes[row.label] if isinstance(row.label, str) else row.label)
    if any(isinstance(row.label, str) for row in rows):
        names = list(codes)
    labels, names = _named(torch.tensor(numbers), names, path, paired=paired)
    return Marks(labels, names, _grouped([row.question for row in rows], path))


def _name_codes(
    rows: Sequence[_Row], names: Sequence[str] | None, *, paired: bool
) -> dict[str, int]:
    """The number of each label that is a name."""
    if names is None:
        found = {row.label for row in rows if isinstance(row.label, str)}
        names = NLI_NAMES if paired else sorted(found)
    return {name.lower(): code for code, name in enumerate(names)}


def _grouped(questions: Sequence[str | None], path: Path) -> Int[Tensor, " rows"] | None:
    """Equal numbers for equal *questions*, or None when they are not told."""
    if all(question is None for question in questions):
        return None
    if None in questions:
        place = questions.index(None) + 1
        raise DataError(f"{path}: row {place}: no premise or question, but other rows have one")
    numbers: dict[str | None, int] = {}
    return torch.tensor([numbers.setdefault(question, len(numbers)) for question in questions])


def _compare(
    told: Sequence[_Row],
    found: Sequence[_Row],
    names: Sequence[str] | None,
    beside: Path,
    path: Path,
) -> None:
    """Refuse labels *found* in a file beside that deny what the embeddings' own file has *told*."""
    codes = _name_codes(found, names or NLI_NAMES, paired=True)
    for place, (own, other) in enumerate(zip(told, found, strict=False), start=1):
        pairs = (
            ("label", *(codes.get(str(row.label), row.label) for row in (own, other))),
            ("premise", own.question, other.question),
            ("hypothesis", own.answer, other.answer),
            ("snli_id", own.identity, other.identity),
        )
        for what, first, second in pairs:
            if first != second and first is not None and second is not None:
                shown = f"{reprlib.repr(second)}, not {reprlib.repr(first)}"
                raise DataError(
                    f"{beside}: row {place}: {what} is {shown} as sample_pairs of {path} says: "
                    "these labels belong to other rows"
                )


def _column(
    content: Mapping[Any, object], name: str, rows: int, path: Path
) -> Int[Tensor, " rows"] | None:
    """The whole number that *content* has of each row under *name*, if any."""
    if name not in content:
        return None
    value = content[name]
    if isinstance(value, list) and all(type(each) is int for each in value):
        if any(abs(each) >= 2**63 for each in value):
            raise DataError(f"{path}: {name}: a number out of range")
        value = torch.tensor(value, dtype=torch.int64)
    if not isinstance(value, Tensor) or not is_dense(value) or value.dtype not in _WHOLE:
        raise DataError(f"{path}: {name}: expected one whole number a row")
    if value.shape != (rows,):
        raise DataError(f"{path}: {name}: expected the shape [{rows}], got {list(value.shape)}")
    if reason := hollow(value):
        raise DataError(f"{path}: {name}: {reason}")
    return value.to(torch.int64, copy=True)


def _named(
    labels: Int[Tensor, " rows"], names: Sequence[str] | None, path: Path, *, paired: bool
) -> tuple[Int[Tensor, " rows"], tuple[str, ...]]:
    """*labels* held against their *names*, or against those that their task gives them."""
    highest = int(labels.max())
    if names is None:
        usual = NLI_NAMES if paired else SENTIMENT_NAMES
        numbered = not paired and len(usual) <= highest < MOST_LABELS
        names = [str(code) for code in range(highest + 1)] if numbered else usual
    bad = torch.nonzero((labels < -1) | (labels >= len(names))).flatten()
    if len(bad):
        row, known = int(bad[0]), ", ".join(f"{code} {name}" for code, name in enumerate(names))
        raise DataError(f"{path}: row {row + 1}: label {int(labels[row])} is none of: {known}")
    if paired and sorted(map(str.lower, names)) == sorted(NLI_NAMES):
        order = [NLI_NAMES.index(name.lower()) for name in names]
        # One more place, for -1.
        return torch.tensor([*order, -1])[labels], NLI_NAMES
    return labels, tuple(names)
