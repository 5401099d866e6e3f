"""Trials of earlier studies that teach a study's sampler, kept with it from its creation on.

What becomes of the earlier studies afterwards changes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.standings import CHOSEN
from cubeopt.db.tables import RunState


@dataclass(frozen=True)
class Earlier:
    """A trial as it stands in its own study: its short run, and the full run that goes on from it.

    Replicates are other trainings, and no part of it.
    """

    number: int
    spec: dict[str, Any]  # a TrialSpec, flat
    state: RunState  # of the short run
    diverged: bool
    values: dict[int, float]  # by epoch, of those that were validated
    metrics: dict[int, dict[str, Any]]  # of the same, what was asked for


@dataclass(frozen=True)
class Prior:
    """What a trial of an earlier study tells the sampler of a later one."""

    source: str  # the earlier study
    number: int  # there
    spec: dict[str, Any]  # a TrialSpec, flat
    state: RunState
    value: float | None  # the objective at the last of its epochs; None when it diverged
    values: dict[int, float]  # by epoch
    metrics: dict[str, Any]  # at the last of them, what the goal's keys name


def earlier(engine: Engine, study_id: int, keys: Sequence[str] = ()) -> list[Earlier]:
    """All trials of a study that were asked for, by number, with the metrics *keys*."""
    with transaction(engine) as connection:
        rows = connection.execute(_EARLIER, {"study_id": study_id, "keys": list(keys)}).mappings()
        return [
            Earlier(
                number=row["number"],
                spec=row["spec"],
                state=RunState(row["state"]),
                diverged=row["diverged"],
                values={epoch: value for epoch, value, _ in row["seen"]},
                metrics={epoch: metrics for epoch, _, metrics in row["seen"]},
            )
            for row in rows
        ]


# A run that was validated and has no value any more has diverged.
_EARLIER = text(f"""
    SELECT trial.number, short.spec, short.state,
        coalesce(trial.reason->>'end' = 'diverged', false)
            OR coalesce(going.state = 'pruned' AND going.value IS NULL, false) AS diverged,
        coalesce(seen.epochs, '[]') AS seen
    FROM cubeopt.trials trial
        JOIN cubeopt.runs short ON short.trial_id = trial.id AND short.kind = 'short'
        LEFT JOIN cubeopt.runs going
            ON going.trial_id = trial.id AND going.kind = 'full' AND going.replicate = 0
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(
                jsonb_build_array(epoch.epoch, epoch.value, {CHOSEN}) ORDER BY epoch.epoch
            ) AS epochs
            FROM cubeopt.epochs epoch
            WHERE run_id IN (short.id, going.id) AND value IS NOT NULL
        ) seen
    WHERE trial.study_id = :study_id
    ORDER BY trial.number
""")


def write(connection: Connection, study_id: int, priors: Sequence[Prior]) -> None:
    """Keep *priors* with a study, in this order."""
    if priors:
        rows = json.dumps([asdict(each) for each in priors], allow_nan=False)
        connection.execute(_WRITE, {"study_id": study_id, "rows": rows})


_WRITE = text("""
    INSERT INTO cubeopt.priors (
        study_id, place, source, number, spec, state, value, "values", metrics
    )
    SELECT :study_id, row_number() OVER () - 1, prior.*
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS prior(
        source text, number int, spec jsonb, state text, value float, "values" jsonb, metrics jsonb
    )
""")


def read(engine: Engine, study_id: int) -> list[Prior]:
    """Those of a study, in their order."""
    with transaction(engine) as connection:
        rows = connection.execute(_READ, {"study_id": study_id}).mappings()
        return [
            Prior(
                **{
                    **row,
                    "state": RunState(row["state"]),
                    "values": {int(epoch): value for epoch, value in row["values"].items()},
                }
            )
            for row in rows
        ]


_READ = text("""
    SELECT source, number, spec, state, value, "values", metrics
    FROM cubeopt.priors WHERE study_id = :study_id ORDER BY place
""")
