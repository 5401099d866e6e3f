"""Tables fit the place they are printed to; numbers stand aligned."""

import json
from typing import Any

import pytest

from cubeopt.cli import printing

Capture = pytest.CaptureFixture[str]
COLUMNS = ("trial", "fvu", "learning_rate", "reconstruction_weight", "similarity_weight")
ROWS = [(0, 0.98765, 0.00012, 2.5, 0.75), (11, 1.02, 0.01, 0.25, None)]


def lines(capsys: Capture) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_in_a_pipe_a_table_is_one_line_a_row_and_never_cut(capsys: Capture) -> None:
    printing.table("t", ["name", "text"], [["a", "x" * 5000], ["b", "y"]])
    assert lines(capsys) == ["t", "name  text", f"a     {'x' * 5000}", "b     y"]


def test_numbers_of_a_column_stand_under_each_other(capsys: Capture) -> None:
    printing.table("t", COLUMNS, ROWS)
    _, header, first, second = lines(capsys)
    assert first.split() == ["0", "0.9877", "0.0001200", "2.5000", "0.7500"]
    assert second.split() == ["11", "1.0200", "0.0100000", "0.2500", "-"]
    ends = [header.index(name) + len(name) for name in COLUMNS]
    for row in (first, second):
        assert all(row[end - 1] != " " and row[end : end + 1] in (" ", "") for end in ends)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_a_table_keeps_to_a_narrow_terminal_and_names_what_it_leaves_out(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    printing.table("t", COLUMNS, ROWS, expendable=3)
    shown = lines(capsys)
    note = shown.pop() if shown[-1].startswith("not shown") else ""
    assert max(map(len, shown)) <= width
    values = shown[-1].split()
    left_out = [name for name in COLUMNS if name in note]
    assert values[:2] == ["11", "1.0200"]
    assert list(COLUMNS) == [*COLUMNS[: len(values)], *left_out]
    assert bool(note) == (width < 60)
    assert (f"{width} columns" in note) == bool(note)


def test_markup_and_control_characters_are_shown_not_obeyed(capsys: Capture) -> None:
    printing.table("t [b]", ["a"], [["[red]x[/nope]"], ["\x1b[31m\n\udcff"]])
    assert lines(capsys) == ["t [b]", "a", "[red]x[/nope]", "\\x1b[31m\\n\\udcff"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, "-"), (True, "yes"), (False, "no"), (3, "3"), ("a", "a"), (0.0, "0")),
        *((0.12345678, "0.1235"), (1234567.0, "1.235e+06"), (0.00012345, "1.23e-04")),
        *((float("nan"), "nan"), (float("-inf"), "-inf")),
    ],
)
def test_a_value_alone_is_shown_in_four_digits(value: Any, shown: str) -> None:
    assert printing.cell(value) == shown


def test_a_column_too_wide_for_decimals_is_scientific_throughout(capsys: Capture) -> None:
    printing.table("t", ["a"], [[1e-9], [5.0], [float("nan")]])
    assert [line.strip() for line in lines(capsys)[2:]] == ["1.000e-09", "5.000e+00", "nan"]


def test_facts_are_aligned_text_or_one_json_object(capsys: Capture) -> None:
    row = {"name": "x", "value": None, "good": True}
    printing.facts(row, as_json=False)
    assert lines(capsys) == ["name   x", "value  -", "good   yes"]
    printing.facts(row, as_json=True)
    assert json.loads(capsys.readouterr().out) == row


def test_json_has_no_place_for_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        printing.print_json({"value": float("nan")})
