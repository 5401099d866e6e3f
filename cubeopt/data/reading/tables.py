"""Labelled text in columns: comma-separated with quotes, or tab-separated with or without."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cubeopt.data.reading import files, lines
from cubeopt.data.reading.labels import MOST_LABELS, SENTIMENT_NAMES
from cubeopt.data.reading.lines import BadLine, Line, Tally
from cubeopt.errors import DataError

_MOST_JOINED = 50  # lines of one quoted field
_NUMBER = re.compile(r"\+?(\d{1,4})(\.0+)?", re.ASCII)  # pandas may write whole numbers as 1.0
_OPEN_QUOTE = "a quote that does not end"


@dataclass(frozen=True)
class Table:
    """The labelled texts of a table."""

    texts: list[str]
    labels: list[int]
    label_names: tuple[str, ...]
    faults: Tally


@dataclass(frozen=True)
class _Columns:
    """Where a table has what."""

    delimiter: str
    count: int
    text: int
    label: int


@dataclass
class _Cells:
    """Texts with their labels as they stand in the file, and the lines they come from."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faults: Tally = field(default_factory=Tally)


def read(path: Path) -> Table:
    """Read the table at *path*, by the rule for quotes under which more of it makes sense."""
    columns = _columns(path)
    cells = _cells(_quoted_records(_body(path), columns), columns)
    if columns.delimiter == "\t":
        # Where a quote is nothing but a sign, obeying it loses lines.
        plain = _cells(_plain_records(_body(path), columns), columns)
        cells = max((cells, plain), key=lambda each: len(each.texts))
    return _labelled(cells, path)


def _columns(path: Path) -> _Columns:
    header = next(lines.lines(path), None)
    if header is None or header.fault:
        reason = header.fault if header else "nothing but blank lines"
        raise DataError(f"{path}: no line that names the columns: {reason}")
    names = files.column_names(header.text)
    if not files.has_header(header.text):
        shown = ", ".join(files.shown(name) for name in names[:10]) or "(none)"
        wanted = " or ".join(files.TEXT_COLUMNS)
        raise DataError(
            f"{path}: the first line must name a column {wanted} and a column label; found {shown}"
        )
    text, label = (
        next(names.index(name) for name in wanted if name in names)
        for wanted in (files.TEXT_COLUMNS, files.LABEL_COLUMNS)
    )
    return _Columns(files.delimiter(header.text), len(names), text, label)


def _body(path: Path) -> Iterator[Line]:
    body = lines.lines(path)
    next(body, None)
    return body


_Record = tuple[Line, list[str]]


def _plain_records(body: Iterator[Line], columns: _Columns) -> Iterator[_Record]:
    for line in body:
        yield line, line.text.split(columns.delimiter)


def _quoted_records(body: Iterator[Line], columns: _Columns) -> Iterator[_Record]:
    """Each record with its fields; a quoted field may go over lines (RFC 4180)."""
    waiting: deque[Line] = deque()
    known: set[str] = set()  # labels of records that stand on a line of their own
    while line := waiting.popleft() if waiting else next(body, None):
        if line.fault or '"' not in line.text:
            fields = line.text.split(columns.delimiter)
            if len(fields) == columns.count and len(known) < MOST_LABELS:
                known.add(fields[columns.label])
            yield line, fields
            continue
        joined = _joined(line, waiting, body)
        fields = _fields("\n".join(each.text for each in joined), columns.delimiter)
        # A stray quote that ends by chance must not swallow the lines up to there.
        if not fields or any(_stands_alone(each, columns, known) for each in joined[1:]):
            yield Line(line.number, "", _OPEN_QUOTE), []
            waiting.extendleft(reversed(joined[1:]))
        else:
            yield line, fields


def _joined(line: Line, waiting: deque[Line], body: Iterator[Line]) -> list[Line]:
    """*line* and those after it up to the end of its quotes, as far as that is near."""
    joined, size, quotes = [line], len(line.text), line.text.count('"')
    while quotes % 2 and len(joined) < _MOST_JOINED and size < lines.LONGEST_LINE:
        following = waiting.popleft() if waiting else next(body, None)
        if following is None:
            break
        joined.append(following)
        quotes += following.text.count('"')
        size += len(following.text)
        if following.fault:
            break
    return joined


def _fields(text: str, delimiter: str) -> list[str]:
    """The fields of one record, or none where its quotes break the rule."""
    try:
        records = list(csv.reader(io.StringIO(text, ""), delimiter=delimiter, strict=True))
    except csv.Error:
        return []
    return records[0] if len(records) == 1 else []


def _stands_alone(line: Line, columns: _Columns, known: Iterable[str]) -> bool:
    if line.fault:
        return True
    if line.text.count('"') % 2:
        return False
    fields = _fields(line.text, columns.delimiter)
    if len(fields) != columns.count:
        return False
    label = fields[columns.label]
    return label in known or bool(_NUMBER.fullmatch(label.strip()))


def _cells(records: Iterator[_Record], columns: _Columns) -> _Cells:
    cells = _Cells()
    for line, fields in records:
        try:
            text = _text(line, fields, columns)
        except BadLine as error:
            cells.faults.add(str(error), line.number)
            continue
        cells.texts.append(text)
        cells.labels.append(fields[columns.label].strip())
        cells.lines.append(line.number)
    return cells


def _text(line: Line, fields: Sequence[str], columns: _Columns) -> str:
    lines.check(line)
    if len(fields) != columns.count:
        found = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        raise BadLine(f"{found} where the first line names {columns.count}")
    if not fields[columns.label].strip():
        raise BadLine("no label")
    return lines.sentence(fields[columns.text], "the text")


def _labelled(cells: _Cells, path: Path) -> Table:
    """*cells* with their labels as numbers: as they stand there, or as the place of a name."""
    numbers = [_number(label) for label in cells.labels]
    if 2 * sum(number is not None for number in numbers) < len(numbers):
        names = sorted(set(cells.labels))
        if len(names) <= MOST_LABELS:
            places = {name: place for place, name in enumerate(names)}
            codes = [places[label] for label in cells.labels]
            return Table(cells.texts, codes, tuple(names), cells.faults)
        raise DataError(
            f"{path}: {len(names)} different labels: is the column label the right one?"
        )
    texts, labels = [], []
    for text, number, line in zip(cells.texts, numbers, cells.lines, strict=True):
        if number is None or number >= MOST_LABELS:
            cells.faults.add(f"the label is no whole number below {MOST_LABELS}", line)
        else:
            texts.append(text)
            labels.append(number)
    highest = max(labels, default=0)
    names = [str(code) for code in range(highest + 1)]
    return Table(texts, labels, SENTIMENT_NAMES if highest < 2 else tuple(names), cells.faults)


def _number(label: str) -> int | None:
    match = _NUMBER.fullmatch(label)
    return int(match[1]) if match else None
