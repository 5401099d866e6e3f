"""Damaged files of every format give good rows or one clear DataError, whatever the damage.

A file is changed in a few places: bytes, stretches, entries of its zip. Seeds are fixed, so that a
run is repeatable.
"""

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from cubeopt.data.reading import files, sources, texts
from cubeopt.data.reading.inspect import inspect
from cubeopt.errors import DataError

WIDTH = 768


def _sample() -> dict[str, Any]:
    """The smallest dialogue of the sample, cut to two pairs: most bytes are structure."""
    folder = sources.sample_dir() / "dialogue_dataset"
    path = min(folder.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    content = torch.load(path, weights_only=True)
    cut = {key: content[key][:2].clone() for key in ("questions", "answers")}
    return {**cut, "metadata": content["metadata"][:2]}


SAMPLE = _sample()
TENSORS = {
    "question_embeddings": SAMPLE["questions"],
    "answer_embeddings": SAMPLE["answers"],
    "labels": torch.tensor([0, 2]),
    "groups": torch.tensor([5, 6]),
}
META = {"teacher_model": "a", "task": "nli", "label_names": '["entailment", "neutral", "no"]'}
PAIR = {"gold_label": "neutral", "sentence1": "Two men talk.", "sentence2": "They are friends."}


def _written(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _parquet(**options: Any) -> bytes:
    columns = {
        name: pa.array(tensor.tolist(), pa.list_(pa.float32()) if tensor.ndim == 2 else None)
        for name, tensor in TENSORS.items()
    }
    table = pa.table(columns).replace_schema_metadata(META)
    return _written(lambda file: pq.write_table(table, file, **options))


def _lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _wholes() -> dict[str, bytes]:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in TENSORS.items()}
    shown = {"dataset_info": {"source": "SNLI", "num_pairs": 2}, "sample_pairs": [PAIR] * 2}
    return {
        "dialogue": _written(lambda file: torch.save(SAMPLE, file)),
        "prepared": _written(lambda file: torch.save({**TENSORS, **META, **shown}, file)),
        "legacy": _written(
            lambda file: torch.save(TENSORS, file, _use_new_zipfile_serialization=False)
        ),
        "bare": _written(lambda file: torch.save(SAMPLE["questions"].double(), file)),
        "npy": _written(lambda file: np.save(file, arrays["question_embeddings"])),
        "npz": _written(lambda file: np.savez(file, **{**arrays, **META})),
        "packed": _written(lambda file: np.savez_compressed(file, **{**arrays, **META})),
        "safetensors": save(TENSORS, META),
        "nli": _lines(*[PAIR, {**PAIR, "gold_label": "-"}] * 5),
        "dialogues": _lines(*[{"dialog": ["a", "b", "c"]}, {"dialog": [{"text": "d"}] * 4}] * 5),
        "questions": _lines(*[{"question": "why", "answer": "so"}] * 10),
        "tab": b"text\tlabel\n" + b'a "quoted" word\t1\n"open\t0\nplain\t1\n' * 5,
        "comma": b"text,label\r\n" + b'"say ""yes"", please",1\r\n"two\r\nlines",0\r\n' * 5,
        "sentences": "A sentence.\nEin Käse.\n\n".encode() * 5,
    }


WHOLES = _wholes()
PARQUETS = {
    "plain.parquet": _parquet(compression="none", use_dictionary=False),
    "packed.parquet": _parquet(compression="zstd", row_group_size=1),
}
PIECES = st.sampled_from(
    b'\n " \t , { } NaN \xff \0 \xef\xbb\xbf \\ud800 -1 null PK\x03\x04 \xff\xff\xff\x7f'.split(
        b" "
    )
)
# Most of what can go wrong stands near the beginning or the end.
PLACES = st.one_of(
    st.integers(0, 700), st.integers(-1500, -1), st.integers(0, 1 << 20), st.just(0), st.just(-1)
)
EDITS = st.one_of(
    st.tuples(st.just("byte"), PLACES, st.integers(0, 255)),
    st.tuples(st.just("bit"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("put"), PLACES, PIECES),
    st.tuples(st.just("over"), PLACES, PIECES),
    st.tuples(st.just("drop"), PLACES, st.integers(1, 60)),
    st.tuples(st.just("double"), PLACES, st.integers(1, 200)),
    st.tuples(st.just("cut"), PLACES, st.none()),
)
ENTRY_EDITS = st.sampled_from(["drop", "double", "rename", "shorten", "pack"])
FIXED = settings(deadline=None, derandomize=True, database=None)


def _edited(whole: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    content = bytearray(whole)
    for kind, place, value in edits:
        if not content:
            break
        at = place % len(content)
        if kind == "byte":
            content[at] = value
        elif kind == "bit":
            content[at] ^= 1 << value
        elif kind == "put":
            content[at:at] = value
        elif kind == "over":
            content[at : at + len(value)] = value
        elif kind == "double":
            content[at:at] = content[at : at + value]
        else:
            del content[at : at + value if kind == "drop" else None]
    return bytes(content)


def _rezipped(whole: bytes, kind: str, first: int, second: int) -> bytes:
    """The zip *whole* with one of its entries changed."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    place, other = first % len(entries), second % len(entries)
    name, content = entries[place]
    changed = {
        "drop": [],
        "double": [(name, content)] * 2,
        "rename": [(entries[other][0], content)],
        "shorten": [(name, content[: second % (len(content) + 1)])],
        "pack": [(name, content)],
    }
    entries[place : place + 1] = changed[kind]
    how = zipfile.ZIP_DEFLATED if kind == "pack" else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", how) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for entry_name, entry_content in entries:
            archive.writestr(entry_name, entry_content)
    return buffer.getvalue()


def _check(content: bytes) -> None:
    """Read *content* from a file: good rows, or a DataError of one line that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(content)
        try:
            if files.format_of(path).is_text:
                _check_text(texts.read(path))
            else:
                _check_source(sources.read(path, WIDTH))
        except DataError as error:
            message = str(error)
            assert message.startswith(f"{path}: ")
            assert len(message) < 2000
            assert message.isprintable()


def _check_text(rows: texts.TextRows) -> None:
    columns = (rows.targets, rows.labels, rows.groups)
    assert all(column is None or len(column) == len(rows.sources) for column in columns)
    assert rows.rows == len(rows.sources) + sum(each.rows or 0 for each in rows.left_out)
    assert all(0 <= label < len(rows.label_names) for label in rows.labels or [])
    for text in (*rows.sources, *(rows.targets or [])):
        assert text.strip() == text
        assert text.encode()


def _check_source(source: sources.Source) -> None:
    left_out = sum(each.rows or 0 for each in source.left_out)
    assert source.usable_rows + left_out == source.rows
    for number in range(len(source.sides)):
        norms = source.side(number, source.good).norm(dim=1)
        assert norms.shape == (source.usable_rows,)
        assert ((norms >= 0.0999) & (norms <= 100.01)).all()
    for column in (source.labels, source.groups):
        assert column is None or column.shape == (source.rows,)
    if source.labels is not None:
        assert ((source.labels >= -1) & (source.labels < len(source.label_names))).all()


@pytest.mark.parametrize("name", sorted(WHOLES | PARQUETS))
def test_the_undamaged_file_is_good(name: str, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes((WHOLES | PARQUETS)[name])
    (facts,) = inspect([tmp_path / "whole"])
    assert facts.usable_rows > 0
    assert facts.problems == ()


@pytest.mark.parametrize("name", sorted(WHOLES))
@settings(FIXED, max_examples=120)
@given(edits=st.lists(EDITS, min_size=1, max_size=6))
def test_damaged_bytes_give_good_rows_or_a_data_error(
    name: str, edits: list[tuple[str, int, Any]]
) -> None:
    _check(_edited(WHOLES[name], edits))


@pytest.mark.parametrize("name", ["dialogue", "prepared", "bare", "npz", "packed"])
@settings(FIXED, max_examples=40)
@given(
    kind=ENTRY_EDITS,
    first=st.integers(0, 50),
    second=st.integers(0, 10_000),
    edits=st.lists(EDITS, max_size=1),
)
def test_a_damaged_zip_gives_good_rows_or_a_data_error(
    name: str, kind: str, first: int, second: int, edits: list[tuple[str, int, Any]]
) -> None:
    _check(_edited(_rezipped(WHOLES[name], kind, first, second), edits))


@pytest.mark.parametrize("name", sorted(PARQUETS))
@settings(FIXED, max_examples=12)  # each has a process of its own
@given(edits=st.lists(EDITS, min_size=1, max_size=3))
def test_damaged_parquet_gives_good_rows_or_a_data_error(
    name: str, edits: list[tuple[str, int, Any]]
) -> None:
    _check(_edited(PARQUETS[name], edits))
