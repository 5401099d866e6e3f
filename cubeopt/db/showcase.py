"""Trials in Optuna's tables, written and read many in one statement.

Optuna's own storage writes a trial by some thirty statements (12 ms of CPU for four values and five
epochs). What is written here reads back as what it would have written; a test compares them.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, TextClause, text

from cubeopt.db.engine import transaction


def show(
    engine: Engine, study_id: int, trials: Sequence[Mapping[str, Any]], ids: Mapping[int, int]
) -> dict[int, int]:
    """Write new *trials* of Optuna's study *study_id*, and what is new of those that have *ids*.

    A trial is its number, state, begun and finished (with a time zone), params (name, number and
    distribution of each), reached (epoch and value), values and attributes (name and JSON of each).
    Of a trial that Optuna has as ended nothing is changed. Returns the ids of those that have not
    ended, by number. Raises KeyError, as Optuna would, when somebody has deleted the study.
    """
    if not trials:
        return {}
    rows = [{**trial, "trial_id": ids.get(trial["number"])} for trial in trials]
    values = {"study_id": study_id, "rows": json.dumps(rows, allow_nan=False)}
    with transaction(engine) as connection:
        if connection.execute(_LOCK, values).first() is None:
            raise KeyError(f"Optuna has no study {study_id}")
        return {number: trial_id for number, trial_id in connection.execute(_SHOW, values)}


# As Optuna does before it gives a number.
_LOCK = text("SELECT study_id FROM public.studies WHERE study_id = :study_id FOR UPDATE")

_SHOW = text("""
    WITH shown AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS shown(
            trial_id int, number int, state text, begun timestamptz, finished timestamptz,
            params jsonb, reached jsonb, "values" jsonb, attributes jsonb
        )
    ), created AS (
        INSERT INTO public.trials (number, study_id, state, datetime_start, datetime_complete)
        SELECT number, :study_id, CAST(state AS public.trialstate), begun AT TIME ZONE 'UTC',
            finished AT TIME ZONE 'UTC'
        FROM shown WHERE trial_id IS NULL ORDER BY number
        RETURNING trial_id, number
    ), moved AS (
        UPDATE public.trials trial
        SET state = CAST(shown.state AS public.trialstate),
            datetime_complete = shown.finished AT TIME ZONE 'UTC'
        FROM shown
        WHERE trial.trial_id = shown.trial_id AND trial.state IN ('RUNNING', 'WAITING')
        RETURNING trial.trial_id, trial.number
    ), open AS (
        SELECT * FROM created UNION ALL SELECT * FROM moved
    ), params AS (
        INSERT INTO public.trial_params (trial_id, param_name, param_value, distribution_json)
        SELECT created.trial_id, each->>0, CAST(each->>1 AS float), each->>2
        FROM created JOIN shown USING (number),
            jsonb_array_elements(params) WITH ORDINALITY AS each(each, place)
        ORDER BY created.number, place
    ), reached AS (
        INSERT INTO public.trial_intermediate_values (
            trial_id, step, intermediate_value, intermediate_value_type
        )
        SELECT open.trial_id, CAST(each->>0 AS int), CAST(each->>1 AS float), 'FINITE'
        FROM open JOIN shown USING (number), jsonb_array_elements(reached) AS each
        ON CONFLICT (trial_id, step) DO NOTHING
    ), given AS (
        INSERT INTO public.trial_values (trial_id, objective, value, value_type)
        SELECT open.trial_id, place - 1, CAST(each AS float), 'FINITE'
        FROM open JOIN shown USING (number),
            jsonb_array_elements("values") WITH ORDINALITY AS each(each, place)
        ON CONFLICT (trial_id, objective) DO NOTHING
    ), noted AS (
        INSERT INTO public.trial_system_attributes (trial_id, key, value_json)
        SELECT open.trial_id, each->>0, each->>1
        FROM open JOIN shown USING (number), jsonb_array_elements(attributes) AS each
        ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
    )
    SELECT open.number, open.trial_id FROM open JOIN shown USING (number)
    WHERE shown.state IN ('RUNNING', 'WAITING')
""")


@dataclass(frozen=True)
class Shown:
    """A trial as Optuna's tables have it."""

    trial_id: int
    number: int
    state: str
    begun: datetime | None  # UTC, without a zone
    finished: datetime | None
    params: list[tuple[str, float, str]] = field(default_factory=list)  # name, number, distribution
    reached: dict[int, float] = field(default_factory=dict)  # value by epoch
    values: list[float] = field(default_factory=list)
    user_attributes: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


def ids(engine: Engine) -> dict[str, int]:
    """Optuna's id of each study in its tables, by name."""
    with transaction(engine) as connection:
        return {name: study_id for name, study_id in connection.execute(_IDS)}


_IDS = text("SELECT study_name, study_id FROM public.studies")


def read(engine: Engine, study_id: int, after: int, opened: Collection[int]) -> list[Shown]:
    """The trials of Optuna's study *study_id* with ids above *after* or among *opened*, by id."""
    given = {"study_id": study_id, "after": after, "opened": list(opened)}
    with transaction(engine) as connection:
        # A trial whose state is read as ended has all it ever will, in what is read after it.
        trials = [Shown(*row) for row in connection.execute(_TRIALS, given)]
        if not trials:
            return []
        rows = {name: connection.execute(each, given).all() for name, each in _PARTS.items()}
    found = {each.trial_id: each for each in trials}
    for trial_id, name, number, distribution in rows["params"]:
        found[trial_id].params.append((name, number, distribution))
    for trial_id, epoch, value, kind in rows["reached"]:
        found[trial_id].reached[epoch] = _number(value, kind)
    for trial_id, value, kind in rows["values"]:
        found[trial_id].values.append(_number(value, kind))
    for trial_id, key, content in rows["user_attributes"]:
        found[trial_id].user_attributes[key] = json.loads(content)
    for trial_id, key, content in rows["attributes"]:
        found[trial_id].attributes[key] = json.loads(content)
    return trials


def _number(value: float | None, kind: str) -> float:
    return value if value is not None else _NUMBERS[kind]


_NUMBERS = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
_CHOSEN = (
    "trial.study_id = :study_id AND (trial.trial_id > :after OR trial.trial_id = ANY(:opened))"
)
_TRIALS = text(f"""
    SELECT trial_id, number, CAST(state AS text), datetime_start, datetime_complete
    FROM public.trials trial WHERE {_CHOSEN} ORDER BY trial_id
""")


def _part(table: str, columns: str, order: str) -> TextClause:
    return text(f"""
        SELECT trial_id, {columns} FROM public.{table} JOIN public.trials trial USING (trial_id)
        WHERE {_CHOSEN} ORDER BY {order}
    """)


_PARTS = {
    "params": _part("trial_params", "param_name, param_value, distribution_json", "param_id"),
    "reached": _part(
        "trial_intermediate_values",
        "step, intermediate_value, CAST(intermediate_value_type AS text)",
        "trial_intermediate_value_id",
    ),
    "values": _part("trial_values", "value, CAST(value_type AS text)", "objective"),
    "user_attributes": _part("trial_user_attributes", "key, value_json", "key"),
    "attributes": _part("trial_system_attributes", "key, value_json", "key"),
}
