"""A study as the storage gives it back, made of a few lines."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cubeopt.db.records import AttemptRecord, EpochRecord, RunRecord, StudyRecord, TrialRecord
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.emergence.findings import Finding
from cubeopt.emergence.record import Emergence, Flow, News, Ring, Step
from cubeopt.report.summary import Records

MOMENT = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)


class Story:
    """Collects trials, runs and epochs of one study, in the order they are told."""

    def __init__(self) -> None:
        self.trials: list[TrialRecord] = []
        self.runs: list[RunRecord] = []
        self.epochs: list[EpochRecord] = []
        self.attempts: list[AttemptRecord] = []

    def short(
        self, number: int, values: list[float | None], state: RunState, **changes: Any
    ) -> "Story":
        """Trial *number* with its short run, whose validation values by epoch are *values*.

        *metrics* are those of all its epochs.
        """
        params = changes.pop("params", {"learning_rate": 0.001 * (number + 1)})
        value = values[-1] if values else None
        self.trials.append(
            TrialRecord(
                id=100 + number,
                study_id=1,
                number=number,
                params=params,
                state=state,
                epoch=len(values),
                value=value,
                reason=None,
                created_at=MOMENT,
                started_at=None,
                finished_at=None,
            )
        )
        spec = {"seed": 0, **params}
        self._run(number, RunKind.SHORT, values, 1, state, spec, changes)
        return self

    def full(
        self, number: int, values: list[float | None], state: RunState, **changes: Any
    ) -> "Story":
        """A full run of trial *number*; replicate 0 goes on where its short run ended."""
        short = next(run for run in self.runs if run.trial_number == number)
        replicate = changes.get("replicate", 0)
        first = 1 if replicate else short.epoch + 1
        spec = {**short.spec, "seed": short.spec["seed"] + replicate}
        self._run(number, RunKind.FULL, values, first, state, spec, changes)
        return self

    def records(self, **study: Any) -> Records:
        values = {
            "id": 1,
            "name": "quickstart",
            "spec": {"name": "quickstart", "rungs": {"epochs": [1, 2, 5]}},
            "state": StudyState.COMPLETE,
            "state_reason": None,
            "direction": "minimize",
            "metric": "fvu",
            "dataset": "quickstart",
            "dataset_fingerprint": "f" * 64,
            "dataset_rows": {"train": 800, "validation": 100, "test": 90},
            "baselines": {"mean": 1.0, "identity": None, "pca": 0.81, "pca_width": 16},
            "code_version": "0.1.0",
            "created_at": MOMENT,
            "finished_at": None,
            "state_since": MOMENT,
            "ran_seconds": 0.0,
        }
        values |= study
        values["spec"] = {"objective": {"metric": values["metric"]}, **values["spec"]}
        return Records(
            study=StudyRecord(**values),
            trials=self.trials,
            runs=self.runs,
            epochs=self.epochs,
            attempts=self.attempts,
            budgets=[],
        )

    def _run(
        self,
        number: int,
        kind: RunKind,
        values: list[float | None],
        first: int,
        state: RunState,
        spec: dict[str, Any],
        changes: dict[str, Any],
    ) -> None:
        replicate = changes.get("replicate", 0)
        run_id = 1000 + 10 * number + (kind == RunKind.FULL) + replicate
        fields = {
            "id": run_id,
            "trial_id": 100 + number,
            "trial_number": number,
            "study_id": 1,
            "kind": kind,
            "replicate": 0,
            "spec": spec,
            "pack_key": "k",
            "target_epochs": 50 if kind == RunKind.FULL else 5,
            "state": state,
            "priority": 0,
            "width": 4,
            "token": 1,
            "worker_id": None,
            "lease_expires_at": None,
            "epoch": first + len(values) - 1,
            "value": values[-1] if values else None,
            "test_value": None,
            "checkpoint": None,
            "checkpoint_epoch": None,
            "failures": 0,
            "suspect": False,
            "created_at": MOMENT,
            "started_at": None,
            "finished_at": None,
            "end_class": None,
        }
        tries, metrics = changes.pop("attempts", 1), changes.pop("metrics", {})
        self.runs.append(RunRecord(**{**fields, **changes}))
        for epoch, value in enumerate(values, first):
            self.epochs.append(
                EpochRecord(
                    run_id=run_id,
                    trial_number=number,
                    kind=kind,
                    epoch=epoch,
                    token=1,
                    value=value,
                    metrics={"validation/fvu": value, **metrics},
                    created_at=MOMENT,
                )
            )
        for token in range(1, tries + 1):
            self.attempts.append(
                AttemptRecord(
                    id=len(self.attempts),
                    run_id=run_id,
                    trial_number=number,
                    kind=kind,
                    token=token,
                    worker_id=1,
                    started_at=MOMENT,
                    ended_at=MOMENT,
                    from_epoch=0,
                    end_class=EndClass.DONE,
                    error=None,
                    device="cpu",
                    provenance={},
                )
            )


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def found() -> Emergence:
    """A cube of 2x1x2 cells and one step, cut in the middle."""
    shares = {"local": [0.9, 0.2, 0.5, 0.1], "distant": [0.1, 0.8, 0.5, 0.9]}
    rings = [Ring(0.0, 2, 0, 1.0), Ring(1.0, 2, None, 0.0)]
    news = News("input", [[1.0, 0.0, 1.0, 0.0], [0.1, 0.0, 10.0, 0.0]], None, None, rings)
    return Emergence(
        checkpoint="<there>",
        epoch=3,
        dataset="d",
        dataset_fingerprint="f" * 64,
        rows=5,
        validation_rows=9,
        size=(2, 1, 2),
        placement="opposite_faces",
        gate="learned",
        halting="fixed",
        experts=["local", "distant"],
        written=[0, 2],
        read=[1, 3],
        metrics={"usage/local": 42.5, "gate_entropy": 0.5},
        steps=[
            Step(0, 1.0, None, None, [1.0, 0.0, 1.0, 0.0], [0.0] * 4),
            Step(1, 1.0, shares, [0.4, 0.7, 1.0, 0.4], [2.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, 0.5]),
        ],
        tasks=None,
        flow=Flow(0.01, 2, 0.0, 0.0, [[0.0] * 4] * 2, [news]),
        findings=[Finding("cut", "", True, "nothing <arrives>")],
    )
