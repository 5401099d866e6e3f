from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cubeopt.data import baselines as module
from cubeopt.data import dataset, retrieval
from cubeopt.data.baselines import baselines
from cubeopt.data.building import unify
from cubeopt.data.dataset import TASKS, Dataset
from cubeopt.data.reading import sources
from cubeopt.errors import DataError
from cubeopt.trial import Task

RECONSTRUCT, DIALOGUE = [Task.RECONSTRUCT], [Task.DIALOGUE]
BOTH = [Task.RECONSTRUCT, Task.DIALOGUE]
EACH_AND_BOTH = [RECONSTRUCT, DIALOGUE, BOTH]


@pytest.fixture
def held(made: Callable[..., Dataset], rows: Callable[..., Tensor]) -> Dataset:
    """200 pairs of width 24; answers follow from questions, with noise; two answers recur.

    Each of the 398 sentences is also asked back.
    """
    questions = rows(200, 1, 24) + 0.3
    answers = questions @ rows(24, 2, 24) + 0.1 * rows(200, 3, 24)
    place = torch.arange(200)
    group = place // 2  # the two answers that recur stand in one split
    split = torch.where(group % 10 < 8, 0, group % 10 - 7)
    lone = torch.cat([place, torch.arange(201, 400)])
    return made(
        torch.cat([questions, answers]),
        source=torch.cat([place, lone]),
        target=torch.cat([torch.where(place == 0, 201, place + 200), lone]),
        task=torch.cat([torch.full((200,), TASKS.index(Task.DIALOGUE)), torch.zeros(399)]),
        group=torch.cat([group, group[lone % 200]]),
        split=torch.cat([split, split[lone % 200]]),
    )


def _split(held: Dataset, tasks: list[Task], split: str) -> tuple[Tensor, Tensor]:
    rows = held.rows(tasks, split)
    return held.embeddings[rows.source].double(), held.embeddings[rows.target].double()


def _fvu(target: Tensor, prediction: Tensor, mean: Tensor) -> float:
    return float((target - prediction).square().sum() / (target - mean).square().sum())


@pytest.mark.parametrize("tasks", EACH_AND_BOTH)
def test_predicting_the_training_mean_explains_nothing(held: Dataset, tasks: list[Task]) -> None:
    assert baselines(held, tasks, 4).mean == 1.0


@pytest.mark.parametrize("width", [1, 4, 23])
def test_pca_reconstructs_as_the_singular_vectors_do(held: Dataset, width: int) -> None:
    train, _ = _split(held, RECONSTRUCT, "train")
    unseen, _ = _split(held, RECONSTRUCT, "validation")
    mean = train.mean(0)
    axes = torch.linalg.svd(train - mean, full_matrices=False).Vh[:width]
    expected = _fvu(unseen, mean + (unseen - mean) @ axes.T @ axes, mean)
    found = baselines(held, RECONSTRUCT, width)
    assert found.pca == pytest.approx(expected, abs=1e-12)
    assert found.pca_width == width
    assert found.identity is None


@pytest.mark.parametrize("tasks", [DIALOGUE, BOTH])
def test_pca_answers_as_least_squares_on_the_codes(held: Dataset, tasks: list[Task]) -> None:
    source, target = _split(held, tasks, "train")
    unseen, wanted = _split(held, tasks, "validation")
    axes = torch.linalg.svd(source - source.mean(0), full_matrices=False).Vh[:5]

    def codes(inputs: Tensor) -> Tensor:
        return torch.cat([inputs @ axes.T, torch.ones(len(inputs), 1).double()], dim=1)

    solution = torch.linalg.lstsq(codes(source), target).solution
    expected = _fvu(wanted, codes(unseen) @ solution, target.mean(0))
    assert baselines(held, tasks, 5).pca == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("tasks", [DIALOGUE, BOTH])
def test_identity_copies_the_question(held: Dataset, tasks: list[Task]) -> None:
    _, target = _split(held, tasks, "train")
    unseen, wanted = _split(held, tasks, "validation")
    expected = _fvu(wanted, unseen, target.mean(0))
    assert baselines(held, tasks, 5).identity == pytest.approx(expected, abs=1e-12)


def test_copying_is_no_yardstick_where_every_sentence_is_asked_back(
    made: Callable[..., Dataset], rows: Callable[..., Tensor]
) -> None:
    task = torch.arange(60) // 10 % 2 * TASKS.index(Task.SENTIMENT)
    held = made(rows(60, 1, 8), task=task)
    assert baselines(held, [Task.RECONSTRUCT, Task.SENTIMENT], 3).identity is None
    assert baselines(held, [Task.SENTIMENT], 3).identity is None


def test_all_components_reconstruct_everything(held: Dataset) -> None:
    found = baselines(held, RECONSTRUCT, 1000)
    assert found.pca == pytest.approx(0.0, abs=1e-12)
    assert found.pca_width == 24


def test_no_more_components_are_used_than_the_training_rows_span(
    made: Callable[..., Dataset], rows: Callable[..., Tensor]
) -> None:
    found = baselines(made(rows(10, 1)), RECONSTRUCT, 64)
    assert found.pca_width == 7
    assert 0.5 < found.pca < 1.2


