"""What never changes about a run, so that a process need not ask for it at each report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text

from cubeopt.db.tables import RunKind

_KEPT = 4096  # runs of a database


@dataclass(frozen=True)
class Facts:
    """A run, and the study it belongs to."""

    run_id: int
    trial_number: int
    study_id: int
    kind: RunKind
    replicate: int
    target_epochs: int
    study_spec: dict[str, Any]  # as it was then; only what `study revise` leaves alone is of use

    @classmethod
    def of(cls, claim: Any) -> "Facts":
        """Those that came with a claim."""
        return cls(**{each.name: getattr(claim, each.name) for each in fields(cls)})

    @property
    def order(self) -> tuple[int, int, RunKind, int]:
        """In which runs are judged."""
        return self.study_id, self.trial_number, self.kind, self.replicate

    @property
    def rungs(self) -> list[int]:
        """Epochs at which its short runs are compared; the last is their end."""
        return list(self.study_spec.get("rungs", {}).get("epochs", ()))


_kept: WeakKeyDictionary[Engine, dict[int, Facts]] = WeakKeyDictionary()


def remember(engine: Engine, facts: Iterable[Facts]) -> None:
    """Keep *facts*; of very many the oldest are forgotten."""
    kept = _kept.setdefault(engine, {})
    kept |= {each.run_id: each for each in facts}
    for run_id in list(kept)[:-_KEPT]:
        kept.pop(run_id, None)


def remembered(engine: Engine, run_ids: Iterable[int]) -> dict[int, Facts]:
    """Those of *run_ids* that this process knows."""
    kept = _kept.get(engine, {})
    return {run_id: kept[run_id] for run_id in run_ids if run_id in kept}


def read(connection: Connection, run_ids: Sequence[int]) -> list[Facts]:
    """Those of *run_ids* that there are."""
    rows = connection.execute(_READ, {"run_ids": list(run_ids)}).mappings()
    return [Facts(**{**row, "kind": RunKind(row["kind"])}) for row in rows]


_READ = text("""
    SELECT run.id AS run_id, trial.number AS trial_number, run.study_id, run.kind, run.replicate,
        run.target_epochs, study.spec AS study_spec
    FROM cubeopt.runs run
        JOIN cubeopt.trials trial ON trial.id = run.trial_id
        JOIN cubeopt.studies study ON study.id = run.study_id
    WHERE run.id = ANY(CAST(:run_ids AS bigint[]))
""")
