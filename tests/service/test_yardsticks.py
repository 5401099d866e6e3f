"""Simple predictors, measured as a training is."""

import pytest
import torch

from cubeopt.data import dataset
from cubeopt.service.yardsticks import pca_by_corpus, yardsticks
from cubeopt.trial import Task

BOTH = [Task.RECONSTRUCT, Task.DIALOGUE]


@pytest.fixture(scope="module")
def tiny(tiny_dataset):
    return dataset.load(tiny_dataset)


def sides(tiny, task, split):
    rows = tiny.rows([task], split)
    return tiny.embeddings[rows.source].double(), tiny.embeddings[rows.target].double()


def fvu(guess, target, mean):
    return float((guess - target).square().sum() / (target - mean).square().sum())


def test_reconstruction_has_no_use_for_a_copy_or_a_regression(tiny):
    found = {each.name: each for each in yardsticks(tiny, [Task.RECONSTRUCT], 4)}
    assert list(found) == ["mean", "pca"]
    assert (found["mean"].width, found["pca"].width) == (None, 4)
    assert found["pca"].test["fvu"] < 0.5 < found["mean"].test["fvu"]
    assert set(found["pca"].validation) == {"fvu", "cosine", "top1", "mrr"}


def test_pairs_are_also_copied_and_regressed(tiny):
    found = {each.name: each for each in yardsticks(tiny, [Task.DIALOGUE], 4)}
    assert list(found) == ["mean", "identity", "pca", "ridge"]
    mean = sides(tiny, Task.DIALOGUE, "train")[1].mean(0)
    for split in ("validation", "test"):
        source, target = sides(tiny, Task.DIALOGUE, split)
        scores = getattr(found["identity"], split)
        assert scores["fvu"] == pytest.approx(fvu(source, target, mean))
    # Answers tell nothing of their questions here: the best regression is the mean.
    assert found["ridge"].test["fvu"] == pytest.approx(1.0, abs=0.15)


def test_pca_of_a_corpus_is_fitted_on_all_and_judged_on_its_rows(tiny):
    halves = tiny.columns["corpus"].clone()
    halves[::2] = 1
    two = dataset.Dataset(
        **{**vars(tiny), "columns": {**tiny.columns, "corpus": halves}, "corpora": ("a", "b")}
    )
    task = [Task.RECONSTRUCT]
    (whole,) = (each.test for each in yardsticks(two, task, 4) if each.name == "pca")
    found = pca_by_corpus(two, task, 4, "test", ["a", "b"])
    rows = [len(two.of_corpus(name).rows(task, "test")) for name in "ab"]
    assert min(rows) > 0
    assert sum(rows) == len(two.rows(task, "test"))
    mean = sum(n * found[name]["cosine"] for n, name in zip(rows, "ab", strict=True)) / sum(rows)
    assert mean == pytest.approx(whole["cosine"])


def test_a_ridge_finds_what_is_linear(tiny):
    turned = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1))).Q
    rows = tiny.rows([Task.DIALOGUE], "train")
    embeddings = tiny.embeddings.clone()
    for split in dataset.SPLITS:
        rows = tiny.rows([Task.DIALOGUE], split)
        embeddings[rows.target] = tiny.embeddings[rows.source] @ turned
    linear = dataset.Dataset(**{**vars(tiny), "embeddings": embeddings})
    found = {each.name: each for each in yardsticks(linear, [Task.DIALOGUE], 4)}
    assert found["ridge"].validation["fvu"] < 0.2 < found["identity"].validation["fvu"]
    assert found["ridge"].validation["top1"] > 0.9


def test_of_several_tasks_copies_are_judged_only_where_they_are_no_cheat(tiny):
    found = {each.name: each for each in yardsticks(tiny, BOTH, 4)}
    names = {"fvu", "cosine", "top1", "mrr"}
    assert set(found["pca"].test) == {
        f"{n}{g}" for n in names for g in ("", *map("/{}".format, BOTH))
    }
    for name in ("identity", "ridge"):
        assert set(found[name].test) == {f"{metric}/dialogue" for metric in names}
