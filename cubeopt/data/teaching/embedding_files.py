"""The files of embeddings that are made of files of text: names, headers, tensors.

Shapes: M distinct texts of all files, N texts of a file, D embedding.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cubeopt.data import tensor_file
from cubeopt.data.reading.texts import TextRows
from cubeopt.data.teaching.embedding_cache import Cache
from cubeopt.data.teaching.teacher import Teacher
from cubeopt.data.tensor_file import Column
from cubeopt.errors import DataError

_PIECE = 4096  # rows of a file that are gathered at a time
_NAME_LENGTH = 50  # characters of a source's name that its file of embeddings keeps


@dataclass(frozen=True, eq=False)
class Plan:
    """One file of text: its rows as numbers of distinct texts, and where they are to go."""

    text: TextRows
    sides: tuple[Int[np.ndarray, " N"], ...]  # one of sentences, two of pairs
    output: Path
    metadata: dict[str, str]
    standing: int | None  # truncated texts of the same output that stands there already

    @property
    def numbers(self) -> Int[np.ndarray, " _"]:
        return np.unique(np.concatenate(self.sides))


def check_folder(out: Path, model: Teacher) -> None:
    """Refuse a folder with embeddings that a dataset could not hold beside the new ones."""
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: a file is there, a folder is needed")
    for path in sorted(out.glob(f"*{tensor_file.SUFFIX}")):
        try:
            header = tensor_file.header(path)
        except DataError:
            continue  # nobody can read it, so nobody can mix it with ours
        other = header.metadata.get("teacher_identity")
        same = model.identity if other else model.name
        other = other or header.metadata.get("teacher_model", same)
        shapes = [shape for name, shape in header.shapes.items() if name.endswith("embeddings")]
        widths = {shape[-1] for shape in shapes if shape} - {model.width}
        if other == same and not widths:
            continue
        named = header.metadata.get("teacher_model", "another teacher")
        what = f"of width {widths.pop()}" if widths else f"of {named} ({other[:12]})"
        raise DataError(
            f"--out {out}: it holds embeddings {what} ({path.name}), those of {model.name} "
            f"({model.identity[:12]}) have width {model.width}; give each teacher its own folder"
        )


def plan(text: TextRows, numbers: dict[str, int], out: Path, model: Teacher) -> Plan:
    columns = [text.sources] if text.targets is None else [text.sources, text.targets]
    sides = tuple(
        np.fromiter(
            (numbers.setdefault(each, len(numbers)) for each in column),
            dtype=np.int64,
            count=len(column),
        )
        for column in columns
    )
    with text.path.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {
        "teacher_model": model.name,
        "teacher_identity": model.identity,
        "task": str(text.task),
        "corpus": text.corpus,
        "label_names": json.dumps(list(text.label_names)),
        "source_sha256": source,
        "rows_sha256": _rows_digest(text, columns),
    }
    output = out / _name(text.path)
    return Plan(text, sides, output, metadata, _standing(output, metadata))


def _name(path: Path) -> str:
    """The source's name, and what tells it from its namesakes in other folders."""
    folder = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:8]
    return f"{path.stem[:_NAME_LENGTH]}-{folder}{tensor_file.SUFFIX}"


def _rows_digest(text: TextRows, columns: Sequence[Sequence[str]]) -> str:
    """Of all that the teacher does not decide: texts in their order, labels, groups."""
    total = hashlib.sha256(json.dumps([text.labels, text.groups]).encode())
    for column in columns:
        for each in column:
            total.update(digest(each))
    return total.hexdigest()


def _standing(output: Path, metadata: dict[str, str]) -> int | None:
    """The count of truncated texts that the same output says, where it stands already."""
    try:
        said = tensor_file.header(output).metadata if output.exists() else {}
    except DataError:
        return None
    truncated = said.get("truncated", "")
    same = {**said, **metadata} == said and truncated.isdecimal()
    return int(truncated) if same else None


def digest(text: str) -> bytes:
    """What *text* is known by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def write(plan: Plan, store: Cache, place: Int[np.ndarray, " M"], truncated: int) -> None:
    """Put the file in its place; *place* tells where the cache has each distinct text."""
    tensor_file.clean(plan.output.parent)
    metadata = {**plan.metadata, "truncated": str(truncated)}
    tensor_file.write(plan.output, _columns(plan, store, place), metadata)


def _columns(plan: Plan, store: Cache, place: Int[np.ndarray, " M"]) -> dict[str, Column]:
    """The tensors of a file of embeddings, which are gathered while they are written."""
    names = (
        ("embeddings",) if len(plan.sides) == 1 else ("question_embeddings", "answer_embeddings")
    )
    columns = {
        name: Column((len(side), store.width), _pieces(place[side], store))
        for name, side in zip(names, plan.sides, strict=True)
    }
    for name, values in (("labels", plan.text.labels), ("groups", plan.text.groups)):
        if values is not None:
            columns[name] = tensor_file.array(np.array(values, dtype=np.int64))
    return columns


def _pieces(numbers: Int[np.ndarray, " _"], store: Cache) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), _PIECE):
        yield store.rows(numbers[start : start + _PIECE])
