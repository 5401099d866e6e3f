"""The tables of the queue, in the schema "cubeopt"; Optuna's own stand beside them in "public".

Every timestamp comes from the clock of the database, because the clocks of workers differ.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA = "cubeopt"


class StudyState(StrEnum):
    """Where a study stands."""

    RUNNING = "running"  # its waiting runs may be claimed and new trials may be asked for
    PAUSED = "paused"  # a person holds it; its runs wait until it is resumed
    COMPLETE = "complete"  # every run has ended, or a budget is spent and the others wait
    STOPPED = "stopped"  # a person ended it early; its waiting runs stay where they are
    FAILED = "failed"  # too many errors; state_reason says which


class RunKind(StrEnum):
    """Which part of a trial's training a run is."""

    SHORT = "short"  # up to the last rung; its state is the state of the trial
    FULL = "full"  # a promoted trial to its last epoch; replicate 0 goes on from the short run


class RunState(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"  # in the queue, nobody's
    RUNNING = "running"  # leased by a worker
    COMPLETE = "complete"  # reached its target epochs
    PRUNED = "pruned"  # ended early by a rung or a person, or diverged
    FAILED = "failed"  # ended by errors, beyond the limit of retries


class EndClass(StrEnum):
    """How an attempt at a run ended."""

    DONE = "done"  # it reached the target epochs
    PRUNED = "pruned"  # a rung or a person ended it
    PREEMPTED = "preempted"  # the worker gave the lease back; retried for free
    LOST = "lost"  # the lease expired; retried for free
    OUT_OF_MEMORY = "out_of_memory"  # retried in a smaller pack; alone and still too big: failed
    DIVERGED = "diverged"  # its numbers became NaN or infinite: a bad result, not a failure
    ERROR = "error"  # retried to a limit, traceback kept


class WorkerState(StrEnum):
    """Whether a worker process is there."""

    LIVE = "live"  # it beats
    GONE = "gone"  # it said goodbye, or was silent for too long


class Kind(StrEnum):
    """What a message in the outbox tells."""

    STUDY_COMPLETE = "study_complete"
    STUDY_FAILED = "study_failed"
    STUDY_STOPPED = "study_stopped"
    NEW_BEST = "new_best"
    WORKER_LOST = "worker_lost"


class Post(StrEnum):
    """Where a message in the outbox stands."""

    WAITING = "waiting"  # to be sent, for the first time or again
    DELIVERED = "delivered"  # the receiver has said so
    GIVEN_UP = "given_up"  # the receiver did not take it for a day; last_error says why
    EXPIRED = "expired"  # nobody was told whom to send it to


class _Word(TypeDecorator[StrEnum]):
    """Text in the database, a member of *states* here."""

    impl = Text
    cache_ok = True

    def __init__(self, states: type[StrEnum]) -> None:
        super().__init__()
        self.states = states

    def process_result_value(self, value: Any | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.states(value)


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    values = ", ".join(f"'{state}'" for state in states)
    return CheckConstraint(f"{column} IN ({values})", name=column)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def _now(name: str) -> Column[datetime]:
    moment = DateTime(timezone=True)
    return Column(name, moment, nullable=False, server_default=func.clock_timestamp())


def _moment(name: str) -> Column[datetime]:
    return Column(name, DateTime(timezone=True))


metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    },
)

studies = Table(
    "studies",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("spec", JSONB, nullable=False),  # the content of the study file, as last revised
    Column("state", _Word(StudyState), nullable=False, server_default=StudyState.RUNNING),
    Column("state_reason", Text),
    Column("direction", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("dataset", Text, nullable=False),  # as named in the spec
    Column("dataset_fingerprint", Text, nullable=False),
    Column("dataset_rows", JSONB, nullable=False),  # train, validation, test
    Column("baselines", JSONB, nullable=False),  # mean, identity, pca, pca_width
    Column("code_version", Text, nullable=False),
    _now("created_at"),
    _moment("finished_at"),
    _now("state_since"),
    # In the state 'running', since the first claim, up to state_since: db.budgets.RAN_SECONDS.
    Column("ran_seconds", Float(53), nullable=False, server_default=text("0")),
    UniqueConstraint("name"),
    _one_of("state", StudyState),
    CheckConstraint("direction IN ('minimize', 'maximize')", name="direction"),
)

trials = Table(
    "trials",
    metadata,
    _id(),
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # Optuna's
    Column("params", JSONB, nullable=False),
    _now("created_at"),
    # A person wished for its params; False until the sampler has drawn what the wish leaves open.
    Column("drawn", Boolean, nullable=False, server_default=text("true")),
    Column("notes", JSONB, nullable=False, server_default=text("'{}'")),  # of the sampler
    # What Optuna's tables know of it already; -1: they lack it.
    Column("mirrored_epoch", Integer, nullable=False, server_default=text("-1")),
    Column("told", Boolean, nullable=False, server_default=text("false")),
    Column("reason", JSONB(none_as_null=True)),  # why it ended before its target
    UniqueConstraint("study_id", "number"),
    Index("trials_untold", "study_id", "number", postgresql_where=text("NOT told")),
    Index("trials_wished", "study_id", "number", postgresql_where=text("NOT drawn")),
)

# Trials of earlier studies that teach the sampler, as they were when the study was created.
priors = Table(
    "priors",
    metadata,
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),  # in which it is told of them
    Column("source", Text, nullable=False),  # the earlier study, which may be gone
    Column("number", Integer, nullable=False),  # there
    Column("spec", JSONB, nullable=False),  # a TrialSpec, flat
    Column("state", _Word(RunState), nullable=False),
    Column("value", Float(53)),  # the objective at the last epoch; NULL when it diverged
    Column("values", JSONB, nullable=False),  # by epoch
    Column("metrics", JSONB, nullable=False),  # at the last of them
    _one_of("state", RunState),
)

