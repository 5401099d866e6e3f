"""Files of embeddings to read: good ones, and one of each kind of bad one."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

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
        "other_keys.pt": {"weight": questions, 7: "seven", "\x1b[31m": 1},
        "list.pt": [questions, answers],
        "hidden.pt": hidden,
    }


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
