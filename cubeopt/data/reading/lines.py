"""Files of text as streams of lines, each with its number and, where it is bad, the reason."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cubeopt.data.reading import files
from cubeopt.errors import DataError

LONGEST_LINE = 1 << 20  # bytes: a thousand times the longest sentence of use
_MOST_REASONS = 100
_MOST_LINES = 10_000  # whose numbers are kept, for one reason
_OTHER = "other faults"


class BadLine(Exception):
    """A line cannot be used; its text is the reason."""


@dataclass(frozen=True)
class Line:
    """One line of a file, without its end; or the reason why it cannot be read."""

    number: int  # from 1
    text: str
    fault: str | None = None


@dataclass
class Fault:
    """Rows that cannot be used for one reason, and the lines they stand on."""

    rows: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass
class Tally:
    """Counts faults by their reasons; a hostile file cannot make it grow without end."""

    faults: dict[str, Fault] = field(default_factory=dict)

    def add(self, reason: str, line: int, rows: int = 1) -> None:
        if reason not in self.faults and len(self.faults) >= _MOST_REASONS:
            reason = _OTHER
        fault = self.faults.setdefault(reason, Fault())
        fault.rows += rows
        if len(fault.lines) < _MOST_LINES and fault.lines[-1:] != [line]:
            fault.lines.append(line)

    @property
    def rows(self) -> int:
        return sum(fault.rows for fault in self.faults.values())


def lines(path: Path) -> Iterator[Line]:
    """Each line of *path* that is not blank."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(raw) > LONGEST_LINE:
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(LONGEST_LINE)
                    yield Line(number, "", f"longer than {LONGEST_LINE} bytes")
                elif not raw.isspace():
                    yield _decoded(number, raw)
    except OSError as error:
        raise DataError(f"{path}: {files.os_reason(error)}") from error


def _decoded(number: int, raw: bytes) -> Line:
    try:
        # Files that were joined have the mark of a beginning in their middle, too.
        text = raw.rstrip(b"\r\n").decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return Line(number, "", "not UTF-8")
    return Line(number, text)


def check(line: Line) -> Line:
    """*line* itself; BadLine when it could not be read."""
    if line.fault:
        raise BadLine(line.fault)
    return line


def parse_object(line: Line) -> dict[str, Any]:
    """The JSON object on *line*; BadLine says why there is none."""
    try:
        value = json.loads(check(line).text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadLine(f"broken JSON ({error.msg})") from error
    except RecursionError as error:
        raise BadLine("broken JSON (too deep)") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise BadLine("broken JSON (a number out of range)") from error
    if not isinstance(value, dict):
        raise BadLine(f"a {type(value).__name__} where an object is expected")
    return value


def _no_constant(name: str) -> NoReturn:
    raise BadLine(f"broken JSON ({name} is no number of JSON)")


def sentence(value: object, name: str) -> str:
    """*value* as a sentence without the space around it; BadLine says why *name* is none."""
    if value is None:
        raise BadLine(f"no {name}")
    if not isinstance(value, str):
        raise BadLine(f"{name} is no text")
    text = value.strip()
    if not text:
        raise BadLine(f"{name} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadLine(f"{name} holds half a character")
    if "\0" in text:
        raise BadLine(f"{name} holds a zero byte")
    return text


def whole_number(value: object) -> int | None:
    """*value* where it is a whole number, in whatever type a file holds it."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None
