"""Histories that show a thing, and histories that nearly do."""

import math
from typing import Any

import pytest

from cubeopt.training.diagnosis import Finding, Kind, diagnose

COUNT = 12
FALLING = [0.9 * 0.9**epoch for epoch in range(COUNT)]  # good news: validation and training both


def history(**series: Any) -> list[dict[str, float | None]]:
    """A healthy training of 12 epochs with *series* put in: a list, or a number for all epochs."""
    values: dict[str, Any] = {
        "validation/fvu": FALLING,
        "train/loss/reconstruction": FALLING,
        "learning_rate": 1e-3,
        "train/gradient_norm/all": 1.0,
        "train/gradient_norm/gate": 0.01,
        "train/gradient_norm/leave": 0.99,
        "validation/usage/local": 30.0,
        "validation/usage/distant": 70.0,
        **{name.replace("__", "/"): each for name, each in series.items()},
    }
    lists = {n: each if isinstance(each, list) else [each] * COUNT for n, each in values.items()}
    return [
        {"epoch": float(epoch + 1), **{name: each[epoch] for name, each in lists.items()}}
        for epoch in range(min(map(len, lists.values())))
    ]


def kinds(rows: list[dict[str, float | None]]) -> list[Kind]:
    return [each.kind for each in diagnose(rows)]


def after(epochs: int, then: float | None, before: float = 0.5) -> list[float | None]:
    return [before] * epochs + [then] * (COUNT - epochs)


def only(rows: list[dict[str, float | None]]) -> Finding:
    (found,) = diagnose(rows)
    return found


def test_a_training_that_gets_better_has_no_findings():
    assert diagnose(history()) == []
    assert diagnose([]) == []


def test_findings_say_where_and_what_in_one_sentence():
    found = only(history(validation__usage__local=after(4, 0.2, 30.0)))
    assert (found.kind, found.subject) == (Kind.DEAD_EXPERT, "local")
    assert (found.first, found.last) == (7, COUNT)
    assert "0.2 % of the choices" in found.sentence
    assert "\n" not in found.sentence


@pytest.mark.parametrize("number", [None, math.nan, math.inf])
@pytest.mark.parametrize("name", ["validation__fvu", "train__loss__total", "validation__cosine"])
def test_a_number_that_is_not_finite_has_diverged(name, number):
    found = diagnose(history(**{name: after(8, number)}))
    assert Kind.DIVERGED in [each.kind for each in found]
    (diverged,) = (each for each in found if each.kind is Kind.DIVERGED)
    assert (diverged.first, diverged.last) == (9, COUNT)
    assert name.replace("__", "/") in diverged.sentence


def test_a_training_loss_far_above_its_best_is_diverging():
    far = [*FALLING[:8], 1.2, 3.0, 9.0, 40.0]
    assert Kind.DIVERGING in kinds(history(train__loss__reconstruction=far))
    near = [*FALLING[:8], *(1.9 * FALLING[7] for _ in range(4))]
    assert kinds(history(train__loss__reconstruction=near)) == []


def test_converged_is_at_its_best_and_hardly_better():
    flat = [*FALLING[:6], *(FALLING[5] * (1 - 0.0005 * k) for k in range(1, 7))]
    found = only(history(validation__fvu=flat, train__loss__reconstruction=flat))
    assert (found.kind, found.first, found.last) == (Kind.CONVERGED, 11, 12)
    slow = [0.5 * 0.998**epoch for epoch in range(COUNT)]  # 1 % in five epochs
    assert kinds(history(validation__fvu=slow, train__loss__reconstruction=slow)) == []
    assert kinds(history(validation__fvu=flat[:10])) == []  # calm, but not for long enough


def test_a_plateau_is_away_from_the_best_at_a_full_rate():
    stuck = [0.5, *[0.52, 0.53] * 6][:COUNT]
    same = {"validation__fvu": stuck, "train__loss__reconstruction": stuck}
    found = only(history(**same))
    assert (found.kind, found.first, found.last) == (Kind.PLATEAU, 6, COUNT)
    assert kinds(history(**same, learning_rate=after(3, 1e-4, 1e-3))) == []
    near = [0.5, *[0.501, 0.502] * 6][:COUNT]
    both = {"validation__fvu": near, "train__loss__reconstruction": near}
    assert kinds(history(**both)) == [Kind.CONVERGED]


