"""What a file of embeddings says of itself, held against what it holds."""

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cubeopt.trial import Task

_LONGEST_NAME = 200
_PAIR_TASKS = (Task.DIALOGUE, Task.NLI)


@dataclass(frozen=True)
class Claims:
    """What a file says of its rows as a whole; None where it says nothing that holds."""

    task: Task | None
    corpus: str | None
    teacher: str | None
    problems: tuple[str, ...]


def claims(content: Mapping[Any, object], rows: int, width: int, *, paired: bool) -> Claims:
    """What *content* says of its *rows* of embeddings, pairs or not, and what of it is wrong."""
    problems = _size_problems(content, rows, width)
    task = content.get("task")
    task = task if isinstance(task, str) else None
    if task is not None and task not in _fitting(paired):
        fitting = " or ".join(_fitting(paired))
        rows_are = "pairs" if paired else "single sentences"
        problems.append(f"task says {reprlib.repr(task)}, but {rows_are} are for {fitting}")
        task = None
    return Claims(
        task=None if task is None else Task(task),
        corpus=name_in(content.get("corpus")),
        teacher=name_in(content.get("teacher_model")),
        problems=tuple(problems),
    )


def _fitting(paired: bool) -> tuple[Task, ...]:
    return tuple(task for task in Task if (task in _PAIR_TASKS) == paired)


def _size_problems(content: Mapping[Any, object], rows: int, width: int) -> list[str]:
    info = plain(content.get("dataset_info"))
    problems = []
    for what, claim in (
        ("size", content.get("size")),
        ("dataset_info: num_pairs", info.get("num_pairs")),
    ):
        if (number := _whole(claim)) is not None and number != rows:
            problems.append(f"{what} says {number}, but the tensors hold {rows} rows")
    number = _whole(info.get("embedding_dim"))
    if number is not None and number != width:
        problems.append(f"dataset_info: embedding_dim says {number}, but the width is {width}")
    metadata = content.get("metadata")
    if isinstance(metadata, list) and len(metadata) != rows:
        problems.append(f"metadata has {len(metadata)} entries for {rows} rows")
    return problems


def plain(value: object) -> dict[Any, object]:
    """*value* as a plain dict: attributes set by a pickle cannot hide its methods."""
    return {key: value[key] for key in value} if isinstance(value, dict) else {}


def _whole(claim: object) -> int | None:
    """*claim* as a number; formats whose values are all text write it as one."""
    if isinstance(claim, str) and claim.isdecimal() and len(claim) < 19:
        return int(claim)
    return claim if isinstance(claim, int) and abs(claim) < 2**63 else None


def name_in(value: object) -> str | None:
    """*value* where it is a name fit to be shown."""
    fit = isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_NAME
    return str(value).strip() or None if fit else None


def names_in(value: object) -> Sequence[str] | None:
    """*value* where it is a list of different names, or such a list as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= 1000:
        return None
    names = [name for name in map(name_in, value) if name is not None]
    return names if len(set(names)) == len(value) else None
