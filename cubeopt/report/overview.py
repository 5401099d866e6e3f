"""All studies at a glance, as plain rows."""

from datetime import datetime

from cubeopt.db import budgets, glance, measures, records, stamps
from cubeopt.db.engine import Engine
from cubeopt.db.glance import Glance
from cubeopt.db.records import StudyRecord
from cubeopt.report import baselines, summary
from cubeopt.report.summary import Row, Summary
from cubeopt.search import objective, study


class Overview:
    """Reads all studies; of one in which nothing has changed it remembers the summary."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[int, tuple[str, Summary]] = {}

    def rows(self) -> list[Row]:
        """One row for each study, the newest first."""
        studies = records.studies(self._engine)
        glances = glance.glances(self._engine)
        ids = {each.id for each in studies}
        self._kept = {id: kept for id, kept in self._kept.items() if id in ids}
        return [
            self._row(each, glances[each.id]) for each in reversed(studies) if each.id in glances
        ]

    def _row(self, record: StudyRecord, seen: Glance) -> Row:
        short = self._summary(record)
        best = short.best
        return {
            "name": record.name,
            "state": str(record.state),
            "reason": record.state_reason,
            "trials": short.trials,
            "budget": study.planned(record.spec),
            "budgets": [
                {"name": each.name, "limit": each.limit, "used": each.used}
                for each in budgets.accounts(self._engine, record.id)
            ],
            "epochs": seen.epochs,
            "full_runs": seen.full,
            "full_runs_ended": seen.full_ended,
            "metric": short.metric,
            "direction": short.direction,
            "second": short.second,
            "best": best.value if best else None,
            "best_trial": best.trial if best else None,
            "best_kind": best.kind if best else None,
            "front": len(short.front) if short.second else None,
            "baselines": [{"name": name, "value": value} for name, value in baselines.named(short)],
            "warnings": short.warnings,
            "workers": seen.workers,
            "dataset": record.dataset,
            "created": record.created_at.isoformat(timespec="seconds"),
            "active": _moment(seen.active_at),
        }

    def _summary(self, record: StudyRecord) -> Summary:
        stamp = stamps.stamp(self._engine, record.name) or ""
        kept = self._kept.get(record.id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        keys = objective.goal_of(record.spec).keys
        short = summary.summarize(
            record,
            records.trials(self._engine, record.id),
            records.runs(self._engine, record.id),
            measures.last(self._engine, record.id, keys),
        )
        self._kept[record.id] = stamp, short
        return short


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
