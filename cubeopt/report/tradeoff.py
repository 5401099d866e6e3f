"""Two objectives against each other, as rows: each complete run, and who stands on the front."""

from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.db.tables import RunState
from cubeopt.report import ranking
from cubeopt.report.material import Material
from cubeopt.report.ranking import FrontRun
from cubeopt.search import objective
from cubeopt.search.objective import finite


@dataclass(frozen=True)
class Run:
    """A complete run by both objectives."""

    trial: int
    kind: str
    value: float
    second: float
    feasible: bool


@dataclass(frozen=True)
class Tradeoff:
    """A study with two objectives."""

    second: str
    direction: str  # of the second
    runs: list[Run]  # by trial; of full runs the one with the trial's own seed
    front: list[FrontRun]  # the best first value first; over several seeds the means

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def tradeoff(found: Material) -> Tradeoff | None:
    """None of a study with one objective."""
    goal, measured = found.goal, found.measured
    if goal.objective.second is None:
        return None
    runs = []
    for run in found.runs:
        metrics = ranking.reached(run, measured)
        value, second = finite(run.value), ranking.second_value(goal, metrics)
        if run.state != RunState.COMPLETE or run.replicate or value is None or second is None:
            continue
        kept = goal.feasible(metrics)
        runs.append(Run(run.trial_number, str(run.kind), value, second, kept))
    front = ranking.front(goal, found.trials, found.runs, measured)
    name = goal.objective.second
    return Tradeoff(name, objective.direction(name), runs, front)
