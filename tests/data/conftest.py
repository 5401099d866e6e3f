"""Files of embeddings to read: good ones, and one of each kind of bad one."""

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from cubeopt.data.dataset import COLUMNS, TASKS, Dataset
from cubeopt.trial import Task

WIDTH = 768


def unit_rows(count: int, seed: int, width: int = WIDTH) -> Tensor:
    """Different directions for different seeds, as a teacher would give them."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True)


def dialogue(questions: Tensor, answers: Tensor) -> dict[str, Any]:
    metadata = [{"question": "?", "answer": "!", "category": "small talk"} for _ in questions]
    return {"questions": questions, "answers": answers, "metadata": metadata}


def prepared(questions: Tensor, answers: Tensor) -> dict[str, Any]:
    return {
        "question_embeddings": questions,
        "answer_embeddings": answers,
        "teacher_model": "sentence-transformers/all-mpnet-base-v2",
        "timestamp": "20250610_172311",
        "size": len(questions),
    }


class Payload:
    """A pickle that touches *marker* when it is loaded without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def rows() -> Callable[..., Tensor]:
    return unit_rows


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save *content* as torch does, under *name* in a folder of the test's own."""

    def _save(name: str, content: Any, **options: Any) -> Path:
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path, **options)
        return path

    return _save


@pytest.fixture
def save_dialogue(save: Callable[..., Path]) -> Callable[..., Path]:
    def _save(name: str, questions: Tensor, answers: Tensor) -> Path:
        return save(name, dialogue(questions, answers))

    return _save


@pytest.fixture
def save_prepared(save: Callable[..., Path]) -> Callable[..., Path]:
    def _save(name: str, questions: Tensor, answers: Tensor) -> Path:
        return save(name, prepared(questions, answers))

    return _save


def _damaged(questions: Tensor, answers: Tensor) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(dialogue(questions, answers), buffer)
    whole = buffer.getvalue()
    zeros = io.BytesIO()
    torch.save(torch.zeros(2000, WIDTH), zeros)
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(zeros) as plain,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    return {
        "half.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.pt": b"this is a text that someone renamed\n",
        "legacy_half.pt": b"\x80\x02\x8a\n",
        "bomb.pt": bomb.getvalue(),
    }


def _wrong(questions: Tensor, answers: Tensor) -> dict[str, Any]:
    """Whole torch files that nobody can train on."""
    hidden = OrderedDict(dialogue(questions, answers))
    del hidden["answers"]
    hidden.get = "not a method"  # type: ignore[method-assign, assignment]
    return {
        "one_dimension.pt": torch.ones(100),
        "one_vector.pt": unit_rows(1, 1)[0],
        "three_dimensions.pt": unit_rows(64, 2).view(4, 16, WIDTH),
        "zeros.pt": torch.zeros(50, WIDTH),
        "no_rows.pt": prepared(questions[:0], answers[:0]),
        "expanded.pt": unit_rows(1, 3).expand(50_000_000, WIDTH),
        "sliding.pt": torch.ones(WIDTH + 9).unfold(0, WIDTH, 1),
        "lengths.pt": dialogue(questions, answers[:10]),
        "width.pt": dialogue(questions[:, :384], answers[:, :384]),
        "key.pt": {"questions": questions, "metadata": []},
        "integers.pt": dialogue((questions * 127).to(torch.int8), answers),
        "complex.pt": questions.to(torch.complex64),
        "float8.pt": questions.to(torch.float8_e4m3fn),
        "sparse.pt": questions.to_sparse(),
        "meta.pt": torch.zeros(4, WIDTH, device="meta"),
        "no_tensor.pt": {"questions": "text", "answers": answers},
        "other_keys.pt": {"weight": questions, "bias": questions[0], 7: "seven", "\x1b[31m": 1},
        "labels.pt": {**prepared(questions, answers), "labels": torch.arange(12)},
        "groups.pt": {**prepared(questions, answers), "groups": torch.zeros(11, dtype=torch.int64)},
        "fractions.pt": {**prepared(questions, answers), "labels": torch.zeros(12)},
        "hollow_labels.pt": {
            **prepared(questions, answers),
            "labels": torch.zeros(1, dtype=torch.int64).expand(12),
        },
        "list.pt": [questions, answers],
        "hidden.pt": hidden,
    }


