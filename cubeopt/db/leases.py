"""What a worker reports of the runs it holds; `beats` extends its leases, `attempts` ends them.

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

from sqlalchemy import Connection, Engine, text

from cubeopt.db import budgets, facts, standings
from cubeopt.db.batch import batch
from cubeopt.db.engine import transaction
from cubeopt.db.facts import Facts
from cubeopt.db.standings import Rung, Standing
from cubeopt.db.tables import EndClass, RunKind, RunState

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
    others: Sequence[float]  # values of all other short runs of the study at this epoch, rising
    study_spec: dict[str, Any]
    # With patience: its own value and the others' at the rungs before, the latest first.
    before: tuple[tuple[float, Sequence[float]], ...] = ()
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
    verdicts = dict.fromkeys(by_run, Verdict.LOST)
    with transaction(engine) as connection:
        known = _known(connection, reports)
        budgets_of, found = _record(connection, known, by_run, keys)
        runs = [run for run in known if run.run_id in budgets_of]
        for run in runs:
            verdicts[run.run_id] = _judge(run, by_run[run.run_id], found, decide)
        _end(connection, [run for run in runs if verdicts[run.run_id] in _ENDS], by_run, verdicts)
        going = [run for run in runs if verdicts[run.run_id] is Verdict.GO_ON]
        _hold_to_budgets(connection, going, budgets_of, verdicts)
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


def _known(connection: Connection, reports: Sequence[EpochReport]) -> list[Facts]:
    """The runs that are reported, in the order in which they are judged."""
    known = facts.remembered(connection.engine, [one.run_id for one in reports])
    unknown = [one.run_id for one in reports if one.run_id not in known]
    if unknown:
        found = facts.read(connection, unknown)
        facts.remember(connection.engine, found)
        known |= {run.run_id: run for run in found}
    return sorted(known.values(), key=lambda run: run.order)


def _record(
    connection: Connection,
    runs: Sequence[Facts],
    by_run: Mapping[int, EpochReport],
    keys: Sequence[str],
) -> tuple[dict[int, dict[str, Any]], dict[Rung, Standing]]:
    """Write the epochs down; the budgets by the ids of the runs that are ours, and who stands at
    each rung that counts.

    Reports of one study at a rung pass one after the other, each seeing the ones before it. Their
    lock comes before any lock on a row: the other way round two reports could wait for each other.
    """
    counting = sorted({run.study_id for run in runs if _counts(run, by_run[run.run_id])})
    asked: dict[Rung, list[int]] = {}
    for run in runs:
        if _at_rung(run, by_run[run.run_id]):
            epoch = by_run[run.run_id].epoch
            for each in (epoch, *_before(run, epoch)):
                asked.setdefault((run.study_id, each), []).append(run.run_id)
    rows = json.dumps([_row(one) for one in by_run.values()], allow_nan=False)
    with batch(connection) as send:
        for study_id in counting:
            send(_QUEUE_UP, {"study_id": study_id})
        recorded = send(_RECORD, {"rows": rows})
        questions = [standings.ask(send, connection.engine, *each, keys) for each in asked.items()]
    held = {row.run_id: row.budget or {} for row in recorded}
    return held, dict(zip(asked, (answer() for answer in questions), strict=True))


_QUEUE_UP = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('cubeopt.rung', CAST(:study_id AS bigint)))
""")


def _row(one: EpochReport) -> dict[str, Any]:
    return {
        "run_id": one.run_id,
        "token": one.token,
        "epoch": one.epoch,
        "value": _finite(one.value),
        "metrics": _finite(one.metrics),
        "checkpoint": one.checkpoint,
    }


# An epoch that is trained again after a crash neither counts twice nor sets the run back.
_RECORD = text("""
    WITH reported AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS reported(
            run_id bigint, token bigint, epoch int, value float, metrics jsonb, checkpoint text
        )
    ), held AS MATERIALIZED (
        SELECT run.id FROM reported JOIN cubeopt.runs run
            ON run.id = reported.run_id AND run.token = reported.token
        WHERE run.state = 'running'
        ORDER BY run.id
        FOR UPDATE OF run
    ), moved AS (
        UPDATE cubeopt.runs run
        SET epoch = greatest(run.epoch, reported.epoch),
            value = CASE WHEN reported.epoch > run.epoch
                THEN coalesce(reported.value, run.value) ELSE run.value END,
            checkpoint = coalesce(reported.checkpoint, run.checkpoint),
            checkpoint_epoch = CASE WHEN reported.checkpoint IS NULL
                THEN run.checkpoint_epoch ELSE reported.epoch END,
            suspect = false
        FROM held JOIN reported ON reported.run_id = held.id
        WHERE run.id = held.id
        RETURNING run.id, run.study_id
    ), written AS (
        INSERT INTO cubeopt.epochs (run_id, epoch, token, value, metrics)
        SELECT run_id, epoch, token, value, metrics FROM reported JOIN moved ON moved.id = run_id
        ON CONFLICT (run_id, epoch) DO NOTHING
    )
    SELECT moved.id AS run_id, study.spec->'budget' AS budget
    FROM moved JOIN cubeopt.studies study ON study.id = moved.study_id
""")


