"""A study, its queue and the hands of a worker, in a database of the test's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cubeopt.db import leases, queue, records
from cubeopt.db.leases import EpochReport, Lease, RungQuestion, Verdict
from cubeopt.db.queue import Claim, NewTrial
from cubeopt.db.records import RunRecord, StudyRecord

DEVICE = "cpu"


def keep_all(question: RungQuestion) -> bool:
    return False


@dataclass(frozen=True)
class Hands:
    """The calls of a worker and a coordinator, with everything a test does not care about set."""

    engine: Engine
    worker_id: int

    def study(
        self,
        name: str = "study",
        rungs: Sequence[int] = (1, 2, 5),
        patience: int = 0,
        budget: dict[str, float] | None = None,
    ) -> StudyRecord:
        return records.create_study(
            self.engine,
            name=name,
            spec={
                "name": name,
                "rungs": {"epochs": list(rungs), **({"patience": patience} if patience else {})},
                **({"budget": budget} if budget else {}),
            },
            direction="minimize",
            metric="fvu",
            dataset="sample",
            dataset_fingerprint="f00d",
            dataset_rows={"train": 8, "validation": 1, "test": 1},
            baselines={"mean": 1.0, "identity": None, "pca": 0.8, "pca_width": 16},
            code_version="0.0.0",
        )

    def enqueue(
        self, study: StudyRecord, numbers: Sequence[int], pack_key: str = "a", target: int = 5
    ) -> bool:
        trials = [
            NewTrial(number, {"seed": number}, {"seed": number, "rate": 1e-3}, pack_key, target)
            for number in numbers
        ]
        return queue.enqueue(self.engine, study.id, trials)

    def claim(self, limit: int = 1, **options: Any) -> list[Claim]:
        settings = {"preferred_width": 8, "max_width": 8, "lease_seconds": 60.0, **options}
        provenance = {"torch": "0"}
        return queue.claim(
            self.engine, self.worker_id, limit, device=DEVICE, provenance=provenance, **settings
        )

    def report(
        self,
        claims: Claim | Sequence[Claim],
        epoch: int,
        value: float | None = 0.5,
        decide: Callable[[RungQuestion], bool] = keep_all,
        **extra: Any,
    ) -> dict[int, Verdict]:
        claims = [claims] if isinstance(claims, Claim) else claims
        extra.setdefault("metrics", {})
        reports = [EpochReport(one.run_id, one.token, epoch, value, **extra) for one in claims]
        return leases.report(self.engine, reports, decide)

    def complete(self, claim: Claim, value: float = 0.5, checkpoint: str = "short") -> None:
        verdicts = self.report(claim, claim.target_epochs, value, checkpoint=checkpoint)
        assert verdicts == {claim.run_id: Verdict.COMPLETE}

    def expire(self, *claims: Claim) -> None:
        """Let the leases of *claims* have run out a second ago."""
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE cubeopt.runs SET lease_expires_at = now() - interval '1 s' "
                    "WHERE id = ANY(:ids)"
                ),
                {"ids": [claim.run_id for claim in claims]},
            )

    def run(self, run_id: int) -> RunRecord:
        for study in records.studies(self.engine):
            for run in records.runs(self.engine, study.id):
                if run.id == run_id:
                    return run
        raise AssertionError(f"no run {run_id}")


def lease(claim: Claim) -> Lease:
    return Lease(claim.run_id, claim.token)


@pytest.fixture
def hands(engine: Engine) -> Hands:
    return Hands(engine, queue.register(engine, "host-1", "host", 1, DEVICE, {"torch": "0"}))