def _arrays(rows: Tensor) -> dict[str, bytes]:
    """Files of numpy that nobody can train on."""
    numbers = rows.numpy()
    whole = _npy(numbers)
    two = {"questions": numbers, "answers": numbers}
    return {
        "half.npy": whole[: len(whole) // 2],
        "claims.npy": whole.replace(b"(12, 768)", b"(12000000000, 768)", 1),
        "overflow.npy": whole.replace(b"(12, 768)", b"(4294967296, 4294967296)", 1),
        "negative.npy": whole.replace(b"(12, 768)", b"(-12, 768)", 1),
        "code.npy": whole.replace(b"(12, 768)", b"__import__('os').abort()", 1),
        "big_endian.npy": _npy(numbers.astype(">f4")),
        "objects.npy": _npy(np.array([{}], dtype=object)),
        "fields.npy": _npy(np.zeros(3, dtype="f4,f4")),
        "complex.npy": _npy(numbers.astype("complex64")),
        "integers.npy": _npy((numbers * 127).astype("int8")),
        "wide_floats.npy": _npy(numbers.astype(np.longdouble)),
        "no_rows.npy": _npy(numbers[:0]),
        "objects.npz": _npz(questions=np.array([{}], dtype=object), answers=numbers),
        "half.npz": _npz(**two)[:30_000],
        "other.npz": _npz(first=numbers, second=numbers),
        "bomb.npz": _npz(packed=True, zeros=np.zeros((60_000, WIDTH), dtype="float32")),
        "lies.npz": _short(_npz(packed=True, **two)),
    }


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _npz(packed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def _short(whole: bytes) -> bytes:
    """A zip whose directory says that its first entry unpacks to ten bytes."""
    place = whole.index(b"PK\x01\x02") + 24
    return whole[:place] + (10).to_bytes(4, "little") + whole[place + 4 :]


def _safe(header: Any, numbers: bytes) -> bytes:
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + numbers


def _tensor_files(rows: Tensor) -> dict[str, bytes]:
    """Files of safetensors and parquet that nobody can train on."""
    numbers = rows.numpy().tobytes()
    entry = {"dtype": "F32", "shape": [12, WIDTH], "data_offsets": [0, len(numbers)]}
    table = {"embeddings": pa.array(rows.tolist(), pa.list_(pa.float32()))}
    return {
        "half.safetensors": _safe({"a": entry}, numbers[:100]),
        "overlap.safetensors": _safe({"questions": entry, "answers": entry}, numbers),
        "long_header.safetensors": (90_000_000).to_bytes(8, "little") + b"{" * 100,
        "shape.safetensors": _safe({"a": {**entry, "shape": [1 << 40, WIDTH]}}, numbers),
        "deep.safetensors": _safe(b'{"a":' * 10_000, numbers),
        "integers.safetensors": _safe({"a": {**entry, "dtype": "I32"}}, numbers),
        "half.parquet": _parquet(table)[:10_000],
        "nested.parquet": _parquet({"embeddings": pa.array([rows.tolist()])}),
        "ragged.parquet": _parquet({"embeddings": pa.array([[1.0] * WIDTH, [1.0]])}),
        "integers.parquet": _parquet({"embeddings": pa.array([[1] * WIDTH])}),
        "no_list.parquet": _parquet({"text": ["a", "b"], "number": [1.0, 2.0]}),
        "bomb.parquet": _parquet({"embeddings": pa.repeat([0.1] * WIDTH, 60_000)}),
        "aborts.parquet": _fatal_to_arrow(_parquet(table)),
    }


def _parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _fatal_to_arrow(whole: bytes) -> bytes:
    """A column that is neither required nor optional: Arrow ends the process that reads of it."""
    place = whole.rindex(b"\x18\nembeddings", 0, whole.rindex(b"list")) - 1
    assert whole[place] == 2
    return whole[:place] + b"\x12" + whole[place + 1 :]


@pytest.fixture(scope="session")
def hostile_formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bad files of every format but torch's; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("hostile_formats")
    rows = unit_rows(12, 100)
    for name, content in {**_arrays(rows), **_tensor_files(rows)}.items():
        (folder / name).write_bytes(content)
    # Random bytes do not shrink, so the sizes tell nothing.
    torch.save(torch.randint(0, 256, (50_000,), dtype=torch.uint8), folder / "plain.pt")
    with (
        zipfile.ZipFile(folder / "plain.pt") as plain,
        zipfile.ZipFile(folder / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    (folder / "plain.pt").unlink()
    with zipfile.ZipFile(folder / "other.zip", "w") as other:
        other.writestr("note.txt", "neither torch nor numpy")
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "utf16.txt").write_text("A sentence.\n", encoding="utf-16")
    return folder


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, marker: Path) -> Path:
    """A folder with one file of each way to be bad; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("hostile")
    questions, answers = unit_rows(12, 100), unit_rows(12, 101)
    for name, content in _damaged(questions, answers).items():
        (folder / name).write_bytes(content)
    for name, content in _wrong(questions, answers).items():
        torch.save(content, folder / name)
    unsafe = dialogue(questions, answers)
    unsafe["metadata"][0]["category"] = Payload(marker)
    torch.save(unsafe, folder / "unsafe.pt")
    torch.save(unsafe, folder / "unsafe_legacy.pt", _use_new_zipfile_serialization=False)
    (folder / "unsafe_bare.pt").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    (folder / "folder.pt").mkdir()
    (folder / "dangling.pt").symlink_to(folder / "nowhere.pt")
    os.mkfifo(folder / "pipe.pt")
    return folder


@pytest.fixture(scope="session")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands there only after an unsafe pickle has run."""
    return tmp_path_factory.mktemp("marker") / "PWNED_BY_PICKLE"


@pytest.fixture
def made() -> Callable[..., Dataset]:
    """A dataset that stands in no folder: sentences, and columns by name where they are not usual.

    Usual is: each sentence to itself, a group of its own, every tenth in validation or test.
    """

    def _made(embeddings: Tensor, label_names: Any = None, **columns: Tensor) -> Dataset:
        count = len(columns.get("source", embeddings))
        place = torch.arange(count)
        usual = {
            "source": place,
            "target": columns.get("source", place),
            "task": torch.zeros(count),
            "split": torch.where(place % 10 < 8, 0, place % 10 - 7),
            "corpus": torch.zeros(count),
            "label": torch.full((count,), -1),
            "group": place,
        }
        typed = {name: (usual | columns)[name].to(dtype) for name, dtype in COLUMNS.items()}
        tasks = tuple(task for task in Task if bool((typed["task"] == TASKS.index(task)).any()))
        corpora = tuple(f"corpus {code}" for code in range(int(typed["corpus"].max()) + 1))
        return Dataset(
            Path("made"), "f" * 64, {}, embeddings, typed, corpora, tasks, label_names or {}
        )

    return _made