def test_overfitting_is_a_training_that_falls_while_validation_rises():
    rising = [*FALLING[:5], *(FALLING[4] * (1 + 0.02 * k) for k in range(1, 8))]
    found = only(history(validation__fvu=rising))
    assert (found.kind, found.first, found.last) == (Kind.OVERFITTING, 10, COUNT)
    # Where training rises as well, it is something else.
    assert Kind.OVERFITTING not in kinds(
        history(validation__fvu=rising, train__loss__reconstruction=rising)
    )
    short = [*FALLING[:8], *(FALLING[7] * (1 + 0.02 * k) for k in range(1, 5))]
    assert kinds(history(validation__fvu=short)) == []


def test_no_better_than_the_mean_is_said_after_some_epochs():
    slow = [1.2, 1.1, *FALLING[:10]]
    assert kinds(history(validation__fvu=slow)) == []
    found = only(history(validation__fvu=[1.2, 1.1, 1.05, 1.0, *FALLING[:8]]))
    assert (found.kind, found.first, found.last) == (Kind.WORSE_THAN_MEAN, 3, 4)
    assert "nothing is learned yet" in found.sentence
    again = only(history(validation__fvu=[0.99, 0.98, 0.97, 1.5, *FALLING[:8]]))
    assert (again.kind, again.first, again.last) == (Kind.WORSE_THAN_MEAN, 4, 4)
    assert "it has been better (0.9700)" in again.sentence


def test_an_expert_is_dead_only_when_idle_for_some_epochs_on_end():
    wavering = [30.0, 0.1, 0.1, 5.0] * 3
    assert kinds(history(validation__usage__local=wavering)) == []
    idle = [30.0, 0.1, 0.1, 0.1, 5.0, 5.0, *[5.0] * 6]
    found = only(history(validation__usage__local=idle))
    assert (found.first, found.last) == (4, 4)


def test_a_gradient_is_dead_when_a_module_has_next_to_none():
    small = [0.01] * 4 + [1e-7] + [0.01] * 7
    found = only(history(train__gradient_norm__gate=small))
    assert (found.kind, found.subject, found.first, found.last) == (
        Kind.DEAD_GRADIENT,
        "gate",
        5,
        5,
    )
    assert kinds(history(train__gradient_norm__gate=1e-3)) == []
    nowhere = history(**{f"train__gradient_norm__{name}": 0.0 for name in ("all", "gate", "leave")})
    assert [each.subject for each in diagnose(nowhere)] == ["gate", "leave"]


def test_epochs_without_a_validation_are_passed_over():
    flat = [*FALLING[:6], *(FALLING[5] * (1 - 0.0005 * k) for k in range(1, 7))]
    rows = history(validation__fvu=flat, train__loss__reconstruction=flat)
    sparse = []
    for row in rows:
        blind = {name: x for name, x in row.items() if not name.startswith("validation/")}
        sparse += [{**blind, "epoch": 2.0 * row["epoch"] - 1}, {**row, "epoch": 2.0 * row["epoch"]}]
    found = only(sparse)
    assert (found.kind, found.first, found.last) == (Kind.CONVERGED, 22, 24)


def test_later_epochs_take_no_finding_back():
    rows = history(
        validation__fvu=[1.2, 1.1, 1.05, 1.0, *FALLING[:8]],
        validation__usage__local=after(4, 0.2, 30.0),
    )
    seen: list[tuple[Kind, str, int]] = []
    for count in range(len(rows) + 1):
        now = [(each.kind, each.subject, each.first) for each in diagnose(rows[:count])]
        assert set(seen) <= set(now)
        assert all(first == count for *_, first in set(now) - set(seen))
        seen = now
    assert len(seen) == 2
