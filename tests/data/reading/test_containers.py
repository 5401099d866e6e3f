import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cubeopt.data.reading import containers, sources
from cubeopt.data.reading.inspect import inspect
from cubeopt.errors import DataError

REFUSALS = {
    "half.npy": r"claims the shape \[12, 768\], but holds only 18\d\d\d bytes",
    "claims.npy": r"claims the shape \[12000000000, 768\], but holds only",
    "overflow.npy": r"claims the shape \[4294967296, 4294967296\], but holds only",
    "negative.npy": r"claims the shape \[-12, 768\]",
    "code.npy": "truncated or damaged",
    "big_endian.npy": "big-endian numbers, expected little-endian ones",
    "objects.npy": "refused: an array of Python objects",
    "fields.npy": "an array of named fields, expected plain numbers",
    "complex.npy": "tensor: expected float32.*got complex64",
    "integers.npy": "tensor: expected float32.*got int8",
    "wide_floats.npy": "numbers of the type float128, which torch lacks",
    "no_rows.npy": "no rows",
    "objects.npz": "refused: an array of Python objects",
    "half.npz": r"truncated or damaged \(BadZipFile\)",
    "other.npz": "found the keys first, second",
    "bomb.npz": "refused: it unpacks to more than 64 times its size",
    "lies.npz": "truncated or damaged|claims the shape",
    "half.safetensors": r"truncated or damaged \(SafetensorError\)",
    "overlap.safetensors": r"truncated or damaged \(SafetensorError\)",
    "long_header.safetensors": r"truncated or damaged \(SafetensorError\)",
    "shape.safetensors": r"truncated or damaged \(SafetensorError\)",
    "deep.safetensors": r"truncated or damaged \(SafetensorError\)",
    "integers.safetensors": "a: expected float32.*got int32",
    "half.parquet": r"truncated or damaged \(ArrowInvalid\)",
    "nested.parquet": "found the keys embeddings",
    "ragged.parquet": "embeddings: rows of 1 and 768 numbers",
    "integers.parquet": "embeddings: expected float32.*got int64",
    "no_list.parquet": "found the keys text, number",
    "bomb.parquet": "refused: it claims 46080000 numbers, too many for its",
    "aborts.parquet": r"truncated or damaged \(Arrow gave up\)",
    "packed.pt": "refused: its entries are packed, which torch does not do",
    "other.zip": "not a file of embeddings or of text",
    "noise.bin": "not a file of embeddings or of text",
    "utf16.txt": "UTF-16 text, expected UTF-8",
}

WIDTH = 24
META = {
    "teacher_model": "a/teacher",
    "task": "nli",
    "corpus": "mine",
    "label_names": '["entailment", "neutral", "contradiction"]',
}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_a_bad_file_is_refused_with_its_path_and_the_reason(
    name: str, hostile_formats: Path
) -> None:
    path = hostile_formats / name
    with pytest.raises(DataError, match=REFUSALS[name]) as caught:
        sources.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_every_bad_file_has_its_refusal(hostile_formats: Path) -> None:
    assert {path.name for path in hostile_formats.iterdir()} == set(REFUSALS)


def test_inspection_tells_of_every_bad_file(hostile_formats: Path) -> None:
    facts = inspect([hostile_formats])
    assert {row.path.name for row in facts} == set(REFUSALS)
    assert all(len(row.problems) == 1 and row.usable_rows == 0 for row in facts)


def _lists(side: Tensor, fixed: bool) -> Any:
    if fixed:
        return pa.FixedSizeListArray.from_arrays(pa.array(side.numpy().ravel()), WIDTH)
    return pa.array(side.tolist(), pa.list_(pa.float32()))


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Save *tensors* with META in the format that the name of *path* begins with."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    form = path.name.split(".")[0]
    if form in ("torch", "legacy"):
        new = form == "torch"
        torch.save({**tensors, **META}, path, _use_new_zipfile_serialization=new)
    elif form in ("npz", "packed"):
        save = np.savez if form == "npz" else np.savez_compressed
        with path.open("wb") as file:
            save(file, **{**arrays, **META})
    elif form == "safetensors":
        save_file(tensors, path, META)
    else:
        columns = {
            name: _lists(tensor, form == "fixed") if tensor.ndim == 2 else arrays[name]
            for name, tensor in tensors.items()
        }
        table = pa.table({**columns, "text": ["words"] * len(tensors["labels"])})
        options = {"compression": "zstd", "row_group_size": 700} if form == "lists" else {}
        pq.write_table(table.replace_schema_metadata(META), path, **options)


@pytest.mark.parametrize(
    "form", ["torch", "legacy", "npz", "packed", "safetensors", "fixed", "lists"]
)
def test_every_format_gives_the_same(form: str, tmp_path: Path, rows: Callable) -> None:
    questions, answers = rows(2500, 1, WIDTH), rows(2500, 2, WIDTH)
    questions[17] = torch.nan
    labels, groups = torch.arange(2500) % 4 - 1, torch.arange(2500) // 3
    path = tmp_path / f"{form}.any"
    names = ("question_embeddings", "answer_embeddings", "labels", "groups")
    _write(path, dict(zip(names, (questions, answers, labels, groups), strict=True)))
    source = sources.read(path, width=WIDTH)
    assert (source.kind, source.task, source.corpus) == ("prepared", "nli", "mine")
    assert (source.teacher, source.rows) == ("a/teacher", 2500)
    assert source.good.tolist() == [row for row in range(2500) if row != 17]
    for number, side in enumerate((questions, answers)):
        assert torch.equal(source.side(number, source.good), side[source.good])
    assert source.labels is not None
    assert source.groups is not None
    assert torch.equal(source.labels, labels)
    assert torch.equal(source.groups, groups)
    assert (source.notes, source.problems) == ((), ())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_array_is_one_tensor_without_a_name(
    order: Any, dtype: str, tmp_path: Path, rows: Callable
) -> None:
    array = rows(9, 1, WIDTH).numpy().astype(dtype)
    np.save(tmp_path / "array.npy", np.asarray(array, order=order))
    source = sources.read(tmp_path / "array.npy", width=WIDTH)
    assert source.kind == "bare"
    assert torch.equal(source.side(0, source.good), torch.from_numpy(array).float())


def test_missing_values_in_parquet_are_not_finite(tmp_path: Path, rows: Callable) -> None:
    values: list[Any] = rows(4, 1, WIDTH).tolist()
    values[1], values[2][5] = None, None
    table = pa.table({"any": pa.array(values, pa.list_(pa.float32())), "labels": [0, 1, None, 1]})
    pq.write_table(table, tmp_path / "missing.parquet")
    source = sources.read(tmp_path / "missing.parquet", width=WIDTH)
    assert source.good.tolist() == [0, 3]
    assert torch.equal(source.side(0, source.good), rows(4, 1, WIDTH)[[0, 3]])
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, -1, 1]


def test_what_was_unpacked_leaves_no_file(
    tmp_path: Path, rows: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    _write(tmp_path / "packed.any", {"a": rows(5, 1, WIDTH), "labels": torch.zeros(5).long()})
    source = sources.read(tmp_path / "packed.any", width=WIDTH)
    assert not os.listdir(spool)
    assert torch.equal(source.side(0, source.good), rows(5, 1, WIDTH))


def test_a_text_is_no_container(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A sentence.\n")
    with pytest.raises(DataError, match="text, not embeddings"):
        containers.load(tmp_path / "a.txt")
