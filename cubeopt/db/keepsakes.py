"""Runs that have left a checkpoint, in the few columns that say where it is."""

from dataclasses import dataclass

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.tables import RunKind, RunState


@dataclass(frozen=True)
class Keepsake:
    """A run with a checkpoint."""

    trial: int
    kind: RunKind
    replicate: int
    state: RunState
    epoch: int
    value: float | None
    checkpoint: str


def of_study(engine: Engine, study_id: int, trial: int | None = None) -> list[Keepsake]:
    """Those of a study, or of one *trial* of it."""
    with transaction(engine) as connection:
        rows = connection.execute(_SELECT, {"study_id": study_id, "trial": trial}).all()
    return [
        Keepsake(number, RunKind(kind), replicate, RunState(state), *rest)
        for number, kind, replicate, state, *rest in rows
    ]


_SELECT = text("""
    SELECT trial.number, CAST(run.kind AS text), run.replicate, CAST(run.state AS text),
        run.epoch, run.value, run.checkpoint
    FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
    WHERE run.study_id = :study_id AND run.checkpoint IS NOT NULL
        AND (CAST(:trial AS int) IS NULL OR trial.number = :trial)
    ORDER BY trial.number, run.kind, run.replicate
""")
