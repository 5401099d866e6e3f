"""The best run of a study, ready to be written as a configuration."""

from datetime import UTC, datetime
from typing import Any

from cubeopt import trial
from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind
from cubeopt.errors import StudyError, UnknownNameError
from cubeopt.report import ranking, replicates, summary
from cubeopt.report.material import Material
from cubeopt.report.ranking import Best
from cubeopt.report.summary import Records, Summary
from cubeopt.search import export
from cubeopt.search.objective import finite, key

Found = Records | Material
_SHOWN = 10  # candidates in an error


def exported(found: Found, number: int | None = None) -> dict[str, Any]:
    """The content of the file that trains a run again: of trial *number*, or else the best.

    StudyError when there is no such run yet, or when several are the best.
    """
    best = _chosen(found) if number is None else _of(found, number)
    run = _run(found, best)
    last = max(
        (each for each in found.attempts if each.run_id == run.id), key=lambda each: each.token
    )
    provenance = {
        "study": found.study.name,
        "trial": best.trial,
        "run": best.kind,
        "metric": found.study.metric,
        "value": run.value,
        "test_value": finite(run.test_value),
        **_others(found, run.id),
        "epochs": run.epoch,
        "seed": run.spec["seed"],
        "pack_width": run.width,
        "dataset_fingerprint": found.study.dataset_fingerprint,
        "code_version": last.provenance.get("code_version"),
        "torch_version": last.provenance.get("torch_version"),
        "hardware": last.provenance.get("hardware"),
        "threads": last.provenance.get("threads"),
        "device": last.device,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    over_seeds = _over_seeds(found, best)
    if over_seeds is not None:
        provenance["over_seeds"] = over_seeds
    return export.best_config(trial.from_flat(run.spec), provenance)


def heading(name: str, number: int | None, file: str) -> str:
    """What stands above it in *file*: what it is of the study *name*, how it is trained again."""
    which = "The best run" if number is None else f"Trial {number}"
    return (
        f"{which} of study {name}, as exported by cubeopt.\n"
        f"Train it again, from nothing, to the same value on the same kind of machine:\n"
        f"  cubeopt train --config {file} --experiment-name {name}-again --cpu"
    )


def _chosen(found: Found) -> Best:
    """The one best run."""
    short = summary.summarize(found.study, found.trials, found.runs, found.measured)
    where = f"study {found.study.name}"
    if len(short.front) == 1:
        return short.front[0]
    if short.front:
        raise StudyError(
            f"{where} has {len(short.front)} best runs, a front of {short.metric} and "
            f"{short.second}; say which with --trial N: {_listed(short)}"
        )
    if short.best is not None:
        return short.best
    nearest = ranking.nearest(found.goal, found.runs, found.measured)
    if nearest is not None:
        raise StudyError(f"{where}: {nearest}; --trial N exports one all the same")
    raise StudyError(
        f"{where}: no trial has completed yet, so there is nothing to export; "
        "see 'cubeopt study show'"
    )


def _listed(short: Summary) -> str:
    shown = [
        f"{each.trial} ({short.metric} {each.value:.4g}, {short.second} {each.second_value:.6g})"
        for each in short.front[:_SHOWN]
    ]
    if len(short.front) > _SHOWN:
        shown.append(f"and {len(short.front) - _SHOWN} more in 'cubeopt study show'")
    return ", ".join(shown)


def _of(found: Found, number: int) -> Best:
    """What trial *number* counts by, whatever it is worth."""
    numbers = [trial.number for trial in found.trials]
    if number not in numbers:
        known = f"it has {min(numbers)} to {max(numbers)}" if numbers else "it has none yet"
        raise UnknownNameError(f"study {found.study.name!r} has no trial {number}; {known}")
    best = ranking.of_trial(found.trials, found.runs, number)
    if best is None:
        raise StudyError(
            f"study {found.study.name}: trial {number} has no complete run, so there is nothing to "
            "export; see 'cubeopt study show'"
        )
    return best


def _run(found: Found, best: Best) -> RunRecord:
    """The run that is trained again: over several seeds the first with a result."""
    if best.kind == RunKind.FULL:
        return replicates.complete(found.runs, best.trial)[0]
    return next(
        each
        for each in found.runs
        if each.trial_number == best.trial and each.kind == RunKind.SHORT
    )


def _others(found: Found, run_id: int) -> dict[str, Any]:
    """What it was judged by beside the metric: the second objective, the constraints."""
    goal, metrics = found.goal, found.measured.get(run_id, {})
    names = dict.fromkeys([*goal.objective.names[1:], *(each.name for each in goal.constraints)])
    if not names:
        return {}
    return {"judged_by": {name: finite(metrics.get(key(name))) for name in names}}


def _over_seeds(found: Found, best: Best) -> dict[str, Any] | None:
    """What made the trial the best, if that was more than one full run."""
    its = [each for each in replicates.replicates(found.runs) if each.trial == best.trial]
    if not its or its[0].seeds == 1:
        return None
    (each,) = its
    values = {run.spec["seed"]: run.value for run in replicates.complete(found.runs, best.trial)}
    return {
        "mean": each.value,
        "spread": each.spread,
        "test_mean": each.test_value,
        "seeds": each.seeds,
        "complete": each.complete,
        "values": {str(seed): value for seed, value in values.items()},
        "missing": each.missing or None,
    }
