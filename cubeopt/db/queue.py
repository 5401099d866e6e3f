"""From waiting to running and back: every statement that moves a run into or out of the queue."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db import budgets, facts
from cubeopt.db.batch import batch
from cubeopt.db.engine import transaction
from cubeopt.db.facts import Facts
from cubeopt.db.tables import RunKind

logger = logging.getLogger(__name__)

_ANY_WIDTH = 1_000_000
OVERTAKERS = 64  # younger runs that may go into a pack before the oldest one that waits


@dataclass(frozen=True)
class NewTrial:
    """A trial to put into the queue."""

    number: int  # Optuna's
    params: Mapping[str, Any]
    spec: Mapping[str, Any]  # a TrialSpec, flat
    pack_key: str
    target_epochs: int  # of the short run
    notes: Mapping[str, Any] = field(default_factory=dict)  # what the sampler wrote beside it


@dataclass(frozen=True)
class Waiting:
    """The run that stands first in the queue, for a look before a claim."""

    study_id: int
    spec: dict[str, Any]
    pack_key: str
    width: int | None  # None: the first claim decides
    dataset_fingerprint: str


@dataclass(frozen=True)
class Claim:
    """A run under a fresh lease: all a worker needs to train it."""

    run_id: int
    token: int
    trial_number: int
    study_id: int
    study: str
    kind: RunKind
    replicate: int  # of a full run: 0 has the trial's own seed
    spec: dict[str, Any]
    pack_key: str
    target_epochs: int
    width: int
    epoch: int  # the last one recorded; 0 for a run that never began
    checkpoint: str | None
    checkpoint_epoch: int | None
    dataset: str
    dataset_fingerprint: str
    metric: str
    study_spec: dict[str, Any]
    suspect: bool  # to be trained alone until it has recorded an epoch


def register(
    engine: Engine, name: str, host: str, pid: int, device: str, provenance: Mapping[str, Any]
) -> int:
    """Write down a new worker; its id."""
    values = {"name": name, "host": host, "pid": pid, "device": device}
    with transaction(engine) as connection:
        row = connection.execute(_REGISTER, {**values, "provenance": _json(provenance)})
        return int(row.scalar_one())


_REGISTER = text("""
    INSERT INTO cubeopt.workers (name, host, pid, device, provenance)
    VALUES (:name, :host, :pid, :device, CAST(:provenance AS jsonb))
    RETURNING id
""")


def retire(engine: Engine, worker_id: int) -> None:
    """Note that a worker has gone. Its leases are not touched: it released them, or they expire."""
    with transaction(engine) as connection:
        connection.execute(_RETIRE, {"id": worker_id})


_RETIRE = text("UPDATE cubeopt.workers SET state = 'gone' WHERE id = :id")


def enqueue(
    engine: Engine,
    study_id: int,
    trials: Sequence[NewTrial],
    drawn_by: Mapping[str, Any] | None = None,
) -> bool:
    """Write trials with their waiting short runs; False, and nothing written, when one of the
    numbers is taken, the study does not run, or its file is not *drawn_by* any more.

    A number that a person wished for is free for what grants the wish.
    """
    rows = [vars(trial) for trial in trials]  # its fields have the names of the columns
    with transaction(engine) as connection:
        spec = None if drawn_by is None else _json(drawn_by)
        values = {"study_id": study_id, "rows": _json(rows), "spec": spec}
        if connection.execute(_ENQUEUE, values).rowcount == len(rows):
            return True
        connection.rollback()
        return False


_ENQUEUE = text("""
    WITH new AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb))
            AS new(
                number int, params jsonb, spec jsonb, pack_key text, target_epochs int, notes jsonb
            )
    ), running AS (
        SELECT id FROM cubeopt.studies
        WHERE id = :study_id AND state = 'running'
            AND spec = coalesce(CAST(:spec AS jsonb), spec)
        FOR SHARE
    ), written AS (
        INSERT INTO cubeopt.trials AS trial (study_id, number, params, notes)
        SELECT study.id, number, params, notes FROM new, running study ORDER BY number
        ON CONFLICT (study_id, number) DO UPDATE
            SET params = excluded.params, notes = excluded.notes, drawn = true
            WHERE NOT trial.drawn AND excluded.params @> trial.params
        RETURNING id, number
    )
    INSERT INTO cubeopt.runs (trial_id, study_id, kind, spec, pack_key, target_epochs)
    SELECT written.id, :study_id, 'short', spec, pack_key, target_epochs
    FROM written JOIN new USING (number) ORDER BY number
