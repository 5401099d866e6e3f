"""What is best of a study now, as a row to send away."""

from typing import Any

from cubeopt.db import measures, records
from cubeopt.db.engine import Engine
from cubeopt.db.records import StudyRecord
from cubeopt.report import ranking
from cubeopt.report.ranking import Best
from cubeopt.search import objective

_LONGEST_FRONT = 50


def standing(engine: Engine, study: StudyRecord) -> dict[str, Any] | None:
    """{"best": ...}, or with two objectives {"front": [...]}; None where nothing is complete."""
    goal = objective.goal_of(study.spec)
    trials, runs = records.trials(engine, study.id), records.runs(engine, study.id)
    measured = measures.last(engine, study.id, goal.keys)
    if goal.objective.second is None:
        best = ranking.best(goal, trials, runs, measured)
        return None if best is None else {"best": _row(study, best)}
    front = ranking.front(goal, trials, runs, measured)[:_LONGEST_FRONT]
    rows = [
        {
            **_row(study, each),
            "second": goal.objective.second,
            "second_value": each.second_value,
        }
        for each in front
    ]
    return {"front": rows} if rows else None


def _row(study: StudyRecord, best: Best) -> dict[str, Any]:
    return {
        "trial": best.trial,
        "kind": best.kind,
        "epochs": best.epochs,
        "metric": study.metric,
        "value": best.value,
        "seeds": best.seeds,
        "baselines": {name: study.baselines.get(name) for name in ("mean", "pca")},
    }
