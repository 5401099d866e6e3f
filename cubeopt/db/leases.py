"""What a worker does with the runs it holds: beat and report; db.attempts has how it leaves them.

Every write carries the token of its lease. Tokens only grow, so a worker whose run was leased
again, or returned to the queue, can write nothing more.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, text

from cubeopt.db import budgets, standings
from cubeopt.db.engine import transaction
from cubeopt.db.standings import Rung, Standing
from cubeopt.db.tables import EndClass, RunKind, RunState
from cubeopt.db.waits import Waits
from cubeopt.db.waits import note as note_waits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """The right to write to a run, as long as no newer token exists."""

    run_id: int
    token: int


@dataclass(frozen=True)
class EpochReport:
    """What one epoch of a run measured."""

    run_id: int
    token: int
    epoch: int
    value: float | None  # the objective; None when the epoch was not validated
    metrics: dict[str, Any]
    checkpoint: str | None = None  # path of a checkpoint made at this epoch
    diverged: bool = False
    test_value: float | None = None  # only with the last epoch of a full run


@dataclass(frozen=True)
class RungQuestion:
    """Shall this trial end here?"""

    epoch: int
    value: float
    others: tuple[float, ...]  # values of all other short runs of the study at this epoch
    study_spec: dict[str, Any]
    # With patience: its own value and the others' at the rungs before, the latest first.
    before: tuple[tuple[float, tuple[float, ...]], ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    others_metrics: tuple[dict[str, Any], ...] = ()  # of those values, the keys that were asked for
    # With patience: the same metrics of its own and of the others at the rungs before.
    before_metrics: tuple[tuple[dict[str, Any], tuple[dict[str, Any], ...]], ...] = ()


class Verdict(StrEnum):
    """What a worker does next with a run it reported."""

    GO_ON = "go_on"  # train the next epoch
    PRUNED = "pruned"  # ended by a rung
    COMPLETE = "complete"  # ended at its target epochs
    DIVERGED = "diverged"  # ended because its numbers are not finite
    SPENT = "spent"  # to be given back: the study's budget has no other epoch
    LOST = "lost"  # not ours any more; nothing was recorded


def beat(
    engine: Engine,
    worker_id: int,
    leases: Sequence[Lease],
    lease_seconds: float,
    waits: Waits | None = None,
) -> set[int]:
    """Extend *leases* and note the heartbeat; the ids of the runs that are still ours.

    *waits* are those of this worker for the answers to its claims so far.
    """
    with transaction(engine) as connection:
        beaten = {"worker_id": worker_id, "lease_seconds": lease_seconds}
        connection.execute(_NOTE_HEARTBEAT, beaten)
        if waits is not None:
            note_waits(connection, worker_id, waits)
        held = connection.execute(_EXTEND, {**arrays(leases), "lease_seconds": lease_seconds})
        return set(held.scalars())


_NOTE_HEARTBEAT = text("""
    UPDATE cubeopt.workers
    SET heartbeat_at = clock_timestamp(), state = 'live', lease_seconds = :lease_seconds
    WHERE id = :worker_id
""")

# The runs among :run_ids that the given tokens still hold. Rows are locked in one order
# everywhere, so that two workers, one of them a zombie, cannot lock each other out.
HELD = """
    SELECT run.id FROM cubeopt.runs run
        JOIN unnest(CAST(:run_ids AS bigint[]), CAST(:tokens AS bigint[])) AS lease(id, token)
        ON run.id = lease.id AND run.token = lease.token
    WHERE run.state = 'running'
    ORDER BY run.id
    FOR UPDATE OF run
"""

_EXTEND = text(f"""
    WITH held AS MATERIALIZED ({HELD})
    UPDATE cubeopt.runs run
    SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
    FROM held WHERE run.id = held.id
    RETURNING run.id
