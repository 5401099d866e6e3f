import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cubeopt.data import dataset, unify
from cubeopt.data.dataset import SPLITS, batch_rows
from cubeopt.errors import DataError
from cubeopt.trial import Task


@pytest.fixture
def folder(save_prepared: Callable, rows: Callable, tmp_path: Path) -> Path:
    """30 pairs, both tasks."""
    path = save_prepared("pairs.pt", rows(30, 1), rows(30, 2))
    unify.build([path], tmp_path / "data", [Task.RECONSTRUCT, Task.ANSWER])
    return tmp_path / "data"


def test_pairs_lead_from_each_question_to_its_answer(folder: Path, rows: Callable) -> None:
    held = dataset.load(folder)
    found = {}
    for split in SPLITS:
        for source, target in zip(*held.pairs(Task.ANSWER, split), strict=True):
            found[held.embeddings[source].numpy().tobytes()] = held.embeddings[target]
    questions, answers = rows(30, 1), rows(30, 2)
    assert len(found) == 30
    for question, answer in zip(questions, answers, strict=True):
        assert torch.equal(found[question.numpy().tobytes()], answer)


def test_reconstruction_leads_from_each_sentence_to_itself_once(folder: Path) -> None:
    held = dataset.load(folder)
    pairs = [held.pairs(Task.RECONSTRUCT, split) for split in SPLITS]
    assert all(torch.equal(source, target) for source, target in pairs)
    everything = torch.cat([source for source, _ in pairs])
    assert torch.equal(everything.sort().values, torch.arange(60))
    assert held.counts(Task.RECONSTRUCT) == {"train": 48, "validation": 6, "test": 6}


def test_an_unknown_split_is_a_mistake_of_the_caller(folder: Path) -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        dataset.load(folder).pairs(Task.ANSWER, "valid")


def test_one_changed_bit_is_noticed(folder: Path) -> None:
    path = folder / dataset.TENSORS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="its content is not what its fingerprint says"):
        dataset.load(folder)


def test_a_missing_or_damaged_folder_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset there; make one with: cubeopt data build"):
        dataset.load(tmp_path / "nowhere")
    whole = (folder / dataset.TENSORS).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        (folder / dataset.TENSORS).write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged dataset: embeddings\.safetensors"):
            dataset.load(folder)
    (folder / dataset.TENSORS).unlink()
    with pytest.raises(DataError, match=r"damaged dataset: embeddings\.safetensors"):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not that of a dataset"),
        ('{"format": 1}', "not that of a dataset"),
        ('{"format": 2, "fingerprint": "", "tasks": []}', "dataset format 2, but .* reads 1"),
    ],
)
def test_a_foreign_manifest_is_one_clear_error(folder: Path, manifest: str, reason: str) -> None:
    (folder / dataset.MANIFEST).write_text(manifest)
    with pytest.raises(DataError, match=reason):
        dataset.load(folder)


def _with(name: str, value: Tensor) -> dict[str, Tensor]:
    tensors = {
        "embeddings": torch.ones(4, 3),
        "source": torch.tensor([0, 1]),
        "target": torch.tensor([0, 1]),
        "task": torch.tensor([0, 0], dtype=torch.uint8),
        "split": torch.tensor([0, 1], dtype=torch.uint8),
    }
    return tensors | {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", torch.tensor([0, 4])),
        ("target", torch.tensor([0, -1])),
        ("split", torch.tensor([0, 3], dtype=torch.uint8)),
        ("task", torch.tensor([0, 2], dtype=torch.uint8)),
        ("source", torch.tensor([0, 1, 2])),
        ("source", torch.tensor([0, 1], dtype=torch.int32)),
        ("embeddings", torch.ones(4)),
        ("other", torch.ones(4)),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(
    name: str, value: Tensor, tmp_path: Path
) -> None:
    tensors = _with(name, value)
    save_file(tensors, tmp_path / dataset.TENSORS)
    manifest = {"format": 1, "fingerprint": dataset.fingerprint(tensors), "tasks": []}
    (tmp_path / dataset.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="its tensors do not fit together"):
        dataset.load(tmp_path)


def test_the_fingerprint_knows_names_types_shapes_and_numbers() -> None:
    plain = torch.zeros(2, 3)
    different = [
        {"a": plain},
        {"b": plain},
        {"a": plain.view(3, 2)},
        {"a": plain.view(torch.int32)},
        {"a": -plain},
        {"a": plain, "b": plain},
    ]
    assert len({dataset.fingerprint(tensors) for tensors in different}) == len(different)
    turned = {"b": plain, "a": plain.t().contiguous().t()}
    assert dataset.fingerprint(turned) == dataset.fingerprint(different[-1])


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (10, 5), (11, 5), (3, 8), (64, 64)])
def test_an_epoch_sees_every_row_in_full_batches(count: int, batch_size: int) -> None:
    batches = batch_rows(count, batch_size, seed=1, epoch=2)
    assert batches.shape == (-(-count // batch_size), batch_size)
    order = batches.flatten()
    assert torch.equal(order[:count].sort().values, torch.arange(count))
    assert torch.equal(order[count:], order[torch.arange(len(order) - count) % count])


def test_the_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    torch.manual_seed(5)
    first = batch_rows(100, 8, seed=0, epoch=1)
    torch.manual_seed(6)
    assert torch.equal(first, batch_rows(100, 8, seed=0, epoch=1))
    for seed, epoch in ((0, 2), (1, 0), (1, 1), (10, 1)):
        assert not torch.equal(first, batch_rows(100, 8, seed, epoch))
    # The size of a batch cuts the order; it does not change it.
    assert torch.equal(first.flatten()[:100], batch_rows(100, 100, seed=0, epoch=1)[0])


def test_the_order_of_an_epoch_is_fixed_for_ever() -> None:
    assert batch_rows(7, 4, seed=3, epoch=2).tolist() == [[2, 4, 5, 3], [1, 0, 6, 2]]
