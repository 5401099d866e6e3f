import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cubeopt.data import dataset
from cubeopt.data.building import unify
from cubeopt.data.dataset import COLUMNS, SPLITS, Dataset, fingerprint
from cubeopt.errors import DataError
from cubeopt.trial import Task

BOTH = (Task.RECONSTRUCT, Task.DIALOGUE)


@pytest.fixture
def folder(save_prepared: Callable, rows: Callable, tmp_path: Path) -> Path:
    """30 pairs, two tasks."""
    path = save_prepared("pairs.pt", rows(30, 1), rows(30, 2))
    unify.build([path], tmp_path / "data")
    return tmp_path / "data"


def test_rows_lead_from_each_question_to_its_answer(folder: Path, rows: Callable) -> None:
    held = dataset.load(folder)
    found = {}
    for split in SPLITS:
        some = held.rows([Task.DIALOGUE], split)
        for source, target in zip(some.source, some.target, strict=True):
            found[held.embeddings[source].numpy().tobytes()] = held.embeddings[target]
    questions, answers = rows(30, 1), rows(30, 2)
    assert len(found) == 30
    for question, answer in zip(questions, answers, strict=True):
        assert torch.equal(found[question.numpy().tobytes()], answer)


def test_reconstruction_leads_from_each_sentence_to_itself_once(folder: Path) -> None:
    held = dataset.load(folder)
    parts = [held.rows([Task.RECONSTRUCT], split) for split in SPLITS]
    assert all(torch.equal(part.source, part.target) for part in parts)
    everything = torch.cat([part.source for part in parts])
    assert torch.equal(everything.sort().values, torch.arange(60))
    assert held.counts([Task.RECONSTRUCT]) == {"train": 48, "validation": 6, "test": 6}


def test_rows_of_several_tasks_are_those_of_each_in_the_order_of_the_file(folder: Path) -> None:
    held = dataset.load(folder)
    for split in SPLITS:
        apart = [held.rows([task], split) for task in BOTH]
        both = held.rows(BOTH[::-1], split)
        assert len(both) == len(apart[0]) + len(apart[1])
        for name in ("source", "target", "task", "corpus", "label", "group"):
            column = getattr(both, name)
            assert torch.equal(column, torch.cat([getattr(part, name) for part in apart]))
            assert column.dtype == COLUMNS[name]
    assert held.counts(BOTH) == {"train": 72, "validation": 9, "test": 9}


def test_a_dataset_knows_its_names(folder: Path) -> None:
    held = dataset.load(folder)
    assert (held.corpora, held.tasks) == (("prepared",), BOTH)
    assert (held.weights, held.label_names) == ({"prepared": 1.0}, {})
    assert held.normalisation.name == "none"
    assert held.fingerprint == held.manifest["fingerprint"]


def test_the_embeddings_are_a_map_of_the_file_that_no_one_can_write_through(folder: Path) -> None:
    before = (folder / dataset.EMBEDDINGS).read_bytes()
    held = dataset.load(folder)
    maps = Path("/proc/self/maps").read_text()
    assert str(folder / dataset.EMBEDDINGS) in maps
    held.embeddings[0] = 0.0
    assert (folder / dataset.EMBEDDINGS).read_bytes() == before


def test_an_unknown_split_is_a_mistake_of_the_caller(folder: Path) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        dataset.load(folder).rows([Task.DIALOGUE], "valid")


def test_a_task_that_is_not_there_is_one_clear_error(folder: Path) -> None:
    held = dataset.load(folder)
    for ask in (held.counts, lambda tasks: held.rows(tasks, "train")):
        with pytest.raises(
            DataError, match="no rows for the task nli, only for reconstruct, dialogue"
        ):
            ask([Task.RECONSTRUCT, Task.NLI])


@pytest.mark.parametrize("name", [dataset.EMBEDDINGS, dataset.ROWS])
def test_one_changed_bit_is_noticed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match="its content is not what its fingerprint says"):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("weights", {"prepared": 2.0}), ("corpora", ["other"]), ("tasks", ["dialogue"])],
)
def test_a_changed_name_is_noticed(folder: Path, name: str, value: Any) -> None:
    manifest = json.loads((folder / dataset.MANIFEST).read_text())
    (folder / dataset.MANIFEST).write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(DataError, match="its content is not what its fingerprint says"):
        dataset.load(folder)


def test_what_is_no_content_may_change(folder: Path) -> None:
    manifest = json.loads((folder / dataset.MANIFEST).read_text())
    (folder / dataset.MANIFEST).write_text(json.dumps({**manifest, "sources": []}))
    assert dataset.load(folder).fingerprint == manifest["fingerprint"]


