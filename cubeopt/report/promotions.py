"""The promoted trials as rows: the value of each seed, their mean, and the short run before."""

from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.db.tables import RunState
from cubeopt.report import replicates
from cubeopt.report.material import Material
from cubeopt.search.objective import finite


@dataclass(frozen=True)
class Seed:
    """One full run of a promoted trial."""

    seed: int
    state: str
    epoch: int
    target_epochs: int
    value: float | None  # at its last validated epoch, complete or not
    test_value: float | None


@dataclass(frozen=True)
class Promoted:
    """A promoted trial; the mean is that of its complete seeds."""

    trial: int
    short: float | None
    mean: float | None
    spread: float | None  # standard deviation over the seeds, from two on
    test_mean: float | None
    missing: str  # what has no part in the mean
    seeds: list[Seed]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def promotions(found: Material) -> list[Promoted]:
    """One row for each promoted trial, the best mean first, those without one at the end."""
    short = {run.trial_number: run for run in found.short}
    sign = 1.0 if found.study.direction == "minimize" else -1.0
    full = replicates.by_trial(found.runs)
    rows = [
        Promoted(
            trial=each.trial,
            short=finite(short[each.trial].value),
            mean=each.value,
            spread=each.spread,
            test_mean=each.test_value,
            missing=each.missing,
            seeds=[
                Seed(
                    seed=run.spec["seed"],
                    state=str(run.state),
                    epoch=run.epoch,
                    target_epochs=run.target_epochs,
                    value=finite(run.value),
                    test_value=finite(run.test_value) if run.state == RunState.COMPLETE else None,
                )
                for run in sorted(full[each.trial], key=lambda run: run.replicate)
            ],
        )
        for each in replicates.replicates(found.runs)
    ]
    return sorted(rows, key=lambda row: (row.mean is None, sign * (row.mean or 0.0), row.trial))