""")


def report(
    engine: Engine,
    reports: Sequence[EpochReport],
    decide: Callable[[RungQuestion], bool],
    keys: Sequence[str] = (),
) -> dict[int, Verdict]:
    """Record one epoch of a whole pack and say what becomes of each run, by run id.

    First everything is recorded, then the short runs that stand at a rung are judged in order of
    trial number: *decide* says True when the trial shall end. It is told the metrics *keys* of
    those that it compares with. At last it is seen to that no more runs go on than the budgets
    have epochs for.
    """
    by_run = {one.run_id: one for one in reports}
    assert len(by_run) == len(reports), "a pack reports each of its runs once"
    leases = arrays([Lease(one.run_id, one.token) for one in reports])
    verdicts = dict.fromkeys(by_run, Verdict.LOST)
    with transaction(engine) as connection:
        runs = list(connection.execute(_REPORTED, leases).mappings())
        _queue_up_at_rungs(connection, runs, by_run)
        held = set(connection.execute(text(HELD), leases).scalars())
        runs = [run for run in runs if run["id"] in held]
        _record(connection, [by_run[run["id"]] for run in runs])
        found = _standings(connection, runs, by_run, keys)
        for run in runs:
            one = by_run[run["id"]]
            verdicts[one.run_id] = verdict = _judge(run, one, found, decide)
            if verdict in _ENDS:
                _end(connection, run, one, verdict)
        _hold_to_budgets(connection, runs, verdicts)
        gone = [Lease(id, by_run[id].token) for id in by_run if verdicts[id] is Verdict.LOST]
        verdicts |= _repeated(connection, gone, by_run) if gone else {}
    standings.keep(engine, found)
    return verdicts


_ENDS = {
    Verdict.PRUNED: (RunState.PRUNED, EndClass.PRUNED),
    Verdict.COMPLETE: (RunState.COMPLETE, EndClass.DONE),
    Verdict.DIVERGED: (RunState.PRUNED, EndClass.DIVERGED),
}


def _repeated(
    connection: Connection, gone: Sequence[Lease], by_run: Mapping[int, EpochReport]
) -> dict[int, Verdict]:
    """What a report ended that comes again, because its answer was lost with the connection."""
    verdicts = {end_class: verdict for verdict, (_, end_class) in _ENDS.items()}
    return {
        row.run_id: verdicts[row.end_class]
        for row in connection.execute(_ENDED, arrays(gone))
        if row.end_class in verdicts and row.epoch == by_run[row.run_id].epoch
    }


_ENDED = text("""
    SELECT attempt.run_id, attempt.end_class, epoch.epoch
    FROM cubeopt.attempts attempt
        JOIN unnest(CAST(:run_ids AS bigint[]), CAST(:tokens AS bigint[])) AS lease(id, token)
        ON attempt.run_id = lease.id AND attempt.token = lease.token
        JOIN cubeopt.epochs epoch ON epoch.run_id = attempt.run_id AND epoch.token = attempt.token
    WHERE attempt.end_class IS NOT NULL
""")

_REPORTED = text("""
    SELECT run.id, run.trial_id, run.study_id, run.kind, run.target_epochs,
        trial.number, study.spec AS study_spec
    FROM cubeopt.runs run
        JOIN unnest(CAST(:run_ids AS bigint[]), CAST(:tokens AS bigint[])) AS lease(id, token)
        ON run.id = lease.id AND run.token = lease.token
        JOIN cubeopt.trials trial ON trial.id = run.trial_id
        JOIN cubeopt.studies study ON study.id = run.study_id
    WHERE run.state = 'running'
    ORDER BY run.study_id, trial.number, run.kind, run.replicate
""")


def _queue_up_at_rungs(
    connection: Connection, runs: Sequence[RowMapping], by_run: Mapping[int, EpochReport]
) -> None:
    """Reports of one study at a rung pass one after the other, each seeing the ones before it.

    The lock comes before any lock on a row: the other way round two reports could wait for
    each other.
    """
    studies = {run["study_id"] for run in runs if _counts(run, by_run[run["id"]])}
    for study_id in sorted(studies):
        connection.execute(_QUEUE_UP, {"study_id": study_id})


_QUEUE_UP = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('cubeopt.rung', CAST(:study_id AS bigint)))
""")


def _record(connection: Connection, reports: Sequence[EpochReport]) -> None:
    rows = [
        {
            "run_id": one.run_id,
            "token": one.token,
            "epoch": one.epoch,
            "value": _finite(one.value),
            "metrics": _finite(one.metrics),
            "checkpoint": one.checkpoint,
        }
        for one in reports
    ]
    connection.execute(_RECORD, {"rows": json.dumps(rows, allow_nan=False)})


# An epoch that is trained again after a crash neither counts twice nor sets the run back.
_RECORD = text("""
    WITH reported AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS reported(
            run_id bigint, token bigint, epoch int, value float, metrics jsonb, checkpoint text
        )
    ), moved AS (
        UPDATE cubeopt.runs run
        SET epoch = greatest(run.epoch, reported.epoch),
            value = CASE WHEN reported.epoch > run.epoch
                THEN coalesce(reported.value, run.value) ELSE run.value END,
            checkpoint = coalesce(reported.checkpoint, run.checkpoint),
            checkpoint_epoch = CASE WHEN reported.checkpoint IS NULL
                THEN run.checkpoint_epoch ELSE reported.epoch END,
            suspect = false
        FROM reported WHERE run.id = reported.run_id AND run.token = reported.token
        RETURNING run.id
    )
    INSERT INTO cubeopt.epochs (run_id, epoch, token, value, metrics)
    SELECT run_id, epoch, token, value, metrics FROM reported JOIN moved ON moved.id = run_id
    ON CONFLICT (run_id, epoch) DO NOTHING
""")


def _standings(
    connection: Connection,
    runs: Sequence[RowMapping],
    by_run: Mapping[int, EpochReport],
    keys: Sequence[str],
) -> dict[Rung, Standing]:
    """Who stands at each rung that counts."""
    asked: dict[Rung, list[int]] = {}
    for run in runs:
        if _at_rung(run, by_run[run["id"]]):
            epoch = by_run[run["id"]].epoch
            for each in (epoch, *_before(run, epoch)):
                asked.setdefault((run["study_id"], each), []).append(run["id"])
    return {rung: standings.read(connection, rung, asked[rung], keys) for rung in sorted(asked)}


