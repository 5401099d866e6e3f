from collections.abc import Callable
from pathlib import Path

import pytest

from cubeopt.data.reading import texts
from cubeopt.data.reading.texts import TextRows
from cubeopt.errors import DataError
from cubeopt.trial import Task


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], TextRows]:
    def _read(content: str, name: str = "table.any") -> TextRows:
        (tmp_path / name).write_text(content, newline="")
        return texts.read(tmp_path / name)

    return _read


def _reasons(rows: TextRows) -> dict[str, tuple[int, ...]]:
    assert all(each.fault for each in rows.left_out)
    return {each.reason: each.lines for each in rows.left_out}


def test_a_quote_in_a_tab_separated_table_is_a_sign_like_others(read: Callable) -> None:
    rows = read('text\tlabel\n"frailty" is good\t1\nan open "quote\t0\n"another\t0\nplain\t1\n')
    assert rows.sources == ['"frailty" is good', 'an open "quote', '"another', "plain"]
    assert rows.labels == [1, 0, 0, 1]
    assert rows.label_names == ("negative", "positive")
    assert (rows.task, rows.corpus) == (Task.SENTIMENT, "sentiment")
    assert (rows.targets, rows.groups, rows.left_out) == (None, None, ())


def test_a_tab_separated_table_may_be_quoted(read: Callable) -> None:
    rows = read('text\tlabel\n"with a\ttab"\t1\n"say ""yes"""\t0\n"two\nlines"\t1\nplain\t0\n')
    assert rows.sources == ["with a\ttab", 'say "yes"', "two\nlines", "plain"]
    assert (rows.labels, rows.left_out) == ([1, 0, 1, 0], ())


def test_a_comma_separated_table_is_quoted_as_in_rfc_4180(read: Callable) -> None:
    rows = read(
        'id,Review,Sentiment\r\n1,"good, ""very"" good",positive\r\n'
        '2,"two\r\nlines, and, commas",negative\r\n3,plain,positive\r\n'
    )
    assert rows.sources == ['good, "very" good', "two\nlines, and, commas", "plain"]
    assert rows.labels == [1, 0, 1]
    assert rows.label_names == ("negative", "positive")
    assert rows.left_out == ()


@pytest.mark.parametrize(
    "stray", ['"open,0', '"open" words,0', 'a,"0', '"a""b,0', '"open, and more']
)
@pytest.mark.parametrize("after", ["", 'x "y" z,1\n', 'the end",1\n', '",1\n'])
def test_a_stray_quote_takes_its_own_line_at_most(stray: str, after: str, read: Callable) -> None:
    good = "".join(f"sentence {number},{number % 2}\n" for number in range(60))
    rows = read(f"text,label\n{good}{stray}\n{good}{after}{good}")
    assert len([text for text in rows.sources if text.startswith("sentence")]) == 180
    assert 62 in _reasons(rows).get("a quote that does not end", ())


def test_a_quote_that_never_ends_costs_one_line(read: Callable) -> None:
    rows = read('text,label\na,1\n"b,0\n' + "c,1\n" * 200)
    assert len(rows.sources) == 201
    assert _reasons(rows) == {"a quote that does not end": (3,)}


def test_bad_rows_are_counted_with_their_lines(read: Callable) -> None:
    rows = read(
        "label\ttext\n1\tgood\n1\n\n1\ta\tb\n\tno label\n0\t \nx\tno number\n0\tbad\n5000\tz\n"
    )
    assert (rows.sources, rows.labels) == (["good", "bad"], [1, 0])
    assert _reasons(rows) == {
        "1 field where the first line names 2": (3,),
        "3 fields where the first line names 2": (5,),
        "no label": (6,),
        "the text is empty": (7,),
        "the label is no whole number below 1000": (8, 10),
    }
    assert rows.rows == 8


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        (["0", "1", "1"], [0, 1, 1], ("negative", "positive")),
        (["1.0", "0.0", "+1"], [1, 0, 1], ("negative", "positive")),
        (["2", "0", "4"], [2, 0, 4], ("0", "1", "2", "3", "4")),
        (["pos", "neg", "pos"], [1, 0, 1], ("neg", "pos")),
    ],
)
def test_labels_become_numbers(
    labels: list[str], codes: list[int], names: tuple[str, ...], read: Callable
) -> None:
    rows = read("sentence,label\n" + "".join(f"words,{label}\n" for label in labels))
    assert (rows.labels, rows.label_names) == (codes, names)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tsv", "words\t1\n", "must name a column text or sentence or review and a column label"),
        ("a.csv", "\n\n", "no line that names the columns: nothing but blank lines"),
        ("a.csv", "text,label\n", "no usable rows: nothing but blank lines"),
        ("a.csv", "text,label\na\n", r"no usable rows: 1 1 field where .* \(line 2\)"),
        (
            "a.csv",
            "text,label\n" + "".join(f"a,text {number}\n" for number in range(1001)),
            "1001 different labels: is the column label the right one",
        ),
    ],
)
def test_a_table_without_rows_is_refused(
    name: str, content: str, reason: str, read: Callable
) -> None:
    with pytest.raises(DataError, match=reason):
        read(content, name)
