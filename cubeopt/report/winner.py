"""The best run of a study, ready to be written as a configuration."""

from datetime import UTC, datetime
from typing import Any

from cubeopt import trial
from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind
from cubeopt.errors import StudyError
from cubeopt.report import replicates, summary
from cubeopt.report.summary import Best, Records
from cubeopt.search import export


def exported(found: Records) -> dict[str, Any]:
    """The content of the file that trains the best run again; StudyError when there is none yet."""
    best = summary.summarize(found.study, found.trials, found.runs).best
    if best is None:
        raise StudyError(
            f"study {found.study.name}: no trial has completed yet, so there is nothing to export; "
            "see 'cubeopt study show'"
        )
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
        "test_value": run.test_value,
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


def _run(found: Records, best: Best) -> RunRecord:
    """The run that is trained again: over several seeds the first with a result."""
    if best.kind == RunKind.FULL:
        return replicates.complete(found.runs, best.trial)[0]
    return next(
        each
        for each in found.runs
        if each.trial_number == best.trial and each.kind == RunKind.SHORT
    )


def _over_seeds(found: Records, best: Best) -> dict[str, Any] | None:
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