""")


def promote(
    engine: Engine, study_id: int, numbers: Sequence[int], target_epochs: int, seeds: int = 1
) -> int:
    """Queue full runs of complete trials, *seeds* of each; how many were new.

    The first, replicate 0, goes on from the short run; the others begin at nothing, with the seeds
    that follow the trial's own. A run that is there already is left alone.
    """
    values = {
        "study_id": study_id,
        "numbers": list(numbers),
        "target_epochs": target_epochs,
        "seeds": seeds,
    }
    with transaction(engine) as connection:
        return connection.execute(_PROMOTE, values).rowcount


# A conflict uses up an id, and by ids OVERTAKERS counts: what is there is not tried again.
_PROMOTE = text("""
    INSERT INTO cubeopt.runs (
        trial_id, study_id, kind, replicate, priority, spec, pack_key, target_epochs, width, epoch,
        value, checkpoint, checkpoint_epoch
    )
    SELECT short.trial_id, short.study_id, 'full', nth, 1, short.spec || seed.other,
        short.pack_key, :target_epochs, begun.width, coalesce(begun.epoch, 0), begun.value,
        begun.checkpoint, begun.checkpoint_epoch
    FROM cubeopt.runs short JOIN cubeopt.trials trial ON trial.id = short.trial_id
        CROSS JOIN generate_series(0, :seeds - 1) AS nth
        CROSS JOIN LATERAL (
            SELECT CASE WHEN nth = 0 THEN '{}' ELSE jsonb_build_object(
                'seed', (CAST(short.spec->>'seed' AS bigint) + nth) % 2147483648
            ) END AS other
        ) seed
        LEFT JOIN cubeopt.runs begun ON begun.id = short.id AND nth = 0
    WHERE trial.study_id = :study_id AND trial.number = ANY(:numbers)
        AND short.kind = 'short' AND short.state = 'complete'
        AND NOT EXISTS (
            SELECT FROM cubeopt.runs
            WHERE trial_id = short.trial_id AND kind = 'full' AND replicate = nth
        )
    ORDER BY trial.number, nth
    ON CONFLICT (trial_id, kind, replicate) DO NOTHING
""")


def first_waiting(
    engine: Engine, study: str | None = None, admitted: Sequence[int] | None = None
) -> Waiting | None:
    """The run that a claim would start from now; leases nothing. None wakes the coordinator."""
    values = {"study": study, "admitted": admitted}
    with transaction(engine) as connection:
        with batch(connection) as send:
            found = send(_FIRST_WAITING, values)
        row = found.fetchone()
        if row is None:
            connection.execute(_WANTED)
    return Waiting(**row._asdict()) if row is not None else None


_FIRST_WAITING = text("""
    SELECT study.id AS study_id, run.spec, run.pack_key, run.width, study.dataset_fingerprint
    FROM cubeopt.runs run JOIN cubeopt.studies study ON study.id = run.study_id
    WHERE run.state = 'waiting' AND study.state = 'running'
        AND study.name = coalesce(CAST(:study AS text), study.name)
        AND coalesce(study.id = ANY(CAST(:admitted AS bigint[])), true)
    ORDER BY run.priority DESC, run.id
    LIMIT 1
""")

_WANTED = text("""
    SELECT pg_notify('cubeopt_wanted', '')
    WHERE EXISTS (SELECT FROM cubeopt.studies WHERE state = 'running')
