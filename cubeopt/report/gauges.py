"""The numbers for machines that watch, as rows: families of samples as Prometheus has them.

Names and units follow its conventions: seconds, `_total` for what only grows, one meaning a family.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cubeopt.db.census import Census, StudyCensus
from cubeopt.db.tables import EndClass, Kind, Post, RunKind, RunState
from cubeopt.db.waits import BOUNDS

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """One number."""

    labels: Labels
    value: float


@dataclass(frozen=True)
class Histogram:
    """How many took at most so long: by bound in seconds, "+Inf" last; and all together."""

    buckets: Mapping[str, int]
    sum: float


@dataclass(frozen=True)
class Family:
    """All samples of one name; the name of a counter stands without its `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...] = ()
    histogram: Histogram | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def families(census: Census, build: Labels) -> list[Family]:
    """Every family; *build* says which cubeopt this is."""
    return [
        _one("build_info", "gauge", "The cubeopt that tells this.", 1, build),
        *_of_studies(census),
        *_of_workers(census),
        _claims(census),
        *_of_the_leader(census),
        _messages(census),
    ]


def _of_studies(census: Census) -> list[Family]:
    studies = census.studies
    return [
        Family(
            "cubeopt_studies",
            "gauge",
            "Studies by state.",
            tuple(Sample({"state": s}, n) for s, n in census.studies_by_state.items()),
        ),
        Family(
            "cubeopt_trials",
            "gauge",
            "Trials by study and state; 'wished' waits for its draw. Studies that ended more than "
            "a day ago are not told of, here and below.",
            tuple(sample for each in studies for sample in _trials(each)),
        ),
        Family(
            "cubeopt_runs",
            "gauge",
            "Runs by study, kind (short: of a trial; full: of a promoted one) and state.",
            tuple(
                Sample(
                    {"study": each.name, "kind": kind, "state": state},
                    each.runs.get((kind, state), 0),
                )
                for each in studies
                for kind in RunKind
                for state in RunState
            ),
        ),
        Family(
            "cubeopt_queue_depth",
            "gauge",
            "Runs that wait for a worker, by study; none of a study that does not run.",
            tuple(Sample({"study": each.name}, each.waiting) for each in studies),
        ),
        Family(
            "cubeopt_epochs",
            "counter",
            "Epochs recorded, by study.",
            tuple(Sample({"study": each.name}, each.epochs) for each in studies),
        ),
        Family(
            "cubeopt_device_seconds",
            "counter",
            "Seconds in which workers held runs, by study; a pack counts once.",
            tuple(Sample({"study": each.name}, each.device_seconds) for each in studies),
        ),
        Family(
            "cubeopt_attempts",
            "counter",
            "Attempts at runs that have ended, by study and class of the end; failures are error, "
            "out_of_memory and lost.",
            tuple(
                Sample({"study": each.name, "class": end}, each.attempts.get(end, 0))
                for each in studies
                for end in EndClass
            ),
        ),
    ]


def _trials(study: StudyCensus) -> list[Sample]:
    counts = {str(state): study.runs.get((RunKind.SHORT, state), 0) for state in RunState}
    counts["wished"] = study.wished
    return [Sample({"study": study.name, "state": state}, count) for state, count in counts.items()]


def _of_workers(census: Census) -> list[Family]:
    workers = census.workers
    return [
        _one("workers", "gauge", "Workers that live.", census.live_workers),
        Family(
            "cubeopt_worker_heartbeat_age_seconds",
            "gauge",
            "Seconds since a live worker's last heartbeat, by the clock of the database.",
            tuple(Sample({"worker": each.name}, each.silent_seconds) for each in workers),
        ),
        Family(
            "cubeopt_worker_leases",
            "gauge",
            "Runs that a live worker holds.",
            tuple(
                Sample({"worker": each.name, "device": each.device}, each.leases)
                for each in workers
            ),
        ),
        Family(
            "cubeopt_worker_draining",
            "gauge",
            "Whether a person has asked a live worker to leave.",
            tuple(Sample({"worker": each.name}, int(each.draining)) for each in workers),
        ),
        _one(
            "leases_expired",
            "gauge",
            "Leases that have run out and were not taken back yet: for long only where none leads.",
            census.expired_leases,
        ),
    ]


def _claims(census: Census) -> Family:
    bounds = [*(format(bound, "g") for bound in BOUNDS), "+Inf"]
    at_most = dict(zip(bounds, census.claims.at_most, strict=True))
    return Family(
        "cubeopt_claim_duration_seconds",
        "histogram",
        "What workers waited for the answers to their claims; told with their heartbeats.",
        histogram=Histogram(at_most, census.claims.seconds),
    )


def _of_the_leader(census: Census) -> list[Family]:
    age = census.leader_silent_seconds
    known = () if age is None else (Sample({}, age),)
    return [
        _one("leader", "gauge", "Whether a coordinator leads.", int(census.led)),
        Family(
            "cubeopt_leader_heartbeat_age_seconds",
            "gauge",
            "Seconds since the leader's last sign of life; it gives one every three.",
            known,
        ),
    ]


def _messages(census: Census) -> Family:
    return Family(
        "cubeopt_messages",
        "gauge",
        "Messages of --notify in the last week, by kind and state.",
        tuple(
            Sample({"kind": kind, "state": state}, census.messages.get((kind, state), 0))
            for kind in Kind
            for state in Post
        ),
    )


def _one(
    name: str,
    kind: Literal["counter", "gauge"],
    help_: str,
    value: float,
    labels: Labels | None = None,
) -> Family:
    return Family(f"cubeopt_{name}", kind, help_, (Sample(labels or {}, value),))
