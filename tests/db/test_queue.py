"""Runs go from waiting to running and back, each to one worker at a time."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest
from sqlalchemy import text

from cubeopt.db import attempts, beats, orders, queue, records
from cubeopt.db.leases import Lease
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState, WorkerState

from .conftest import lease


def test_a_claim_holds_all_a_worker_needs(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [3])
    (claim,) = hands.claim()
    assert claim.token == 1
    assert (claim.trial_number, claim.study, claim.kind) == (3, "study", RunKind.SHORT)
    assert isinstance(claim.kind, RunKind)
    assert claim.spec == {"seed": 3, "rate": 1e-3}
    assert claim.study_spec == study.spec
    assert (claim.pack_key, claim.width, claim.target_epochs) == ("a", 8, 5)
    assert (claim.epoch, claim.checkpoint, claim.checkpoint_epoch) == (0, None, None)
    assert (claim.dataset, claim.dataset_fingerprint, claim.metric) == ("sample", "f00d", "fvu")
    (attempt,) = records.attempts(hands.engine, study.id)
    assert (attempt.run_id, attempt.token, attempt.from_epoch) == (claim.run_id, 1, 0)
    assert (attempt.device, attempt.provenance) == ("cpu", {"torch": "0"})


def test_floats_survive_the_queue_bit_for_bit(hands: Any) -> None:
    study = hands.study()
    spec = {"a": 0.1 + 0.2, "b": 5e-324, "c": 1.7976931348623157e308, "d": 1e-3 / 3}
    queue.enqueue(hands.engine, study.id, [queue.NewTrial(0, spec, spec, "a", 5)])
    (claim,) = hands.claim()
    params = records.trials(hands.engine, study.id)[0].params
    for read in (claim.spec, params):
        assert {name: float(value) for name, value in read.items()} == spec


def test_eight_threads_claim_two_hundred_runs_each_exactly_once(hands: Any) -> None:
    study = hands.study()
    for key, numbers in {"a": range(0, 120), "b": range(120, 200)}.items():
        hands.enqueue(study, numbers, key)
    taken: list[int] = []
    begin = threading.Barrier(8)

    def work() -> None:
        begin.wait()
        while records.counts(hands.engine, study.id)[RunState.WAITING]:
            claims = hands.claim(3, preferred_width=3)
            assert len({claim.pack_key for claim in claims}) <= 1
            taken.extend(claim.run_id for claim in claims)

    with ThreadPoolExecutor(8) as threads:
        for worker in [threads.submit(work) for _ in range(8)]:
            worker.result()
    assert len(taken) == 200
    assert set(Counter(taken).values()) == {1}
    attempts = records.attempts(hands.engine, study.id)
    assert sorted(attempt.run_id for attempt in attempts) == sorted(taken)
    assert {attempt.token for attempt in attempts} == {1}


def test_the_oldest_run_decides_which_pack_is_claimed(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0], "a")
    hands.enqueue(study, [1], "b")
    hands.enqueue(study, [2], "a")
    first = hands.claim(8)
    assert [(claim.trial_number, claim.pack_key) for claim in first] == [(0, "a"), (2, "a")]
    assert [claim.trial_number for claim in hands.claim(8)] == [1]
    assert hands.claim(8) == []


def test_full_runs_go_first(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    hands.complete(hands.claim()[0])
    hands.enqueue(study, [1, 2])
    queue.promote(hands.engine, study.id, [0], 50)
    claims = hands.claim(2)
    assert [(claim.kind, claim.trial_number) for claim in claims] == [
        (RunKind.FULL, 0),
        (RunKind.SHORT, 1),
    ]


def test_the_first_claim_fixes_the_width(hands: Any) -> None:
    hands.enqueue(hands.study(), range(3))
    (narrow,) = hands.claim(1, preferred_width=2)
    (wide,) = hands.claim(1, preferred_width=8)
    attempts.release(hands.engine, [Lease(narrow.run_id, 1), Lease(wide.run_id, 1)])
    again = hands.claim(8, preferred_width=4)
    assert [(claim.run_id, claim.width) for claim in again] == [(narrow.run_id, 2)]
    again = hands.claim(8, preferred_width=4)
    assert [(claim.run_id, claim.width) for claim in again] == [(wide.run_id, 8)]


def test_a_run_that_never_began_joins_a_pack_of_the_width_it_would_get(hands: Any) -> None:
    hands.enqueue(hands.study(), range(2))
    (first,) = hands.claim(1, preferred_width=4)
    attempts.release(hands.engine, [Lease(first.run_id, first.token)])
    assert [claim.width for claim in hands.claim(8, preferred_width=4)] == [4, 4]


def test_a_worker_leaves_runs_wider_than_it_can_hold_to_others(hands: Any) -> None:
    hands.enqueue(hands.study(), range(2))
    (wide,) = hands.claim(1, preferred_width=8)
    attempts.release(hands.engine, [Lease(wide.run_id, wide.token)])
    (claim,) = hands.claim(8, preferred_width=2, max_width=4)
    assert (claim.trial_number, claim.width) == (1, 2)
    assert hands.claim(8, preferred_width=2, max_width=4) == []


def test_a_claim_never_exceeds_the_width(hands: Any) -> None:
    hands.enqueue(hands.study(), range(5))
    assert len(hands.claim(5, preferred_width=2)) == 2
    assert len(hands.claim(1, preferred_width=2)) == 1


def test_a_refill_takes_only_what_fits_into_the_running_pack(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0], "a")
    hands.enqueue(study, [1], "b")
    (other,) = hands.claim(1, preferred_width=4)
    attempts.release(hands.engine, [Lease(other.run_id, other.token)])  # "a", width 4
    hands.enqueue(study, [2], "b")
    refill = hands.claim(8, preferred_width=1, pack_key="b", width=2)
    assert [(claim.trial_number, claim.width) for claim in refill] == [(1, 2), (2, 2)]
    assert hands.claim(8, pack_key="a", width=2) == []
    assert [claim.trial_number for claim in hands.claim(8, pack_key="a", width=4)] == [0]


def test_a_claim_may_be_for_one_study_only(hands: Any) -> None:
    hands.enqueue(hands.study("one"), [0])
    hands.enqueue(hands.study("two"), [0])
    claims = hands.claim(8, study="two")
    assert [claim.study for claim in claims] == ["two"]
    assert hands.claim(8, study="two") == []


def test_a_pack_may_mix_studies(hands: Any) -> None:
    hands.enqueue(hands.study("one"), [0])
    hands.enqueue(hands.study("two"), [0])
    assert [claim.study for claim in hands.claim(8)] == ["one", "two"]


ENDED = [StudyState.COMPLETE, StudyState.STOPPED, StudyState.FAILED, StudyState.PAUSED]


@pytest.mark.parametrize("state", ENDED)
def test_a_study_that_does_not_run_gives_and_takes_nothing(hands: Any, state: StudyState) -> None:
    ended, open_ = hands.study("ended"), hands.study("open")
    hands.enqueue(ended, [0])
    hands.enqueue(open_, [0])
    assert orders.end(hands.engine, ended.id, state, "so it is")
    assert hands.enqueue(ended, [1]) == 0
    assert [claim.study for claim in hands.claim(8)] == ["open"]
    assert orders.steer(hands.engine, "ended", orders.Order.RESUME)
    assert [claim.study for claim in hands.claim(8)] == ["ended"]


def test_a_suspect_is_claimed_alone_until_it_has_recorded_an_epoch(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(3))
    first = hands.claim(2)
    held = [lease(claim) for claim in first]
    attempts.release(hands.engine, held, error="the pack broke", suspect=True)
    ended = records.attempts(hands.engine, study.id)
    assert [(each.end_class, each.error) for each in ended] == [
        (EndClass.PREEMPTED, "the pack broke")
    ] * 2
    assert [hands.run(claim.run_id).failures for claim in first] == [0, 0]
    (zero,) = hands.claim(4)
    assert (zero.trial_number, zero.suspect, zero.width) == (0, True, 8)
    refill = hands.claim(4, pack_key="a", width=8)
    assert [claim.trial_number for claim in refill] == [2]
    hands.report(zero, 1)
    attempts.release(hands.engine, [lease(zero), *map(lease, refill)])
    assert [(each.trial_number, each.suspect) for each in hands.claim(4)] == [
        (0, False),
        (2, False),
    ]
    assert [(each.trial_number, each.suspect) for each in hands.claim(4)] == [(1, True)]


def test_an_expired_run_is_taken_only_after_it_was_reaped(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (first,) = hands.claim()
    hands.report(first, 1, 0.9, checkpoint="one")
    hands.report(first, 2, 0.8)
    hands.expire(first)
    assert hands.claim() == []
    assert queue.reap(hands.engine) == [first.run_id]
    assert queue.reap(hands.engine) == []
    (second,) = hands.claim()
    assert second.token > first.token
    assert (second.epoch, second.checkpoint, second.checkpoint_epoch) == (2, "one", 1)
    lost, now = records.attempts(hands.engine, study.id)
    assert (lost.end_class, lost.token) == (EndClass.LOST, first.token)
    assert lost.ended_at is not None
    assert (now.end_class, now.from_epoch, now.token) == (None, 2, second.token)
    assert hands.run(first.run_id).failures == 0


def test_a_live_lease_is_not_reaped(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim()
    assert queue.reap(hands.engine) == []
    assert hands.run(claim.run_id).state is RunState.RUNNING


def test_a_server_that_has_just_come_up_takes_no_lease(hands: Any) -> None:
    hands.enqueue(hands.study(), [0])
    (claim,) = hands.claim()
    hands.expire(claim)
    with hands.engine.connect() as connection:
        up = text("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())")
        seconds = float(connection.scalar(up))
    assert queue.reap(hands.engine, settling_seconds=seconds + 3600) == []
    assert queue.reap(hands.engine, settling_seconds=seconds / 2) == [claim.run_id]


def test_reapers_at_once_return_each_run_exactly_once(hands: Any) -> None:
    hands.enqueue(hands.study(), range(100))
    claims = hands.claim(100, preferred_width=100, max_width=100)
    hands.expire(*claims)
    begin = threading.Barrier(4)

    def work() -> list[int]:
        begin.wait()
        return queue.reap(hands.engine)

    with ThreadPoolExecutor(4) as threads:
        reaped = [worker.result() for worker in [threads.submit(work) for _ in range(4)]]
    assert sorted(chain.from_iterable(reaped)) == sorted(claim.run_id for claim in claims)


def test_silent_workers_are_noted_as_gone_until_they_beat_again(hands: Any) -> None:
    with hands.engine.begin() as connection:
        connection.execute(
            text("UPDATE cubeopt.workers SET heartbeat_at = now() - interval '61 s'")
        )
    other = queue.register(hands.engine, "host-2", "host", 2, "cpu", {})
    queue.reap(hands.engine)
    silent, live = records.workers(hands.engine)
    assert (silent.state, live.state) == (WorkerState.GONE, WorkerState.LIVE)
    assert silent.silent_seconds > 60 > live.silent_seconds >= 0
    beats.beat(hands.engine, hands.worker_id, [], 60)
    queue.retire(hands.engine, other)
    assert [worker.state for worker in records.workers(hands.engine)] == ["live", "gone"]


def test_trials_of_which_a_number_is_taken_are_not_written(hands: Any) -> None:
    study = hands.study()
    assert hands.enqueue(study, [0, 1])
    assert not hands.enqueue(study, [1, 2])
    assert hands.enqueue(study, [])
    assert [trial.number for trial in records.trials(hands.engine, study.id)] == [0, 1]
    assert len(records.runs(hands.engine, study.id)) == 2


def test_promoting_twice_inserts_one_run_that_goes_on_where_the_short_one_ended(
    hands: Any,
) -> None:
    study = hands.study()
    hands.enqueue(study, [0, 1])
    short, waiting = hands.claim(2, preferred_width=4)
    hands.complete(short, 0.25, checkpoint="five")
    assert queue.promote(hands.engine, study.id, [0, 1], 50) == 1  # trial 1 is not complete
    assert queue.promote(hands.engine, study.id, [0], 50) == 0
    (full,) = (run for run in records.runs(hands.engine, study.id) if run.kind is RunKind.FULL)
    assert (full.trial_number, full.state, full.target_epochs) == (0, RunState.WAITING, 50)
    assert (full.epoch, full.checkpoint, full.checkpoint_epoch) == (5, "five", 5)
    assert (full.width, full.value, full.pack_key) == (4, 0.25, "a")
    assert full.spec == short.spec
    assert records.trials(hands.engine, study.id)[0].state is RunState.COMPLETE
    assert hands.run(waiting.run_id).state is RunState.RUNNING


def test_further_seeds_begin_at_nothing_with_seeds_of_their_own(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [3, 4])
    for claim in hands.claim(2, preferred_width=4):
        hands.complete(claim, 0.25, checkpoint="five")
    assert queue.promote(hands.engine, study.id, [3], 50, seeds=3) == 3
    assert queue.promote(hands.engine, study.id, [3, 4], 50, seeds=3) == 3
    runs = [run for run in records.runs(hands.engine, study.id) if run.kind is RunKind.FULL]
    assert [(run.trial_number, run.replicate, run.spec["seed"]) for run in runs] == [
        *((3, 0, 3), (3, 1, 4), (3, 2, 5), (4, 0, 4), (4, 1, 5), (4, 2, 6)),
    ]
    begun = [
        (run.epoch, run.value, run.checkpoint, run.checkpoint_epoch, run.width) for run in runs
    ]
    assert begun[:3] == [(5, 0.25, "five", 5, 4), *[(0, None, None, None, None)] * 2]
    assert all(run.spec["rate"] == 1e-3 for run in runs)
    claims = hands.claim(8, preferred_width=8)
    assert {(claim.trial_number, claim.replicate) for claim in claims} == {(3, 0), (4, 0)}
    claims = hands.claim(8, preferred_width=8)
    assert [(claim.trial_number, claim.replicate) for claim in claims] == [
        *((3, 1), (3, 2), (4, 1), (4, 2)),
    ]


def test_the_seed_after_the_last_is_the_first(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    with hands.engine.begin() as connection:
        connection.execute(text("UPDATE cubeopt.runs SET spec = '{\"seed\": 2147483647}'"))
    hands.complete(hands.claim()[0])
    queue.promote(hands.engine, study.id, [0], 50, seeds=2)
    assert [run.spec["seed"] for run in records.runs(hands.engine, study.id)] == [
        *(2147483647, 2147483647, 0),
    ]


def test_claiming_reads_no_finished_runs(hands: Any) -> None:
    """The plan of a claim walks an index of waiting runs, however many have ended."""
    study = hands.study()
    hands.enqueue(study, range(2000))
    with hands.engine.begin() as connection:
        connection.execute(
            text("UPDATE cubeopt.runs SET state = 'complete' WHERE trial_id % 100 <> 0")
        )
    with hands.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE cubeopt.runs"))
    with hands.engine.begin() as connection:
        values = {
            "worker_id": hands.worker_id, "limit": 4, "new_width": 4, "least_width": 1,
            "most_width": 4, "lease_seconds": 1, "device": "cpu", "provenance": "{}",
            "study": None, "pack_key": None, "admitted": [study.id],
            "overtakers": queue.OVERTAKERS,
        }  # fmt: skip
        explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {queue._CLAIM.text}")
        plan = connection.execute(explain, values).scalar_one()
    read = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "runs"]
    assert {node["Node Type"] for node in read} <= {"Index Scan", "Bitmap Heap Scan", "ModifyTable"}
    rows = sum(node["Actual Rows"] * node["Actual Loops"] for node in read)
    assert rows < 100, json.dumps(plan, indent=1)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for inner in plan.get("Plans", []) for node in _nodes(inner))]


def test_the_first_in_the_queue_can_be_looked_at_without_taking_it(hands: Any) -> None:
    assert queue.first_waiting(hands.engine) is None
    hands.enqueue(hands.study("one"), [0], "a")
    hands.enqueue(hands.study("two"), [0], "b")
    looked = [queue.first_waiting(hands.engine, study) for study in (None, "one", "two", "none")]
    assert [found and found.pack_key for found in looked] == ["a", "a", "b", None]
    (claim,) = hands.claim(1, preferred_width=4)
    assert claim.pack_key == "a"
    attempts.release(hands.engine, [Lease(claim.run_id, claim.token)])
    again = queue.first_waiting(hands.engine)
    assert again is not None
    assert (again.pack_key, again.width) == ("a", 4)
