from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cubeopt.data import baselines as module
from cubeopt.data import dataset, sources, unify
from cubeopt.data.baselines import baselines
from cubeopt.data.dataset import Dataset
from cubeopt.errors import DataError
from cubeopt.trial import Task

BOTH = [Task.RECONSTRUCT, Task.ANSWER]


@pytest.fixture
def held(save_prepared: Callable, rows: Callable, tmp_path: Path) -> Dataset:
    """200 pairs of width 24; answers follow from questions, with noise; two answers recur."""
    questions = rows(200, 1, 24) + 0.3
    answers = questions @ rows(24, 2, 24) + 0.1 * rows(200, 3, 24)
    answers[1] = answers[0]
    path = save_prepared("pairs.pt", questions, answers)
    return dataset.load(unify.build([path], tmp_path / "data", BOTH, width=24).folder)


def _split(held: Dataset, task: Task, split: str) -> tuple[Tensor, Tensor]:
    source, target = held.pairs(task, split)
    return held.embeddings[source].double(), held.embeddings[target].double()


def _fvu(target: Tensor, prediction: Tensor, mean: Tensor) -> float:
    return float((target - prediction).square().sum() / (target - mean).square().sum())


@pytest.mark.parametrize("task", BOTH)
def test_predicting_the_training_mean_explains_nothing(held: Dataset, task: Task) -> None:
    assert baselines(held, task, 4).mean == 1.0


@pytest.mark.parametrize("width", [1, 4, 23])
def test_pca_reconstructs_as_the_singular_vectors_do(held: Dataset, width: int) -> None:
    train, _ = _split(held, Task.RECONSTRUCT, "train")
    unseen, _ = _split(held, Task.RECONSTRUCT, "validation")
    mean = train.mean(0)
    axes = torch.linalg.svd(train - mean, full_matrices=False).Vh[:width]
    expected = _fvu(unseen, mean + (unseen - mean) @ axes.T @ axes, mean)
    found = baselines(held, Task.RECONSTRUCT, width)
    assert found.pca == pytest.approx(expected, abs=1e-12)
    assert found.pca_width == width
    assert found.identity is None


def test_pca_answers_as_least_squares_on_the_codes(held: Dataset) -> None:
    source, target = _split(held, Task.ANSWER, "train")
    unseen, wanted = _split(held, Task.ANSWER, "validation")
    axes = torch.linalg.svd(source - source.mean(0), full_matrices=False).Vh[:5]

    def codes(inputs: Tensor) -> Tensor:
        return torch.cat([inputs @ axes.T, torch.ones(len(inputs), 1).double()], dim=1)

    solution = torch.linalg.lstsq(codes(source), target).solution
    expected = _fvu(wanted, codes(unseen) @ solution, target.mean(0))
    assert baselines(held, Task.ANSWER, 5).pca == pytest.approx(expected, abs=1e-10)


def test_identity_copies_the_question(held: Dataset) -> None:
    _, target = _split(held, Task.ANSWER, "train")
    unseen, wanted = _split(held, Task.ANSWER, "validation")
    expected = _fvu(wanted, unseen, target.mean(0))
    assert baselines(held, Task.ANSWER, 5).identity == pytest.approx(expected, abs=1e-12)


def test_all_components_reconstruct_everything(held: Dataset) -> None:
    found = baselines(held, Task.RECONSTRUCT, 1000)
    assert found.pca == pytest.approx(0.0, abs=1e-12)
    assert found.pca_width == 24


def test_no_more_components_are_used_than_the_training_rows_span(
    save: Callable, rows: Callable, tmp_path: Path
) -> None:
    path = save("few.pt", rows(10, 1))
    held = dataset.load(unify.build([path], tmp_path / "data", [Task.RECONSTRUCT]).folder)
    found = baselines(held, Task.RECONSTRUCT, 64)
    assert held.counts(Task.RECONSTRUCT)["train"] == 8
    assert found.pca_width == 7
    assert 0.5 < found.pca < 1.2


def test_the_size_of_a_chunk_changes_nothing(
    held: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = baselines(held, Task.ANSWER, 4)
    monkeypatch.setattr(module, "_CHUNK", 7)
    parts = baselines(held, Task.ANSWER, 4)
    assert parts.pca == pytest.approx(whole.pca, abs=1e-12)
    assert parts.identity == pytest.approx(whole.identity, abs=1e-12)


def test_targets_that_do_not_vary_leave_nothing_to_explain() -> None:
    columns = {
        "source": torch.arange(6),
        "target": torch.full((6,), 6),
        "task": torch.ones(6, dtype=torch.uint8),
        "split": torch.tensor([0, 0, 0, 1, 1, 2], dtype=torch.uint8),
    }
    held = Dataset(Path("constant"), "", {"tasks": ["answer"]}, torch.eye(7, 8), columns)
    with pytest.raises(DataError, match="constant: the validation targets of the task answer do"):
        baselines(held, Task.ANSWER, 2)


def test_the_sample_can_be_explained_in_part(tmp_path: Path) -> None:
    folder = unify.build([sources.sample_dir()], tmp_path / "data", BOTH).folder
    held = dataset.load(folder)
    narrow, wide = (baselines(held, Task.RECONSTRUCT, width).pca for width in (16, 64))
    assert narrow == pytest.approx(0.81, abs=0.03)
    assert wide == pytest.approx(0.58, abs=0.03)
    answer = baselines(held, Task.ANSWER, 16)
    assert answer.identity is not None
    assert answer.pca < 1.0 < answer.identity


@pytest.mark.parametrize("task", BOTH)
def test_cosines_are_means_over_the_validation_rows(held: Dataset, task: Task) -> None:
    _, target = _split(held, task, "train")
    unseen, wanted = _split(held, task, "validation")
    cosine = torch.nn.functional.cosine_similarity
    found = baselines(held, task, 24, metric="cosine")
    expected = float(cosine(target.mean(0).expand_as(wanted), wanted, dim=1).mean())
    assert found.mean == pytest.approx(expected, abs=1e-12)
    if task is Task.ANSWER:
        assert found.identity == pytest.approx(float(cosine(unseen, wanted, dim=1).mean()))
    else:
        assert found.pca == pytest.approx(1.0)  # all components: nothing is lost
