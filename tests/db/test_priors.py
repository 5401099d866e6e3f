"""Trials of earlier studies: read as they stand, kept with a later one."""

from typing import Any

from cubeopt.db import attempts, orders, priors, queue, records
from cubeopt.db.priors import Prior
from cubeopt.db.tables import EndClass, RunState

from .conftest import lease

PRIORS = (
    Prior("old", 3, {"seed": 3}, RunState.COMPLETE, 0.25, {1: 0.5, 2: 0.25}, {"parameters": 7.0}),
    Prior("old", 1, {"seed": 1}, RunState.PRUNED, None, {}, {}),
)


def _another(hands: Any, taught_by: Any) -> Any:
    return records.create_study(
        hands.engine,
        name="new",
        spec={"name": "new"},
        direction="minimize",
        metric="fvu",
        dataset="sample",
        dataset_fingerprint="f00d",
        dataset_rows={},
        baselines={},
        code_version="0",
        taught_by=taught_by,
    )


def test_priors_are_kept_as_they_were_given_and_go_with_their_study(hands: Any) -> None:
    old = hands.study("old")
    study = _another(hands, PRIORS)
    assert priors.read(hands.engine, study.id) == list(PRIORS)
    assert priors.read(hands.engine, old.id) == []
    orders.delete(hands.engine, "old")
    assert priors.read(hands.engine, study.id) == list(PRIORS)
    orders.delete(hands.engine, "new")
    assert priors.read(hands.engine, study.id) == []


def test_a_trial_is_read_with_the_full_run_that_goes_on_from_it_and_no_other(hands: Any) -> None:
    study = hands.study(rungs=(1, 2))
    hands.enqueue(study, range(5), target=2)
    first, second, third, fourth = hands.claim(4)
    hands.report(first, 1, 0.9, metrics={"parameters": 1.0, "other": 5.0})
    hands.report(first, 2, 0.8, metrics={"parameters": 2.0})
    hands.report(second, 1, 0.7, metrics={}, decide=lambda question: True)
    hands.report(third, 1, None, metrics={}, diverged=True)
    attempts.fail(hands.engine, lease(fourth), EndClass.ERROR, "boom", retry_limit=0)
    queue.promote(hands.engine, study.id, [0], 6, seeds=2)
    for going in hands.claim(2, pack_key=None):
        hands.report(going, 3, 0.6 if going.replicate == 0 else 0.1, metrics={"parameters": 3.0})
    found = priors.earlier(hands.engine, study.id, ["parameters"])
    assert [(each.number, each.state, each.diverged, each.values) for each in found] == [
        (0, RunState.COMPLETE, False, {1: 0.9, 2: 0.8, 3: 0.6}),
        (1, RunState.PRUNED, False, {1: 0.7}),
        (2, RunState.PRUNED, True, {}),
        (3, RunState.FAILED, False, {}),
        (4, RunState.WAITING, False, {}),
    ]
    assert found[0].metrics == {
        1: {"parameters": 1.0},
        2: {"parameters": 2.0},
        3: {"parameters": 3.0},
    }
    assert found[1].spec == {"seed": 1, "rate": 1e-3}


def test_a_full_run_that_diverged_is_told(hands: Any) -> None:
    study = hands.study(rungs=(1, 2))
    hands.enqueue(study, [0], target=2)
    (short,) = hands.claim(1)
    hands.complete(short, 0.5)
    queue.promote(hands.engine, study.id, [0], 6)
    (going,) = hands.claim(1)
    assert not priors.earlier(hands.engine, study.id)[0].diverged
    hands.report(going, 3, None, diverged=True)
    (found,) = priors.earlier(hands.engine, study.id)
    assert (found.state, found.diverged, found.values) == (RunState.COMPLETE, True, {2: 0.5})
