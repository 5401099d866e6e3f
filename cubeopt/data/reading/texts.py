"""Files of raw text: sentences, labelled sentences, and pairs of sentences, line by line."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cubeopt.data.reading import files, lines, tables
from cubeopt.data.reading.files import Format
from cubeopt.data.reading.labels import LABEL_KEYS, NLI_NAMES, UNLABELLED
from cubeopt.data.reading.lines import BadLine, Line, Tally
from cubeopt.data.reading.sources import LeftOut
from cubeopt.errors import DataError
from cubeopt.trial import Task

_DIALOGUE_KEYS = ("dialog", "dialogue", "turns", "utterances")
_SNLI_KEYS, _NLI_KEYS = ("sentence1", "sentence2"), ("premise", "hypothesis")
_LOOK_AT = 200  # lines that decide what a file of JSON lines holds
_SHOWN_LINES, _SHOWN_KEYS = 10, 10
_DISAGREED = 'label "-": the annotators did not agree'
_UNANSWERED = "the last turn has no answer"


@dataclass(frozen=True, eq=False)
class TextRows:
    """The usable rows of one file of text; *targets* is None where a row is one sentence."""

    path: Path
    task: Task
    corpus: str
    rows: int  # in the file
    sources: list[str]
    targets: list[str] | None
    labels: list[int] | None
    label_names: tuple[str, ...]
    groups: list[int] | None  # of rows with equal numbers none may be parted
    problems: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


@dataclass
class _Rows:
    """Rows as they are read."""

    sources: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    faults: Tally = field(default_factory=Tally)
    by_design: Tally = field(default_factory=Tally)
    questions: dict[str, int] = field(default_factory=dict)

    def add_pair(self, question: str, answer: str, group: int | None = None) -> None:
        """Take a pair, in a group of its own or that of its question."""
        if group is None:
            group = self.questions.setdefault(question, len(self.questions))
        self.sources.append(question)
        self.targets.append(answer)
        self.groups.append(group)


def read(path: Path) -> TextRows:
    """Read the text at *path*; DataError says why a file is refused as a whole."""
    form = files.format_of(path)
    if form is Format.UNKNOWN:
        raise DataError(f"{path}: {files.unknown(path)}")
    readers = {Format.JSON_LINES: _json_lines, Format.TABLE: _table, Format.TEXT: _sentences}
    if form not in readers:
        raise DataError(f"{path}: a file of the format {form}, not text")
    return readers[form](path)


def _sentences(path: Path) -> TextRows:
    rows = _Rows()
    for line in lines.lines(path):
        try:
            rows.sources.append(lines.sentence(lines.check(line).text, "the sentence"))
        except BadLine as error:
            rows.faults.add(str(error), line.number)
    return _finished(path, rows, Task.RECONSTRUCT, "autoencoder")


def _table(path: Path) -> TextRows:
    table = tables.read(path)
    rows = _Rows(table.texts, labels=table.labels, faults=table.faults)
    return _finished(path, rows, Task.SENTIMENT, "sentiment", table.label_names)


def _json_lines(path: Path) -> TextRows:
    schema = _schema(path)
    rows = _Rows()
    for line in lines.lines(path):
        try:
            schema.take(lines.parse_object(line), line, rows)
        except BadLine as error:
            rows.faults.add(str(error), line.number)
    return _finished(path, rows, schema.task, schema.corpus, schema.label_names)


@dataclass(frozen=True)
class _Schema:
    """What the objects of a file of JSON lines have in common."""

    task: Task
    corpus: str
    take: Callable[[Mapping[str, Any], Line, _Rows], None]
    label_names: tuple[str, ...] = ()


def _schema(path: Path) -> _Schema:
    """The schema that most of the first objects have; broken lines have no say."""
    found: Counter[str] = Counter()
    keys: dict[str, None] = {}
    reason = "no lines"
    for line in islice(lines.lines(path), _LOOK_AT):
        try:
            values = lines.parse_object(line)
        except BadLine as error:
            reason = f"line {line.number}: {error}"
            continue
        found.update([_schema_name(values)])
        keys.update(dict.fromkeys(values))
    if not found:
        raise DataError(f"{path}: no JSON object among the first lines: {reason}")
    name = max(_SCHEMAS, key=lambda each: found[each])
    if not found[name]:
        shown = ", ".join(files.shown(key) for key in list(keys)[:_SHOWN_KEYS]) or "(none)"
        raise DataError(
            f"{path}: JSON lines of no known kind: expected sentence1 and sentence2, dialog, or "
            f"question and answer; found the keys {shown}"
        )
    return _SCHEMAS[name]


def _schema_name(values: Mapping[str, Any]) -> str:
    """Which schema *values* come nearest to; the empty name for none."""
    if "question" in values or "answer" in values:
        return "pairs"
    if any(key in values for key in _DIALOGUE_KEYS):
        return "dialogue"
    if "genre" in values and "sentence1" in values:
        return "multinli"
    if any(key in values for key in _SNLI_KEYS) or "snli_id" in values:
        return "snli"
    return "nli" if any(key in values for key in _NLI_KEYS) else ""


def _take_nli(values: Mapping[str, Any], line: Line, rows: _Rows) -> None:
    keys = _SNLI_KEYS if any(key in values for key in _SNLI_KEYS) else _NLI_KEYS
    premise, hypothesis = (lines.sentence(values.get(key), key) for key in keys)
    key = next((key for key in LABEL_KEYS if key in values), None)
    if key is None:
        raise BadLine("no gold_label")
    label = values[key]
    if isinstance(label, (list, dict, bool)):
        raise BadLine("the label is no name")
    if label in UNLABELLED:
        rows.by_design.add(_DISAGREED, line.number)
        return
    code = label if isinstance(label, int) else _nli_code(label)
    if not isinstance(code, int) or not 0 <= code < len(NLI_NAMES):
        raise BadLine(f"unknown label {files.shown(label)}")
    rows.add_pair(premise, hypothesis)
    rows.labels.append(code)


def _nli_code(label: object) -> int | None:
    name = str(label).strip().lower()
    return NLI_NAMES.index(name) if name in NLI_NAMES else None


def _take_pair(values: Mapping[str, Any], line: Line, rows: _Rows) -> None:
    question = lines.sentence(values.get("question"), "question")
    rows.add_pair(question, lines.sentence(values.get("answer"), "answer"))


def _take_dialogue(values: Mapping[str, Any], line: Line, rows: _Rows) -> None:
    turns = next((values[key] for key in _DIALOGUE_KEYS if key in values), None)
    if not isinstance(turns, list) or not turns:
        raise BadLine("no turns")
    for place in range(0, len(turns) - 1, 2):
        try:
            question, answer = (_turn(turn) for turn in turns[place : place + 2])
        except BadLine as error:
            rows.faults.add(str(error), line.number)
        else:
            rows.add_pair(question, answer, group=line.number)
    if len(turns) % 2:
        rows.by_design.add(_UNANSWERED, line.number)


def _turn(turn: object) -> str:
    return lines.sentence(turn.get("text") if isinstance(turn, dict) else turn, "a turn")


_SCHEMAS: Mapping[str, _Schema] = {
    "snli": _Schema(Task.NLI, "snli", _take_nli, NLI_NAMES),
    "multinli": _Schema(Task.NLI, "multinli", _take_nli, NLI_NAMES),
    "nli": _Schema(Task.NLI, "nli", _take_nli, NLI_NAMES),
    "dialogue": _Schema(Task.DIALOGUE, "dialogue", _take_dialogue),
    "pairs": _Schema(Task.DIALOGUE, "pairs", _take_pair),
}


def _finished(
    path: Path, rows: _Rows, task: Task, corpus: str, label_names: tuple[str, ...] = ()
) -> TextRows:
    left_out = (*_left_out(path, rows.faults, True), *_left_out(path, rows.by_design, False))
    if not rows.sources:
        told = "; ".join(f"{each.rows} {told_reason(each)}" for each in left_out)
        raise DataError(f"{path}: no usable rows: {told or 'nothing but blank lines'}")
    return TextRows(
        path=path,
        task=task,
        corpus=corpus,
        rows=len(rows.sources) + rows.faults.rows + rows.by_design.rows,
        sources=rows.sources,
        targets=rows.targets or None,
        labels=rows.labels or None,
        label_names=label_names,
        groups=rows.groups or None,
        problems=(),
        left_out=left_out,
    )


def _left_out(path: Path, tally: Tally, fault: bool) -> Iterator[LeftOut]:
    for reason, found in tally.faults.items():
        yield LeftOut(path, reason, found.rows, tuple(found.lines), fault)


def told_reason(left_out: LeftOut) -> str:
    """The reason, and the lines that it is about as far as they are few."""
    numbers = left_out.lines[:_SHOWN_LINES]
    if not numbers:
        return left_out.reason
    more = ", ..." if len(left_out.lines) > len(numbers) else ""
    word = "line" if len(left_out.lines) == 1 else "lines"
    return f"{left_out.reason} ({word} {', '.join(map(str, numbers))}{more})"
