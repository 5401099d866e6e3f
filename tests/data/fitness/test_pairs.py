from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import TASKS, Dataset
from cubeopt.data.fitness import excerpt, pairs, spectrum
from cubeopt.data.fitness.spectrum import Axes
from cubeopt.trial import Task

Made = Callable[..., Dataset]
Rows = Callable[..., Tensor]
WIDTH = 16


@pytest.fixture
def held(made: Made, rows: Rows) -> Dataset:
    """400 pairs whose answers follow from their questions, in groups of four; labels in turn."""
    questions = rows(400, 1, WIDTH) + 0.1
    answers = questions @ rows(WIDTH, 2, WIDTH) + 0.3 * rows(400, 3, WIDTH)
    place = torch.arange(400)
    return made(
        torch.cat([questions, answers]),
        {Task.NLI: ("yes", "no")},
        source=place,
        target=place + 400,
        task=torch.full((400,), TASKS.index(Task.NLI)),
        label=place % 3 - 1,
        group=place // 4,
        split=torch.where(place // 4 % 10 < 7, 0, 1),
    )


@pytest.fixture
def fitted(held: Dataset) -> Axes:
    train = excerpt.sentences(held, "train")
    return spectrum.axes(spectrum.moments(WIDTH, excerpt.pieces(held, train.rows)))


def test_shuffled_is_the_mean_over_all_wrong_pairs(held: Dataset) -> None:
    label = held.columns["label"]
    cosines = F.cosine_similarity(held.embeddings[:400, None], held.embeddings[400:], dim=2)
    for found in pairs.likeness(held, Task.NLI):
        chosen = torch.ones(400, dtype=torch.bool)
        if found.label is not None:
            chosen = label == ("yes", "no").index(found.label)
        some = cosines[chosen][:, chosen]
        wrong = some[~torch.eye(len(some), dtype=torch.bool)]
        assert found.pairs == found.of == len(some)
        assert found.true == pytest.approx(float(some.diag().mean()), abs=1e-6)
        assert found.shuffled == pytest.approx(float(wrong.mean()), abs=1e-6)
        expected = torch.histc(some.diag(), pairs.BINS, -1, 1).tolist()
        assert sum(abs(a - b) for a, b in zip(found.true_counts, expected, strict=True)) <= 2
        assert sum(found.shuffled_counts) == len(some)


def test_likeness_is_told_by_label_and_for_all(held: Dataset) -> None:
    assert [each.label for each in pairs.likeness(held, Task.NLI)] == [None, "yes", "no"]


def test_a_shuffle_gives_no_question_its_own_answer(made: Made) -> None:
    place = torch.arange(30)
    held = made(torch.eye(60), source=place, target=place, task=torch.ones(30))
    [found] = pairs.likeness(held, Task.DIALOGUE)
    assert found.true_counts == [0] * 49 + [30]
    assert found.shuffled_counts == [0] * 25 + [30] + [0] * 24  # every cosine is exactly 0


def test_more_pairs_than_the_limit_are_drawn_and_counted(
    held: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "LIMIT", 100)
    everything = pairs.likeness(held, Task.NLI)[0]
    assert (everything.pairs, everything.of) == (100, 400)


def test_copy_mean_and_ridge_are_scored_on_validation(held: Dataset, fitted: Axes) -> None:
    found = pairs.difficulty(held, Task.NLI, fitted, 4)
    assert found is not None
    train, unseen = (held.rows([Task.NLI], split) for split in ("train", "validation"))
    given, wanted = (held.embeddings[each] for each in (unseen.source, unseen.target))
    mean = held.embeddings[train.target].mean(0)
    spread = (wanted - mean).square().sum()
    copy, by_mean, ridge = found.scores
    assert copy.fvu == pytest.approx(float((wanted - given).square().sum() / spread), abs=1e-5)
    assert copy.cosine == pytest.approx(float(F.cosine_similarity(given, wanted).mean()), abs=1e-5)
    assert by_mean.fvu == pytest.approx(1.0)
    assert (found.train, found.validation, found.of) == (280, 120, 120)

    source = held.embeddings[train.source]
    gram = (source - source.mean(0)).T @ (source - source.mean(0))
    gram += found.ridge_strength * source.square().sum(1).mean() * torch.eye(WIDTH)
    across = (source - source.mean(0)).T @ (held.embeddings[train.target] - mean)
    led = mean + (given - source.mean(0)) @ torch.linalg.solve(gram, across)
    assert ridge.fvu == pytest.approx(float((wanted - led).square().sum() / spread), abs=1e-4)
    assert ridge.fvu < 0.5 < copy.fvu
    lengths = led.norm(dim=1) / wanted.norm(dim=1)
    assert found.length == pytest.approx(float(lengths.mean()), abs=1e-4)


def test_the_rank_is_one_more_than_the_answers_that_are_nearer(held: Dataset, fitted: Axes) -> None:
    found = pairs.difficulty(held, Task.NLI, fitted, WIDTH)
    assert found is not None
    unseen = held.rows([Task.NLI], "validation")
    given, wanted = (held.embeddings[each] for each in (unseen.source, unseen.target))
    cosines = F.cosine_similarity(given[:, None], wanted, dim=2)
    ranks = 1 + (cosines > cosines.diag()[:, None]).sum(1)
    by_name = {each.name: each for each in found.retrieval}
    assert by_name["question"].top1 == pytest.approx(float((ranks == 1).float().mean()))
    assert by_name["question"].mrr == pytest.approx(float((1 / ranks).mean()))
    assert by_name["pca"].top1 == by_name["question"].top1  # all axes: nothing is lost
    assert by_name["ridge"].top1 > 0.5 > by_name["question"].top1
    assert {each.candidates for each in found.retrieval} == {120}


def test_retrieval_is_told_among_few_and_among_all(
    held: Dataset, fitted: Axes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "CANDIDATES", 25)
    found = pairs.difficulty(held, Task.NLI, fitted, 4)
    assert found is not None
    asked = [(each.name, each.candidates, each.questions) for each in found.retrieval]
    assert asked[:2] == [("question", 25, 100), ("question", 120, 120)]
    few, many = found.retrieval[6:8]
    assert few.name == many.name == "ridge"
    assert few.top1 >= many.top1


def test_the_same_answer_to_another_question_is_right_as_well(made: Made, rows: Rows) -> None:
    place = torch.arange(20)
    held = made(
        rows(21, 1, WIDTH),
        source=place,
        target=torch.full((20,), 20),
        task=torch.ones(20),
        split=place % 2,
    )
    fitted = spectrum.axes(spectrum.moments(WIDTH, excerpt.pieces(held, place)))
    found = pairs.difficulty(held, Task.DIALOGUE, fitted, 4)
    assert found is not None
    assert {(each.top1, each.mrr) for each in found.retrieval} == {(1.0, 1.0)}


def test_a_task_without_validation_pairs_has_no_difficulty(made: Made, rows: Rows) -> None:
    held = made(rows(20, 1, WIDTH), task=torch.ones(20), split=torch.zeros(20))
    fitted = spectrum.axes(spectrum.moments(WIDTH, [rows(20, 1, WIDTH).double()]))
    assert pairs.difficulty(held, Task.DIALOGUE, fitted, 4) is None