def _judge(
    run: RowMapping,
    one: EpochReport,
    found: Mapping[Rung, Standing],
    decide: Callable[[RungQuestion], bool],
) -> Verdict:
    if _diverged(one):
        return Verdict.DIVERGED
    if one.epoch >= run["target_epochs"]:
        return Verdict.COMPLETE
    if not _at_rung(run, one):
        return Verdict.GO_ON
    here, *before = [
        found[run["study_id"], epoch].place(one.run_id)
        for epoch in (one.epoch, *_before(run, one.epoch))
    ]
    assert one.value is not None
    question = RungQuestion(
        epoch=one.epoch,
        value=one.value,
        others=here.others,
        study_spec=run["study_spec"],
        before=tuple((each.value, each.others) for each in before),
        metrics=one.metrics,
        others_metrics=here.others_metrics,
        before_metrics=tuple((each.metrics, each.others_metrics) for each in before),
    )
    return Verdict.PRUNED if decide(question) else Verdict.GO_ON


def _before(run: RowMapping, epoch: int) -> list[int]:
    """The rungs before *epoch* that count for patience, the latest first."""
    rungs = run["study_spec"]["rungs"]
    earlier = [rung for rung in reversed(rungs["epochs"]) if rung < epoch]
    return earlier[: rungs.get("patience", 0)]


def _hold_to_budgets(
    connection: Connection, runs: Sequence[RowMapping], verdicts: dict[int, Verdict]
) -> None:
    """Where budgets have no epoch for all that would go on, the last of them do not."""
    going = [run for run in runs if verdicts[run["id"]] is Verdict.GO_ON]
    excess = budgets.excess(connection, {run["study_id"]: run["study_spec"] for run in going})
    for run in reversed(going):
        if excess[run["study_id"]] > 0:
            excess[run["study_id"]] -= 1
            verdicts[run["id"]] = Verdict.SPENT


def _at_rung(run: RowMapping, one: EpochReport) -> bool:
    """Whether this report is compared with others: at every rung but the last, which is the end."""
    return _counts(run, one) and not _diverged(one)


def _counts(run: RowMapping, one: EpochReport) -> bool:
    """Whether others are compared with this report."""
    rungs = run["study_spec"].get("rungs", {}).get("epochs", ())
    return run["kind"] == RunKind.SHORT and one.epoch in rungs[:-1] and one.value is not None


def _diverged(one: EpochReport) -> bool:
    return one.diverged or (one.value is not None and not math.isfinite(one.value))


def _end(connection: Connection, run: RowMapping, one: EpochReport, verdict: Verdict) -> None:
    state, end_class = _ENDS[verdict]
    full = run["kind"] == RunKind.FULL and verdict is Verdict.COMPLETE
    values = {
        "run_id": one.run_id,
        "token": one.token,
        "state": state,
        "diverged": verdict is Verdict.DIVERGED,
        "test_value": _finite(one.test_value) if full else None,
    }
    connection.execute(_END_RUN, values)
    ended = {"run_id": one.run_id, "token": one.token, "end_class": end_class, "error": None}
    connection.execute(END_ATTEMPT, ended)
    if run["kind"] == RunKind.SHORT and verdict is not Verdict.COMPLETE:
        reason = {"end": end_class, "epoch": one.epoch, "value": _finite(one.value)}
        explain(connection, one.run_id, reason)
    logger.info("run %d ended at epoch %d: %s", one.run_id, one.epoch, end_class)


_END_RUN = text("""
    UPDATE cubeopt.runs
    SET state = :state, worker_id = NULL, lease_expires_at = NULL, finished_at = clock_timestamp(),
        test_value = :test_value, value = CASE WHEN :diverged THEN NULL ELSE value END
    WHERE id = :run_id AND token = :token
""")

END_ATTEMPT = text("""
    UPDATE cubeopt.attempts
    SET ended_at = clock_timestamp(), end_class = :end_class, error = :error
    WHERE run_id = :run_id AND token = :token
""")


def explain(connection: Connection, run_id: int, reason: dict[str, Any]) -> None:
    connection.execute(_EXPLAIN, {"run_id": run_id, "reason": json.dumps(reason)})


_EXPLAIN = text("""
    UPDATE cubeopt.trials trial SET reason = CAST(:reason AS jsonb)
    FROM cubeopt.runs run WHERE run.id = :run_id AND trial.id = run.trial_id
""")


def arrays(leases: Sequence[Lease]) -> dict[str, list[int]]:
    return {
        "run_ids": [lease.run_id for lease in leases],
        "tokens": [lease.token for lease in leases],
    }


def _finite(value: Any) -> Any:
    """*value* with None in place of NaN and infinity, however deep: JSON knows neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
