"""All studies at a glance: few numbers of each, without reading its trials."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction


@dataclass(frozen=True)
class Glance:
    """What goes on in one study."""

    epochs: int  # recorded, of short and full runs
    full: int  # full runs
    full_ended: int
    workers: int  # that hold runs of it
    active_at: datetime | None  # when the last epoch was recorded, a run begun or ended


def glances(engine: Engine) -> dict[int, Glance]:
    """By the id of the study; each is there."""
    with transaction(engine) as connection:
        return {row[0]: Glance(*row[1:]) for row in connection.execute(_GLANCES)}


_GLANCES = text("""
    SELECT study.id,
        (SELECT count(*) FROM cubeopt.epochs epoch JOIN cubeopt.runs run ON run.id = epoch.run_id
            WHERE run.study_id = study.id),
        count(run.id) FILTER (WHERE run.kind = 'full'),
        count(run.id) FILTER (WHERE run.kind = 'full' AND run.finished_at IS NOT NULL),
        count(DISTINCT run.worker_id),
        greatest(max(run.finished_at), max(run.started_at), max(newest.created_at))
    FROM cubeopt.studies study
        LEFT JOIN cubeopt.runs run ON run.study_id = study.id
        LEFT JOIN LATERAL (
            SELECT created_at FROM cubeopt.epochs
            WHERE run_id = run.id AND run.state = 'running' ORDER BY epoch DESC LIMIT 1
        ) newest ON true
    GROUP BY study.id
""")