revisions = Table(
    "revisions",
    metadata,
    _id(),
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), nullable=False),
    Column("spec", JSONB, nullable=False),  # the content of the study file before
    _now("created_at"),
    Index("revisions_study", "study_id", "id"),
)

workers = Table(
    "workers",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text, nullable=False),
    _now("started_at"),
    _now("heartbeat_at"),
    Column("state", _Word(WorkerState), nullable=False, server_default=WorkerState.LIVE),
    Column("provenance", JSONB, nullable=False),
    _moment("drain_asked_at"),  # a person wants it to give back what it holds, and leave
    Column("lease_seconds", Float(53)),  # of its leases; NULL until it has beaten
    # What it waited for the answers to its claims: db.waits.
    Column("claims", BigInteger, nullable=False, server_default=text("0")),
    Column("claim_seconds", Float(53), nullable=False, server_default=text("0")),
    Column("claim_buckets", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    _one_of("state", WorkerState),
    Index("workers_live", "id", postgresql_where=text("state = 'live'")),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    Column("trial_id", ForeignKey(trials.c.id, ondelete="CASCADE"), nullable=False),
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), nullable=False),
    Column("kind", _Word(RunKind), nullable=False),
    Column("replicate", Integer, nullable=False, server_default=text("0")),  # of a full run: seeds
    Column("spec", JSONB, nullable=False),  # a TrialSpec, flat: all a worker needs
    Column("pack_key", Text, nullable=False),
    Column("target_epochs", Integer, nullable=False),
    Column("state", _Word(RunState), nullable=False, server_default=RunState.WAITING),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("width", Integer),  # of the pack; fixed at the first claim, part of the run's identity
    Column("token", BigInteger, nullable=False, server_default=text("0")),  # only ever grows
    Column("worker_id", ForeignKey(workers.c.id)),
    _moment("lease_expires_at"),
    Column("epoch", Integer, nullable=False, server_default=text("0")),  # the last one recorded
    Column("value", Float(53)),  # the objective at the last validated epoch
    Column("test_value", Float(53)),
    Column("checkpoint", Text),
    Column("checkpoint_epoch", Integer),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    # Its pack broke and nobody knows through whom: to be trained alone until it records an epoch.
    Column("suspect", Boolean, nullable=False, server_default=text("false")),
    _now("created_at"),
    _moment("started_at"),
    _moment("finished_at"),
    UniqueConstraint("trial_id", "kind", "replicate"),
    _one_of("kind", RunKind),
    _one_of("state", RunState),
    CheckConstraint("replicate = 0 OR replicate > 0 AND kind = 'full'", name="replicate"),
    CheckConstraint("target_epochs > 0", name="target_epochs"),
    CheckConstraint("width > 0", name="width"),
    CheckConstraint(
        "(state = 'running') = (worker_id IS NOT NULL) "
        "AND (state = 'running') = (lease_expires_at IS NOT NULL)",
        name="lease",
    ),
    # The two orders of a claim: any pack, or the refill of one that runs.
    Index("runs_waiting", text("priority DESC"), "id", postgresql_where=text("state = 'waiting'")),
    Index(
        "runs_waiting_pack",
        "pack_key",
        text("priority DESC"),
        "id",
        postgresql_where=text("state = 'waiting'"),
    ),
    # Not over lease_expires_at: a heartbeat then changes no index.
    Index("runs_running", "id", postgresql_where=text("state = 'running'")),
    Index("runs_study", "study_id", "kind", "state"),
    Index("runs_ended", "study_id", "finished_at", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    _id(),
    Column("run_id", ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("worker_id", ForeignKey(workers.c.id), nullable=False),
    _now("started_at"),
    _moment("ended_at"),
    Column("from_epoch", Integer, nullable=False),
    Column("end_class", _Word(EndClass)),
    Column("error", Text),
    Column("device", Text, nullable=False),
    Column("provenance", JSONB, nullable=False),
    UniqueConstraint("run_id", "token"),
    _one_of("end_class", EndClass),
    CheckConstraint("(ended_at IS NULL) = (end_class IS NULL)", name="end"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("run_id", ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("token", BigInteger, nullable=False),
    Column("value", Float(53)),
    Column("metrics", JSONB, nullable=False),
    _now("created_at"),
    # Rises, at a rung of one study, in the order in which the reports can be seen.
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Index("epochs_standing", "epoch", "id", postgresql_where=text("value IS NOT NULL")),
)

# What is to be told by --notify, written with the fact: db.outbox.
outbox = Table(
    "outbox",
    metadata,
    _id(),  # of one study in the order in which they are sent
    Column("event", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("kind", _Word(Kind), nullable=False),
    Column("study_id", ForeignKey(studies.c.id, ondelete="SET NULL")),
    Column("study", Text),  # its name; none of a worker
    Column("topic", Text),  # what is told once only
    Column("facts", JSONB, nullable=False),
    Column("body", Text),  # as it was first sent, and is sent again
    Column("state", _Word(Post), nullable=False, server_default=Post.WAITING),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    _now("created_at"),
    _now("due_at"),
    _moment("ended_at"),
    UniqueConstraint("topic"),
    _one_of("kind", Kind),
    _one_of("state", Post),
    CheckConstraint("(ended_at IS NULL) = (state = 'waiting')", name="end"),
    Index("outbox_waiting", "id", postgresql_where=text("state = 'waiting'")),
    Index("outbox_study", "study_id", "kind", "id"),
)