def test_the_size_of_a_chunk_changes_nothing(
    held: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = baselines(held, DIALOGUE, 4)
    monkeypatch.setattr(module, "_CHUNK", 7)
    parts = baselines(held, DIALOGUE, 4)
    assert parts.pca == pytest.approx(whole.pca, abs=1e-12)
    assert parts.identity == pytest.approx(whole.identity, abs=1e-12)


def test_targets_that_do_not_vary_leave_nothing_to_explain(made: Callable[..., Dataset]) -> None:
    held = made(
        torch.eye(7, 8),
        source=torch.arange(6),
        target=torch.full((6,), 6),
        task=torch.ones(6),
        split=torch.tensor([0, 0, 0, 1, 1, 2]),
    )
    with pytest.raises(DataError, match="made: the validation targets of dialogue do not vary"):
        baselines(held, DIALOGUE, 2)


def test_the_sample_can_be_explained_in_part(tmp_path: Path) -> None:
    folder = unify.build([sources.sample_dir()], tmp_path / "data").folder
    held = dataset.load(folder)
    narrow, wide = (baselines(held, RECONSTRUCT, width).pca for width in (16, 64))
    assert narrow == pytest.approx(0.81, abs=0.04)
    assert wide == pytest.approx(0.58, abs=0.04)
    answer = baselines(held, DIALOGUE, 16)
    assert answer.identity is not None
    assert answer.pca < 1.0 < answer.identity


@pytest.mark.parametrize("tasks", EACH_AND_BOTH)
def test_cosines_are_means_over_the_validation_rows(held: Dataset, tasks: list[Task]) -> None:
    _, target = _split(held, tasks, "train")
    unseen, wanted = _split(held, tasks, "validation")
    cosine = torch.nn.functional.cosine_similarity
    found = baselines(held, tasks, 24, metric="cosine")
    expected = float(cosine(target.mean(0).expand_as(wanted), wanted, dim=1).mean())
    assert found.mean == pytest.approx(expected, abs=1e-12)
    if tasks == RECONSTRUCT:
        assert found.pca == pytest.approx(1.0)  # all components: nothing is lost
    else:
        assert found.identity == pytest.approx(float(cosine(unseen, wanted, dim=1).mean()))


@pytest.mark.parametrize("limit", [retrieval.LIMIT, 11])
@pytest.mark.parametrize("tasks", [DIALOGUE, BOTH])
def test_retrieval_is_among_the_distinct_targets_of_the_task(
    held: Dataset, tasks: list[Task], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "LIMIT", limit)
    rows = held.rows(tasks, "validation")
    some = retrieval.places(len(rows))
    unseen, wanted = (each[some] for each in _split(held, tasks, "validation"))
    sentence, task = rows.target[some].tolist(), rows.task[some].tolist()
    mean = _split(held, tasks, "train")[1].mean(0)
    for name, guess in {"identity": unseen, "mean": mean.expand_as(unseen)}.items():
        likeness = torch.cosine_similarity(guess[:, None], wanted[None], dim=2)
        ranks = []
        for row, own in enumerate(sentence):
            others = {
                candidate: float(likeness[row, place])
                for place, candidate in enumerate(sentence)
                if task[place] == task[row]
            }
            right = others.pop(own)
            ranks.append(1 + sum(other >= right for other in others.values()))
        for metric, values in {
            "top1": [float(rank == 1) for rank in ranks],
            "mrr": [1.0 / rank for rank in ranks],
        }.items():
            found = getattr(baselines(held, tasks, 4, metric), name)
            assert found == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_all_components_find_every_sentence(held: Dataset) -> None:
    for metric in ("top1", "mrr"):
        found = baselines(held, RECONSTRUCT, 24, metric)
        assert (found.pca, found.identity) == (1.0, None)
        assert found.mean < 0.2


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_predictors_are_measured_on_any_split(held: Dataset, split: str) -> None:
    fitted = module.fit(held, BOTH, 5)
    found = module.scores(held, BOTH, split, fitted.target_mean, fitted.predictors)
    source, target = _split(held, BOTH, split)
    assert set(found) == {"mean", "identity", "pca"}
    expected = _fvu(target, source, fitted.target_mean)
    assert found["identity"]["fvu"] == pytest.approx(expected, abs=1e-12)
    assert found["identity"]["cosine"] == pytest.approx(
        float(torch.cosine_similarity(source, target, dim=1).mean())
    )
    assert found["identity"]["top1/reconstruct"] == 1.0
    for task in BOTH:
        of_task = held.rows(BOTH, split).task == TASKS.index(task)
        expected = _fvu(target[of_task], source[of_task], fitted.target_mean)
        assert found["identity"][f"fvu/{task}"] == pytest.approx(expected, abs=1e-12)
    share = float((held.rows(BOTH, split).task == TASKS.index(Task.DIALOGUE)).double().mean())
    parts = [found["identity"][f"mrr/{task}"] for task in BOTH]
    together = (1.0 - share) * parts[0] + share * parts[1]
    assert found["identity"]["mrr"] == pytest.approx(together)
