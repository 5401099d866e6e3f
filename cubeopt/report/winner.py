"""The best run of a study, ready to be written as a configuration."""

from datetime import UTC, datetime
from typing import Any

from cubeopt import trial
from cubeopt.db.tables import RunKind
from cubeopt.errors import StudyError
from cubeopt.report import summary
from cubeopt.report.summary import Records
from cubeopt.search import export


def exported(found: Records) -> dict[str, Any]:
    """The content of the file that trains the best run again; StudyError when there is none yet."""
    best = summary.summarize(found.study, found.trials, found.runs).best
    if best is None:
        raise StudyError(
            f"study {found.study.name}: no trial has completed yet, so there is nothing to export; "
            "see 'cubeopt study show'"
        )
    run = next(
        each
        for each in found.runs
        if each.trial_number == best.trial and each.kind == RunKind(best.kind)
    )
    last = max(
        (each for each in found.attempts if each.run_id == run.id), key=lambda each: each.token
    )
    provenance = {
        "study": found.study.name,
        "trial": best.trial,
        "run": best.kind,
        "metric": found.study.metric,
        "value": best.value,
        "test_value": best.test_value,
        "epochs": best.epochs,
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
    return export.best_config(trial.from_flat(run.spec), provenance)