""")


def claim(
    engine: Engine,
    worker_id: int,
    limit: int,
    preferred_width: int,
    lease_seconds: float,
    device: str,
    provenance: Mapping[str, Any],
    max_width: int | None = None,
    study: str | None = None,
    pack_key: str | None = None,
    width: int | None = None,
    admitted: Sequence[int] | None = None,
) -> list[Claim]:
    """Lease up to *limit* waiting runs that fit into one pack, the first in the queue deciding.

    The oldest run of the highest priority decides the pack key and the width: its own, fixed
    at its first claim, or *preferred_width* for a run that never began. Runs wider than
    *max_width*, if given, are left for others, and so are all studies but those with the ids
    *admitted*. With *pack_key* and *width* (the refill of a
    running pack) only runs that fit there are leased. At most as many runs come back as the
    width has places; a suspect comes alone, and never into a running pack. None is leased whose
    study has no budget left for another epoch.

    Filling a pack passes over runs of other shapes, but only so far: who joins one is at most
    OVERTAKERS younger than the oldest run that waits in the studies looked at. So at most so many
    younger runs go before it, however many workers there are, and then packs run empty and begin
    anew with the first in the queue. Full runs lead a pack before any short run; there are only so
    many of them, as another one takes short runs that ended.
    """
    values = {
        "worker_id": worker_id,
        "limit": limit,
        "new_width": width or preferred_width,  # of a run that never began
        "least_width": width or 1,
        "most_width": width or max_width or _ANY_WIDTH,
        "lease_seconds": lease_seconds,
        "device": device,
        "provenance": _json(provenance),
        "study": study,
        "pack_key": pack_key,
        "admitted": admitted,
        "overtakers": OVERTAKERS,
    }
    claims = _within_budget(engine, values)
    facts.remember(engine, map(Facts.of, claims))
    for taken in claims:
        logger.debug("worker %d leased run %d, token %d", worker_id, taken.run_id, taken.token)
    return claims


def _within_budget(engine: Engine, values: dict[str, Any]) -> list[Claim]:
    """The claim of *values*, taken back and made again for fewer while it overdraws a budget."""
    while True:
        with transaction(engine) as connection:
            with batch(connection) as send:
                rows = send(_CLAIM, values)
            claims = [Claim(**{**row._asdict(), "kind": RunKind(row.kind)}) for row in rows]
            specs = {claim.study_id: claim.study_spec for claim in claims}
            ours = Counter(claim.study_id for claim in claims)
            found = budgets.excess(connection, specs)
            excess = sum(min(found[study_id], count) for study_id, count in ours.items())
            if not excess:
                return claims
            connection.rollback()
        values = {**values, "limit": len(claims) - excess}


_LOOKED_AT = """
    SELECT id FROM cubeopt.studies
    WHERE state = 'running' AND name = coalesce(CAST(:study AS text), name)
        AND coalesce(id = ANY(CAST(:admitted AS bigint[])), true)