@pytest.mark.parametrize("name", [dataset.EMBEDDINGS, dataset.ROWS])
def test_a_missing_or_damaged_file_is_one_clear_error(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match="no dataset there; make one with: cubeopt data build"):
        dataset.load(folder / "nowhere")
    whole = (folder / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100, b"\x80\x04K\x01."):
        (folder / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"damaged dataset: {name}: ") as caught:
            dataset.load(folder)
        assert "\n" not in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"damaged dataset: {name}: "):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not that of a dataset"),
        ('{"format": 3}', "not that of a dataset"),
        ('{"format": 1, "fingerprint": "", "tasks": []}', "dataset format 1, but .* reads 3"),
        ('{"format": 3, "fingerprint": "", "tasks": []}', "damaged dataset: manifest.json: "),
    ],
)
def test_a_foreign_manifest_is_one_clear_error(folder: Path, manifest: str, reason: str) -> None:
    (folder / dataset.MANIFEST).write_text(manifest)
    with pytest.raises(DataError, match=reason):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tasks", ["answer"]),
        ("tasks", 3),
        ("corpora", None),
        ("label_names", {"nonsense": []}),
        ("weights", {"prepared": "much"}),
        ("weights", [1]),
        ("normalisation", "none"),
        ("normalisation", {"name": "whiten", "norm": None}),
        ("normalisation", {"name": "l2"}),
    ],
)
def test_a_manifest_that_a_person_changed_is_one_clear_error(
    folder: Path, name: str, value: Any
) -> None:
    manifest = json.loads((folder / dataset.MANIFEST).read_text())
    (folder / dataset.MANIFEST).write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(DataError, match=r"damaged dataset: manifest\.json: "):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", torch.tensor([0, 60])),
        ("target", torch.tensor([0, -1])),
        ("split", torch.tensor([0, 3], dtype=torch.uint8)),
        ("task", torch.tensor([0, 4], dtype=torch.uint8)),
        ("corpus", torch.tensor([0, 1], dtype=torch.uint8)),
        ("source", torch.tensor([0, 1, 2])),
        ("source", torch.tensor([0, 1], dtype=torch.int32)),
        ("other", torch.ones(4)),
        ("mean", torch.ones(768, dtype=torch.float64)),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(
    folder: Path, name: str, value: Tensor
) -> None:
    tensors = {each: column[:2] for each, column in load_file(folder / dataset.ROWS).items()}
    _forge(folder, tensors | {name: value})
    with pytest.raises(DataError, match="its tensors do not fit together"):
        dataset.load(folder)


@pytest.mark.parametrize(
    "table",
    [
        np.ones(4, dtype=np.float32),
        np.ones((60, 768)),
        np.ones((60, 768), dtype=">f4"),
        np.asfortranarray(np.ones((60, 768), dtype=np.float32)),
        np.ones((0, 768), dtype=np.float32),
    ],
)
def test_embeddings_of_another_form_are_refused(folder: Path, table: np.ndarray) -> None:
    np.save(folder / dataset.EMBEDDINGS, table)
    with pytest.raises(DataError, match="its tensors do not fit together"):
        dataset.load(folder)


def test_a_table_of_objects_runs_no_code(folder: Path) -> None:
    np.save(folder / dataset.EMBEDDINGS, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"damaged dataset: embeddings\.npy"):
        dataset.load(folder)


def _forge(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Put *tensors* into the dataset, with a fingerprint that is right."""
    held = dataset.load(folder)
    step = dataset.piece_rows(held.embeddings.shape[1], held.embeddings.dtype)
    pieces = [dataset.piece_digest(piece) for piece in held.embeddings.split(step)]
    found = fingerprint(
        held.manifest, held.embeddings.shape, held.embeddings.dtype, pieces, tensors
    )
    save_file(tensors, folder / dataset.ROWS)
    manifest = {**held.manifest, "fingerprint": found}
    (folder / dataset.MANIFEST).write_text(json.dumps(manifest))


NAMES = {
    "format": 3,
    "tasks": ["dialogue"],
    "corpora": ["dialogue"],
    "label_names": {},
    "weights": {"dialogue": 1.0},
    "normalisation": {"name": "none", "norm": None},
}


def test_the_fingerprint_knows_names_types_shapes_and_numbers() -> None:
    plain = {"a": torch.zeros(2, 3)}
    usual = (NAMES, (4, 3), torch.float32, [b"1", b"2"], plain)
    different = [
        usual,
        *((NAMES | {name: "other"}, *usual[1:]) for name in NAMES),
        (NAMES, (3, 4), *usual[2:]),
        (NAMES, (4, 3), torch.float16, *usual[3:]),
        (*usual[:3], [b"2", b"1"], plain),
        *(
            (*usual[:4], tensors)
            for tensors in (
                {"b": plain["a"]},
                {"a": plain["a"].view(3, 2)},
                {"a": plain["a"].view(torch.int32)},
                {"a": -plain["a"]},
                {**plain, "b": plain["a"]},
            )
        ),
    ]
    assert len({fingerprint(*each) for each in different}) == len(different)
    turned = dict(reversed(NAMES.items())) | {"created": "yesterday"}
    same = fingerprint(turned, *usual[1:4], {"a": torch.zeros(3, 2).t()})
    assert same == fingerprint(*usual)


def test_pieces_hold_whole_rows_and_about_as_many_bytes_whatever_the_width() -> None:
    for width in (1, 768, 10_000):
        for dtype in (torch.float16, torch.float32):
            size = dataset.piece_rows(width, dtype) * width * dtype.itemsize
            assert 2**24 - width * dtype.itemsize < size <= 2**24
    assert dataset.piece_rows(10**8, torch.float32) == 1


def test_a_dataset_of_plain_tensors_needs_no_folder(made: Callable[..., Dataset]) -> None:
    held = made(torch.eye(20))
    assert held.counts([Task.RECONSTRUCT]) == {"train": 16, "validation": 2, "test": 2}
    assert held.normalisation.apply(held.embeddings) is held.embeddings
