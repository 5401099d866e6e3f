from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import TASKS, Dataset
from cubeopt.data.fitness import excerpt, probes, spectrum
from cubeopt.trial import Task

Made = Callable[..., Dataset]
Rows = Callable[..., Tensor]


def _fitted(held: Dataset) -> spectrum.Axes:
    train = excerpt.sentences(held, "train")
    return spectrum.axes(
        spectrum.moments(held.embeddings.shape[1], excerpt.pieces(held, train.rows))
    )


def test_the_probe_stands_where_the_loss_has_no_slope(rows: Rows) -> None:
    table, labels = rows(200, 1, 6), torch.arange(200) % 3
    probe = probes.fit(table, labels, 3, 1e-2)
    weights, bias = (each.double().requires_grad_() for each in (probe.weights, probe.bias))
    loss = F.cross_entropy(table.double() @ weights + bias, labels)
    loss = loss + 0.5e-2 * weights.square().sum()
    slopes = torch.autograd.grad(loss, [weights, bias])
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-4


def test_a_start_changes_the_way_and_not_the_end(rows: Rows) -> None:
    table, labels = rows(200, 1, 6), (rows(200, 1, 6)[:, 0] > 0).long()
    cold = probes.fit(table, labels, 2, 1e-2)
    warm = probes.fit(table, labels, 2, 1e-2, probes.fit(table, labels, 2, 1e-4))
    torch.testing.assert_close(cold.logits(table), warm.logits(table), rtol=0, atol=5e-3)


def test_the_penalty_is_the_one_that_serves_the_rest(rows: Rows) -> None:
    table = rows(300, 1, 40)
    labels = (table[:, 0] + 0.2 * rows(300, 2, 40)[:, 0] > 0).long()
    rest = torch.arange(300) % 5 == 0
    losses = {}
    for penalty in probes.PENALTIES:
        probe = probes.fit(table[~rest], labels[~rest], 2, penalty)
        losses[penalty] = float(F.cross_entropy(probe.logits(table[rest]), labels[rest]))
    best = min(losses, key=losses.__getitem__)
    found = probes.fit_best(table, labels, rest)
    expected = probes.fit(table, labels, 2, best)
    torch.testing.assert_close(found.logits(table), expected.logits(table), rtol=0, atol=0.05)


def test_the_auc_is_the_share_of_pairs_in_order() -> None:
    high, low = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0, 1.5])
    pairs = [(1.0 if a > b else 0.5 if a == b else 0.0) for a in high for b in low]
    assert probes.auc(high, low) == pytest.approx(sum(pairs) / len(pairs))
    assert probes.auc([1.0], [0.0]) == 1.0
    assert probes.auc([0.0], [0.0]) == 0.5


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_a_sentence_is_read_as_it_is(made: Made, rows: Rows, scale: float) -> None:
    table = rows(600, 1, 24)
    label = (table[:, 3] > 0).long()
    held = made(
        scale * table,
        {Task.SENTIMENT: ("bad", "good")},
        task=torch.full((600,), TASKS.index(Task.SENTIMENT)),
        label=label,
    )
    full, pca, random = probes.readings(held, Task.SENTIMENT, _fitted(held), 4)
    assert (full.name, full.width, full.train, full.validation) == ("full", 24, 480, 60)
    assert full.accuracy > 0.93
    assert (pca.width, random.width) == (4, 4)
    assert max(pca.accuracy, random.accuracy) < full.accuracy
    unseen = held.rows([Task.SENTIMENT], "validation").label
    commonest = int(held.rows([Task.SENTIMENT], "train").label.mode().values)
    assert full.majority == pytest.approx(float((unseen == commonest).float().mean()))
    assert full.error == pytest.approx((full.accuracy * (1 - full.accuracy) / 60) ** 0.5)


def test_a_pair_is_read_by_what_its_sides_have_in_common(made: Made, rows: Rows) -> None:
    """Neither side alone says anything; whether they are near each other says all."""
    given, place = rows(600, 1, 24), torch.arange(600)
    near = (place % 2).float()[:, None]
    wanted = near * given + (1 - near) * rows(600, 2, 24) + 0.02 * rows(600, 3, 24)
    held = made(
        torch.cat([given, wanted]),
        {Task.NLI: ("far", "near")},
        source=place,
        target=place + 600,
        task=torch.full((600,), TASKS.index(Task.NLI)),
        label=torch.where(place < 10, -1, place % 2),
    )
    full, *_ = probes.readings(held, Task.NLI, _fitted(held), 4)
    assert full.accuracy > 0.95
    assert full.train == 480 - 8  # the unlabelled ones are left out


def test_one_label_alone_is_not_read(made: Made, rows: Rows) -> None:
    held = made(
        rows(60, 1, 8),
        {Task.SENTIMENT: ("bad", "good")},
        task=torch.full((60,), TASKS.index(Task.SENTIMENT)),
        label=torch.ones(60),
    )
    assert probes.readings(held, Task.SENTIMENT, _fitted(held), 4) == []


def test_more_rows_than_the_limits_are_drawn(
    made: Made, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "TRAIN", 100)
    monkeypatch.setattr(probes, "VALIDATION", 20)
    held = made(
        rows(600, 1, 8),
        {Task.SENTIMENT: ("bad", "good")},
        task=torch.full((600,), TASKS.index(Task.SENTIMENT)),
        label=torch.arange(600) % 2,
    )
    full, *_ = probes.readings(held, Task.SENTIMENT, _fitted(held), 4)
    assert (full.train, full.validation) == (100, 20)