def _judge(
    run: Facts,
    one: EpochReport,
    found: Mapping[Rung, Standing],
    decide: Callable[[RungQuestion], bool],
) -> Verdict:
    if _diverged(one):
        return Verdict.DIVERGED
    if one.epoch >= run.target_epochs:
        return Verdict.COMPLETE
    if not _at_rung(run, one):
        return Verdict.GO_ON
    here, *before = [
        found[run.study_id, epoch].place(one.run_id)
        for epoch in (one.epoch, *_before(run, one.epoch))
    ]
    assert one.value is not None
    question = RungQuestion(
        epoch=one.epoch,
        value=one.value,
        others=here.others,
        study_spec=run.study_spec,
        before=tuple((each.value, each.others) for each in before),
        metrics=one.metrics,
        others_metrics=here.others_metrics,
        before_metrics=tuple((each.metrics, each.others_metrics) for each in before),
    )
    return Verdict.PRUNED if decide(question) else Verdict.GO_ON


def _before(run: Facts, epoch: int) -> list[int]:
    """The rungs before *epoch* that count for patience, the latest first."""
    earlier = [rung for rung in reversed(run.rungs) if rung < epoch]
    return earlier[: run.study_spec["rungs"].get("patience", 0)]


def _hold_to_budgets(
    connection: Connection,
    going: Sequence[Facts],
    budgets_of: Mapping[int, dict[str, Any]],
    verdicts: dict[int, Verdict],
) -> None:
    """Where budgets have no epoch for all that would go on, the last of them do not."""
    specs = {run.study_id: {"budget": budgets_of[run.run_id]} for run in going}
    excess = budgets.excess(connection, specs)
    for run in reversed(going):
        if excess[run.study_id] > 0:
            excess[run.study_id] -= 1
            verdicts[run.run_id] = Verdict.SPENT


def _at_rung(run: Facts, one: EpochReport) -> bool:
    """Whether this report is compared with others: at every rung but the last, which is the end."""
    return _counts(run, one) and not _diverged(one)


def _counts(run: Facts, one: EpochReport) -> bool:
    """Whether others are compared with this report."""
    return run.kind == RunKind.SHORT and one.epoch in run.rungs[:-1] and one.value is not None


def _diverged(one: EpochReport) -> bool:
    return one.diverged or (one.value is not None and not math.isfinite(one.value))


def _end(
    connection: Connection,
    runs: Sequence[Facts],
    by_run: Mapping[int, EpochReport],
    verdicts: Mapping[int, Verdict],
) -> None:
    """End *runs* and their attempts, and say of short ones why they ended early."""
    if not runs:
        return
    rows = [_ending(run, by_run[run.run_id], verdicts[run.run_id]) for run in runs]
    with batch(connection) as send:
        send(_END, {"rows": json.dumps(rows, allow_nan=False)})
    for row in rows:
        logger.info("run %d ended at epoch %d: %s", *map(row.get, ("run_id", "epoch", "end_class")))


def _ending(run: Facts, one: EpochReport, verdict: Verdict) -> dict[str, Any]:
    state, end_class = _ENDS[verdict]
    early = run.kind == RunKind.SHORT and verdict is not Verdict.COMPLETE
    tested = run.kind == RunKind.FULL and verdict is Verdict.COMPLETE
    reason = {"end": end_class, "epoch": one.epoch, "value": _finite(one.value)}
    return {
        "run_id": run.run_id,
        "token": one.token,
        "epoch": one.epoch,
        "state": state,
        "end_class": end_class,
        "test_value": _finite(one.test_value) if tested else None,
        "reason": reason if early else None,
    }


_END = text("""
    WITH ended AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS ended(
            run_id bigint, token bigint, state text, end_class text, test_value float, reason jsonb
        )
    ), stopped AS (
        UPDATE cubeopt.runs run
        SET state = ended.state, worker_id = NULL, lease_expires_at = NULL,
            finished_at = clock_timestamp(), test_value = ended.test_value,
            value = CASE WHEN ended.end_class = 'diverged' THEN NULL ELSE run.value END
        FROM ended WHERE run.id = ended.run_id AND run.token = ended.token
        RETURNING run.id, run.trial_id
    ), explained AS (
        UPDATE cubeopt.trials trial SET reason = ended.reason
        FROM ended JOIN stopped ON stopped.id = ended.run_id
        WHERE trial.id = stopped.trial_id AND ended.reason IS NOT NULL
    )
    UPDATE cubeopt.attempts attempt
    SET ended_at = clock_timestamp(), end_class = ended.end_class
    FROM ended JOIN stopped ON stopped.id = ended.run_id
    WHERE attempt.run_id = ended.run_id AND attempt.token = ended.token
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
