import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cubeopt.data.reading import texts
from cubeopt.data.reading.inspect import inspect
from cubeopt.data.reading.texts import TextRows
from cubeopt.errors import DataError
from cubeopt.trial import Task

GOOD = {"gold_label": "neutral", "sentence1": "Two men talk.", "sentence2": "They are friends."}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write each part as a line: bytes and texts as they are, the rest as JSON."""

    def _write(lines: Sequence[Any], name: str = "file.any", end: bytes = b"\n") -> Path:
        path = tmp_path / name
        raw = [
            line
            if isinstance(line, bytes)
            else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        ]
        path.write_bytes(end.join(raw))
        return path

    return _write


def _reasons(rows: TextRows, *, fault: bool = True) -> dict[str, tuple[int, ...]]:
    return {each.reason: each.lines for each in rows.left_out if each.fault == fault}


def test_pairs_with_labels_are_read_and_grouped_by_premise(write: Callable) -> None:
    path = write(
        [
            {**GOOD, "gold_label": "entailment"},
            {**GOOD, "gold_label": "contradiction", "sentence2": " Nobody talks.\n"},
            {**GOOD, "sentence1": "A dog runs."},
            {**GOOD, "gold_label": "-"},
            "",
            {**GOOD, "gold_label": 2},
        ]
    )
    rows = texts.read(path)
    assert (rows.task, rows.corpus, rows.rows) == (Task.NLI, "snli", 5)
    assert rows.sources == ["Two men talk."] * 2 + ["A dog runs.", "Two men talk."]
    assert rows.targets is not None
    assert rows.targets[1] == "Nobody talks."
    assert rows.labels == [0, 2, 1, 2]
    assert rows.label_names == ("entailment", "neutral", "contradiction")
    assert rows.groups == [0, 0, 1, 0]
    assert _reasons(rows) == {}
    assert _reasons(rows, fault=False) == {'label "-": the annotators did not agree': (4,)}


BAD_LINES: dict[str, tuple[Any, str]] = {
    "cut short": (b'{"gold_label": "neutral", "sente', "broken JSON (Unterminated string"),
    "not UTF-8": (b'{"gold_label": "neutral", "sentence1": "caf\xe9"}', "not UTF-8"),
    "a list": (["a list", "no object"], "a list where an object is expected"),
    "a key is missing": ({"gold_label": "neutral", "sentence1": "a"}, "no sentence2"),
    "an unknown label": ({**GOOD, "gold_label": "maybe"}, "unknown label maybe"),
    "a label out of range": ({**GOOD, "gold_label": 3}, "unknown label 3"),
    "a label that is no name": ({**GOOD, "gold_label": ["-"]}, "the label is no name"),
    "no label": ({"sentence1": "a", "sentence2": "b"}, "no gold_label"),
    "an empty text": ({**GOOD, "sentence1": "  "}, "sentence1 is empty"),
    "null": ({**GOOD, "sentence2": None}, "no sentence2"),
    "a number": ({**GOOD, "sentence2": 5}, "sentence2 is no text"),
    "NaN": (b'{"gold_label": NaN}', "broken JSON (NaN is no number of JSON)"),
    "half a character": ({**GOOD, "sentence1": "\ud83d"}, "sentence1 holds half a character"),
    "a zero byte": ({**GOOD, "sentence1": "a\0b"}, "sentence1 holds a zero byte"),
    "too deep": (b'{"a":' * 50_000, "broken JSON"),
    "a number without end": (b'{"a": ' + b"9" * 5000 + b"}", "broken JSON (a number out of range)"),
    "a line without end": (b'{"a": "' + b"x" * 3_000_000, "longer than 1048576 bytes"),
}


@pytest.mark.parametrize("name", sorted(BAD_LINES))
@pytest.mark.parametrize("last", [False, True])
def test_a_bad_line_is_left_out_with_its_number_and_reason(
    name: str, last: bool, write: Callable
) -> None:
    bad, reason = BAD_LINES[name]
    path = write([GOOD, b"", bad] + ([] if last else [GOOD]))
    rows = texts.read(path)
    assert len(rows.sources) == (1 if last else 2)
    assert rows.rows == len(rows.sources) + 1
    ((told, numbers),) = _reasons(rows).items()
    assert told.startswith(reason)
    assert numbers == (3,)


def test_a_mark_of_the_beginning_is_tolerated_on_every_line(write: Callable) -> None:
    line = b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r"
    rows = texts.read(write([line, line]))
    assert (len(rows.sources), rows.left_out) == (2, ())


def test_the_broken_lines_of_one_file_stand_in_its_facts(write: Callable) -> None:
    (facts,) = inspect([write([GOOD, {**GOOD, "gold_label": "-"}, b"{", b"{", GOOD])])
    assert (facts.kind, facts.task, facts.corpus) == ("text", Task.NLI, "snli")
    assert (facts.rows, facts.usable_rows) == (5, 2)
    reason = "broken JSON (Expecting property name enclosed in double quotes)"
    assert facts.problems == (f"2 of 5 rows left out: {reason} (lines 3, 4)",)
    assert facts.notes == (
        '1 of 5 rows left out: label "-": the annotators did not agree (line 2)',
    )
    json.dumps(facts.as_json())


def test_many_different_faults_do_not_fill_the_memory(write: Callable) -> None:
    labels = [{**GOOD, "gold_label": f"unknown {number}"} for number in range(12_000)]
    rows = texts.read(write([GOOD, *labels]))
    assert len(rows.left_out) == 101
    assert sum(each.rows or 0 for each in rows.left_out) == 12_000
    assert max(len(each.lines) for each in rows.left_out) == 10_000


@pytest.mark.parametrize("key", ["dialog", "dialogue", "turns", "utterances"])
def test_consecutive_turns_become_question_and_answer(key: str, write: Callable) -> None:
    path = write(
        [
            {key: ["a", "b", "c", "d", "left over"], "topic": "x"},
            {key: [{"text": "e"}, {"text": "f", "speaker": 1}]},
            {key: ["a", "b", "c", " "]},
            {key: ["alone"]},
            {key: []},
            {key: "no list"},
        ]
    )
    rows = texts.read(path)
    assert (rows.task, rows.corpus) == (Task.DIALOGUE, "dialogue")
    assert rows.targets is not None
    pairs = list(zip(rows.sources, rows.targets, strict=True))
    assert pairs == [("a", "b"), ("c", "d"), ("e", "f"), ("a", "b")]
    assert rows.groups is not None
    assert [rows.groups[0] == group for group in rows.groups] == [True, True, False, False]
    assert len(set(rows.groups)) == 3
    assert rows.labels is None
    assert _reasons(rows) == {"a turn is empty": (3,), "no turns": (5, 6)}
    assert _reasons(rows, fault=False) == {"the last turn has no answer": (1, 4)}
    assert rows.rows == 4 + 3 + 2


def test_questions_with_answers_are_grouped_by_question(write: Callable) -> None:
    pairs = [("a", "b"), ("c", "d"), ("a", "e")]
    lines = [{"question": question, "answer": answer} for question, answer in pairs]
    rows = texts.read(write([*lines, {"question": "f"}]))
    assert (rows.task, rows.corpus, rows.groups) == (Task.DIALOGUE, "pairs", [0, 1, 0])
    assert _reasons(rows) == {"no answer": (4,)}


@pytest.mark.parametrize(
    ("line", "corpus"),
    [
        ({**GOOD, "genre": "fiction"}, "multinli"),
        ({"premise": "a", "hypothesis": "b", "label": 1}, "nli"),
        ({"premise": "a", "hypothesis": "b", "label": 1, "snli_id": "dev:1"}, "snli"),
    ],
)
def test_a_corpus_is_known_by_its_keys(line: Any, corpus: str, write: Callable) -> None:
    rows = texts.read(write([line, line]))
    assert (rows.task, rows.corpus, rows.labels) == (Task.NLI, corpus, [1, 1])


def test_the_first_lines_being_broken_decides_nothing(write: Callable) -> None:
    rows = texts.read(write([b'{"x', {"x": 1}, GOOD, GOOD]))
    assert len(rows.sources) == 2
    assert [number for lines in _reasons(rows).values() for number in lines] == [1, 2]


def test_plain_sentences_stand_one_a_line(write: Callable) -> None:
    rows = texts.read(
        write([b"\xef\xbb\xbfOne.", "", " Two. \r", b"caf\xe9", "One.", b"a\0b", "Long. " * 50])
    )
    assert rows.sources == ["One.", "Two.", "One.", ("Long. " * 50).strip()]
    assert (rows.targets, rows.labels, rows.groups) == (None, None, None)
    assert (rows.task, rows.corpus) == (Task.RECONSTRUCT, "autoencoder")
    assert _reasons(rows) == {"not UTF-8": (4,), "the sentence holds a zero byte": (6,)}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["", " ", "\t"], "no usable rows: nothing but blank lines"),
        ([{"weights": [1], "\x1b[31m": 2}] * 2, r"no known kind.*found the keys weights, '\\x1b"),
        (["{", '"pretty": 1', "}"], "no JSON object among the first lines: line 3"),
        ([{**GOOD, "gold_label": "-"}], r"no usable rows: 1 label \"-\".*\(line 1\)"),
        ([{**GOOD, "sentence1": 1}] * 12, r"no usable rows: 12 .*\(lines 1, .*, 10, \.\.\.\)"),
    ],
)
def test_a_file_without_rows_is_refused(lines: Any, reason: str, write: Callable) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        texts.read(write(lines))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_embeddings_are_no_text(save: Callable, rows: Callable) -> None:
    with pytest.raises(DataError, match="a file of the format torch, not text"):
        texts.read(save("a.pt", rows(2, 1)))
