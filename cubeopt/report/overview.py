"""All studies at a glance, as plain rows."""

from collections.abc import Mapping

from cubeopt.db import budgets, measures, records
from cubeopt.db.engine import Engine
from cubeopt.report import summary
from cubeopt.report.summary import Row
from cubeopt.search import objective, study


def rows(engine: Engine) -> list[Row]:
    """One row for each study, the newest first."""
    held = records.held(engine)
    return [_row(engine, each, held) for each in reversed(records.studies(engine))]


def _row(engine: Engine, record: records.StudyRecord, held: Mapping[int, int]) -> Row:
    keys = objective.goal_of(record.spec).keys
    runs = records.runs(engine, record.id)
    short = summary.summarize(
        record,
        records.trials(engine, record.id),
        runs,
        measures.last(engine, record.id, keys),
    )
    return {
        "name": short.name,
        "state": short.state,
        "reason": short.state_reason,
        "trials": short.trials,
        "budget": study.planned(record.spec),
        "budgets": [
            {"name": each.name, "limit": each.limit, "used": each.used}
            for each in budgets.accounts(engine, record.id)
        ],
        "metric": short.metric,
        "direction": short.direction,
        "second": short.second,
        "best": short.best.value if short.best else None,
        "best_trial": short.best.trial if short.best else None,
        "front": len(short.front) if short.second else None,
        "baselines": short.baselines,
        "workers": len({run.worker_id for run in runs if run.worker_id in held}),
        "created": short.created,
    }