"""

# "leader" is the run that decides, "members" its company; both pass over rows that another claim
# holds, so claims never wait for each other and never take a run twice.
_CLAIM = text(f"""
    WITH oldest AS MATERIALIZED (
        SELECT min(id) AS id FROM cubeopt.runs
        WHERE state = 'waiting'
            AND study_id IN ({_LOOKED_AT})
    ), leader AS MATERIALIZED (
        SELECT id, pack_key, suspect, coalesce(width, :new_width) AS width
        FROM cubeopt.runs
        WHERE state = 'waiting'
            AND study_id IN ({_LOOKED_AT})
            AND coalesce(width, :new_width) BETWEEN :least_width AND :most_width
            AND (
                CAST(:pack_key AS text) IS NULL
                OR pack_key = :pack_key AND NOT suspect
                    AND id <= (SELECT id FROM oldest) + :overtakers
            )
        ORDER BY priority DESC, id
        LIMIT least(:limit, 1)
        FOR UPDATE SKIP LOCKED
    ), members AS MATERIALIZED (
        SELECT run.id, leader.width
        FROM leader JOIN cubeopt.runs run
            ON run.pack_key = leader.pack_key
            AND coalesce(run.width, :new_width) = leader.width
            AND CASE WHEN leader.suspect THEN run.id = leader.id ELSE NOT run.suspect END
        WHERE run.state = 'waiting'
            AND (run.id = leader.id OR run.id <= (SELECT id FROM oldest) + :overtakers)
            AND run.study_id IN ({_LOOKED_AT})
        ORDER BY run.priority DESC, run.id
        LIMIT (SELECT least(:limit, width) FROM leader)
        FOR UPDATE OF run SKIP LOCKED
    ), claimed AS (
        UPDATE cubeopt.runs run
        SET state = 'running', token = token + 1, worker_id = :worker_id, width = members.width,
            lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds),
            started_at = coalesce(started_at, clock_timestamp())
        FROM members WHERE run.id = members.id
        RETURNING run.*
    ), attempt AS (
        INSERT INTO cubeopt.attempts (run_id, token, worker_id, from_epoch, device, provenance)
        SELECT id, token, worker_id, epoch, :device, CAST(:provenance AS jsonb) FROM claimed
    )
    SELECT claimed.id AS run_id, claimed.token, trial.number AS trial_number, claimed.study_id,
        study.name AS study, claimed.kind, claimed.replicate, claimed.spec, claimed.pack_key,
        claimed.target_epochs, claimed.width, claimed.epoch, claimed.checkpoint,
        claimed.checkpoint_epoch, study.dataset, study.dataset_fingerprint, study.metric,
        study.spec AS study_spec, claimed.suspect
    FROM claimed
        JOIN cubeopt.trials trial ON trial.id = claimed.trial_id
        JOIN cubeopt.studies study ON study.id = claimed.study_id
    ORDER BY claimed.priority DESC, claimed.id
""")


def reap(engine: Engine, silence_seconds: float = 60.0, settling_seconds: float = 0.0) -> list[int]:
    """Return the runs of expired leases to the queue, where the leases ended; their ids.

    A server that has come up less than *settling_seconds* ago takes no lease from anybody: it was
    away, not they, and whoever lives will beat again. Workers without a heartbeat for
    *silence_seconds* are noted as gone.
    """
    with transaction(engine) as connection:
        settled = {"settling_seconds": settling_seconds}
        returned = list(connection.execute(_REAP, settled).scalars())
        connection.execute(_NOTE_SILENT, {"silence_seconds": silence_seconds})
    for run_id in returned:
        logger.warning("the lease of run %d expired; it waits for its next attempt", run_id)
    return returned


_REAP = text("""
    WITH expired AS MATERIALIZED (
        SELECT id, lease_expires_at FROM cubeopt.runs
        WHERE state = 'running' AND lease_expires_at < clock_timestamp()
            AND pg_postmaster_start_time()
                < clock_timestamp() - make_interval(secs => :settling_seconds)
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ), returned AS (
        UPDATE cubeopt.runs run
        SET state = 'waiting', worker_id = NULL, lease_expires_at = NULL
        FROM expired WHERE run.id = expired.id
        RETURNING run.id, run.token, expired.lease_expires_at
    ), ended AS (
        UPDATE cubeopt.attempts attempt
        SET ended_at = greatest(started_at, returned.lease_expires_at), end_class = 'lost'
        FROM returned WHERE attempt.run_id = returned.id AND attempt.token = returned.token
    )
    SELECT id FROM returned ORDER BY id
""")

_NOTE_SILENT = text("""
    UPDATE cubeopt.workers SET state = 'gone'
    WHERE id IN (
        SELECT id FROM cubeopt.workers
        WHERE state = 'live'
            AND heartbeat_at < clock_timestamp() - make_interval(secs => :silence_seconds)
        FOR UPDATE SKIP LOCKED
    )
""")


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
