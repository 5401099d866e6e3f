"""A clean dataset has no findings; each planted problem gives exactly its own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from cubeopt.data.dataset import SPLITS, TASKS, Dataset
from cubeopt.data.fitness import fitness
from cubeopt.data.fitness.findings import Finding, Severity
from cubeopt.errors import DataError
from cubeopt.trial import Task

Made = Callable[..., Dataset]
Rows = Callable[..., Tensor]
WIDTH, LATENT, PAIRS = 96, 40, 600
DIALOGUE, NLI = TASKS.index(Task.DIALOGUE), TASKS.index(Task.NLI)


@dataclass
class Plan:
    """600 pairs of dialogue, in groups of four, and 600 of nli, in groups of two."""

    questions: Tensor
    answers: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)

    def dataset(self, made: Made) -> Dataset:
        count = len(self.questions)
        place = torch.arange(count)
        usual = {
            "source": place,
            "target": place + count,
            "task": torch.where(place < PAIRS, DIALOGUE, NLI),
            "corpus": (place >= PAIRS).long(),
        }
        names = {Task.NLI: ("yes", "no")}
        table = torch.cat([self.questions, self.answers])
        return made(table, names, **(usual | self.columns))

    def where(self, split: str, task: int | None = None) -> Tensor:
        chosen = self.columns["split"] == SPLITS.index(split)
        if task is not None:
            chosen &= (torch.arange(len(chosen)) >= PAIRS) == (task == NLI)
        return chosen.nonzero().flatten()


@pytest.fixture
def plan(rows: Rows) -> Plan:
    """Sentences of 40 directions and some noise; answers, and labels, follow from questions."""
    latent, turn = rows(2 * PAIRS, 1, LATENT), torch.linalg.qr(rows(LATENT, 2, LATENT)).Q
    mixing = torch.linalg.qr(rows(WIDTH, 3, LATENT)).Q.T
    place = torch.arange(2 * PAIRS)
    group = torch.where(place < PAIRS, place // 4, 10_000 + place // 2)
    return Plan(
        latent @ mixing + 0.03 * rows(2 * PAIRS, 4, WIDTH),
        (0.4 * latent + latent @ turn) @ mixing + 0.03 * rows(2 * PAIRS, 5, WIDTH),
        {
            "group": group,
            "split": torch.where(group % 10 < 7, 0, torch.where(group % 10 < 9, 1, 2)),
            "label": torch.where(place < PAIRS, -1, (latent[:, 0] > 0).long()),
        },
    )


def _findings(plan: Plan, made: Made) -> list[Finding]:
    return fitness.check(plan.dataset(made)).findings


def _only(plan: Plan, made: Made, words: str, severity: Severity = Severity.WARNING) -> Finding:
    found = _findings(plan, made)
    assert [(each.severity, words in each.what) for each in found] == [(severity, True)], found
    return found[0]


def test_a_clean_dataset_has_no_findings(plan: Plan, made: Made) -> None:
    assert _findings(plan, made) == []


def test_copies_across_splits(plan: Plan, made: Made, rows: Rows) -> None:
    train, unseen = plan.where("train"), plan.where("validation")
    plan.questions[unseen[:30]] = plan.questions[train[:30]] + 1e-4 * rows(30, 9, WIDTH)
    plan.answers[unseen[:30]] = plan.answers[train[:30]] + 1e-4 * rows(30, 10, WIDTH)
    found = _only(plan, made, "of the validation sentences (60 of", Severity.PROBLEM)
    assert found.number == pytest.approx(60 / (2 * len(unseen)))


def test_a_single_copy_across_splits_is_only_a_warning(plan: Plan, made: Made) -> None:
    plan.questions[plan.where("validation")[0]] = plan.questions[plan.where("train")[0]]
    _only(plan, made, "of the validation sentences (1 of")


def test_copies_within_training(plan: Plan, made: Made, rows: Rows) -> None:
    train = plan.where("train")
    for side in (plan.questions, plan.answers):
        side[train[:80]] = side[train[80:160]] + 1e-4 * rows(80, 9, WIDTH)
    _only(plan, made, "of the training sentences have a near copy among themselves")


def test_answers_in_another_order(plan: Plan, made: Made) -> None:
    plan.answers[:PAIRS] = plan.answers[:PAIRS].flip(0)
    _only(plan, made, "dialogue: ridge regression does not beat the mean", Severity.PROBLEM)


def test_too_much_variance_for_the_face(made: Made, rows: Rows) -> None:
    found = fitness.check(made(rows(1500, 1, 300))).findings
    assert [(each.severity, "64 numbers lose" in each.what) for each in found] == [
        (Severity.WARNING, True)
    ]
    assert 0.5 < found[0].number < 0.8


def test_sentences_along_few_directions(made: Made, rows: Rows) -> None:
    table = rows(1500, 1, 6) @ rows(6, 2, WIDTH) + 1e-2 * rows(1500, 3, WIDTH)
    [found] = fitness.check(made(table)).findings
    assert "effective rank" in found.what
    assert 3 < found.number < 7


def test_embeddings_that_all_point_one_way(plan: Plan, made: Made, rows: Rows) -> None:
    offset = 1.5 * rows(1, 9, WIDTH)
    plan.questions, plan.answers = plan.questions + offset, plan.answers + offset
    assert "standardise" in _only(plan, made, "all point one way").advice


def test_validation_of_another_kind(plan: Plan, made: Made, rows: Rows) -> None:
    mixing = torch.linalg.qr(rows(WIDTH, 3, LATENT)).Q.T
    shift = 0.25 * torch.nn.functional.normalize(rows(1, 9, LATENT) @ mixing, dim=1)
    unseen = plan.where("validation")
    plan.questions[unseen] += shift
    plan.answers[unseen] += shift
    _only(plan, made, "training and validation are of different kinds")


def test_squared_errors_that_fall_by_shrinking(made: Made, rows: Rows) -> None:
    """Few pairs for many numbers: ridge finds a little, the question itself finds the answer."""
    count, width = 300, 200
    questions = rows(count, 1, 50) @ torch.linalg.qr(rows(width, 3, 50)).Q.T
    answers = 0.5 * questions + 0.9 * rows(count, 2, 50) @ torch.linalg.qr(rows(width, 3, 50)).Q.T
    place = torch.arange(count)
    held = made(
        torch.cat([questions, answers]),
        source=place,
        target=place + count,
        task=torch.full((count,), DIALOGUE),
        split=torch.where(place % 10 < 4, 0, torch.where(place % 10 < 8, 1, 2)),
    )
    [found] = fitness.check(held).findings
    assert "falls by shrinking" in found.what
    assert found.number < 0.7


def test_labels_in_another_order(plan: Plan, made: Made) -> None:
    plan.columns["label"][PAIRS:] = plan.columns["label"][PAIRS:].roll(7)
    _only(plan, made, "the labels of the task nli cannot be read")


def test_rows_without_a_label(plan: Plan, made: Made) -> None:
    plan.columns["label"][PAIRS::9] = -1
    assert _only(plan, made, "11% of the rows of the task nli").number == pytest.approx(67 / 600)


def test_labels_that_stand_in_unequal_shares(plan: Plan, made: Made) -> None:
    train = plan.where("train", NLI)
    dropped = train[plan.columns["label"][train] == 1][:120]
    kept = torch.ones(2 * PAIRS, dtype=torch.bool)
    kept[dropped] = False
    place = torch.arange(2 * PAIRS)
    full = {"task": torch.where(place < PAIRS, DIALOGUE, NLI), "corpus": (place >= PAIRS).long()}
    plan.columns = {name: column[kept] for name, column in (full | plan.columns).items()}
    plan.questions, plan.answers = plan.questions[kept], plan.answers[kept]
    found = {each.what.split(" is ")[0] for each in _findings(plan, made)}
    assert found == {"the label nli: yes", "the label nli: no"}


def test_a_corpus_that_a_split_lacks(plan: Plan, made: Made) -> None:
    place = torch.arange(2 * PAIRS)
    lacking = (place < 100) & (plan.columns["split"] != 2)
    plan.columns["corpus"] = torch.where(lacking, 2, (place >= PAIRS).long())
    _only(plan, made, "the corpus corpus 2 has no rows in test")


def test_few_groups_in_validation(plan: Plan, made: Made) -> None:
    unseen = plan.where("validation", DIALOGUE)
    plan.columns["group"][unseen] = 500 + torch.arange(len(unseen)) * 5 // len(unseen)
    assert _only(plan, made, "the validation rows of the task dialogue come from 5").number == 5


def test_a_task_without_validation_rows(plan: Plan, made: Made) -> None:
    place = torch.arange(2 * PAIRS)
    plan.columns["corpus"] = torch.zeros(2 * PAIRS)
    moved = (plan.columns["split"] == 1) & (place >= PAIRS)
    plan.columns["split"][moved] = 2
    _only(plan, made, "the task nli has no validation rows", Severity.PROBLEM)


def test_problems_come_first(plan: Plan, made: Made) -> None:
    plan.columns["label"][PAIRS::9] = -1
    plan.answers[:PAIRS] = plan.answers[:PAIRS].flip(0)
    severities = [each.severity for each in _findings(plan, made)]
    assert severities == [Severity.PROBLEM, Severity.WARNING]


def test_without_sentences_to_validate_there_is_one_clear_error(made: Made, rows: Rows) -> None:
    with pytest.raises(DataError, match="made: 0 validation sentences: nothing to measure"):
        fitness.check(made(rows(20, 1, 8), split=torch.zeros(20)))


def test_the_facts_are_plain_and_the_same_every_time(plan: Plan, made: Made) -> None:
    held = plan.dataset(made)
    first, second = (fitness.check(held).as_json() for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first, allow_nan=False)) == first


def test_every_stage_is_told_from_start_to_end(
    plan: Plan, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cubeopt.data.fitness import autoencoder

    monkeypatch.setattr(autoencoder, "_EPOCHS", 2)
    told: dict[str, list[float]] = {}
    found = fitness.check(
        plan.dataset(made), True, 2, lambda what, share: told.setdefault(what, []).append(share)
    )
    assert list(told) == [
        *("variance", "near copies", "pairs", "labels", "drift"),
        *("network, noise 0.0", "network, noise 0.5"),
    ]
    assert all(shares == sorted(shares) and shares[-1] == 1.0 for shares in told.values())
    assert [(each.noise, each.seeds, each.width) for each in found.networks] == [
        (0.0, 2, 64),
        (0.5, 2, 64),
    ]


@pytest.mark.parametrize("limit", ["FITTED", "MEASURED"])
def test_more_rows_than_the_limits_are_drawn_and_counted(
    plan: Plan, made: Made, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(fitness, limit, 200)
    found = fitness.check(plan.dataset(made))
    counts: Mapping[str, Any] = {"FITTED": found.fitted_on, "MEASURED": found.measured_on}
    assert counts[limit] == 200
    assert found.geometry.of == 4 * PAIRS > found.geometry.sentences
