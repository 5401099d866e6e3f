"""A worker learns what it shall not go on with."""

from typing import Any

import pytest

from cubeopt.db import interventions, notices, orders, queue, recalls, records
from cubeopt.db.orders import Order
from cubeopt.errors import UnknownNameError

from .conftest import lease


def test_runs_of_a_study_that_does_not_run_are_recalled_and_no_others(hands: Any) -> None:
    hands.enqueue(hands.study("one"), [0])
    hands.enqueue(hands.study("two"), [0, 1])
    held = [lease(claim) for claim in hands.claim(8)]
    found = recalls.recall(hands.engine, hands.worker_id, held)
    assert (found.drained, found.leases) == (False, frozenset())
    orders.steer(hands.engine, "one", Order.PAUSE)
    assert recalls.recall(hands.engine, hands.worker_id, held).leases == {held[0]}
    interventions.prune(hands.engine, "two", 0)
    assert recalls.recall(hands.engine, hands.worker_id, held).leases == {held[0], held[1]}
    orders.steer(hands.engine, "one", Order.RESUME)
    assert recalls.recall(hands.engine, hands.worker_id, held).leases == {held[1]}


def test_a_worker_is_drained_by_name_also_when_it_was_thought_gone_and_wakes(hands: Any) -> None:
    other = queue.register(hands.engine, "host-2", "host", 2, "cpu", {})
    with notices.listening(hands.engine) as listener:
        assert recalls.drain(hands.engine, "host-1")
        assert listener.wait(5.0)
    assert not recalls.drain(hands.engine, "host-1")
    assert recalls.recall(hands.engine, hands.worker_id, []).drained
    assert not recalls.recall(hands.engine, other, []).drained
    queue.reap(hands.engine, silence_seconds=0.0)
    assert recalls.recall(hands.engine, hands.worker_id, []).drained
    queue.retire(hands.engine, hands.worker_id)
    assert not recalls.drain(hands.engine, "host-1")
    assert [each.drain_asked_at is None for each in records.workers(hands.engine)] == [False, True]


def test_an_unknown_worker_gets_a_hint(hands: Any) -> None:
    with pytest.raises(UnknownNameError, match="no worker named 'host-11'; did you mean 'host-1'"):
        recalls.drain(hands.engine, "host-11")
