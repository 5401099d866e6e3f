"""PostgreSQL goes away while a worker trains: what was trained is not lost, and nothing doubles."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from cubeopt.db import queue, records
from cubeopt.db.engine import optuna_url
from cubeopt.db.queue import Claim
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.errors import CheckpointError, StorageLostError
from cubeopt.search import mirror
from cubeopt.service.coordinator import Coordinator
from cubeopt.service.events import Event, Happening
from cubeopt.service.shelf import Shelf
from cubeopt.settings import Settings
from cubeopt.training.loop import PackRun

from .conftest import Create, Work

PACK = 4
STEPS = 10  # of an epoch
RUNGS = {"epochs": [1, 2, 3], "reduction_factor": 2.0}


class Door:
    """The way into one database: shut, it throws everybody out and lets nobody in."""

    def __init__(self, url: str) -> None:
        self._name = url.partition("?")[0].rpartition("/")[2]
        self._url = url.replace(f"/{self._name}?", "/postgres?")

    def shut(self) -> None:
        self._say(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
        self._say(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'"
        )

    def open(self) -> None:
        self._say(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")

    def _say(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as session:
            session.execute(statement)


@pytest.fixture
def door(database_url: str) -> Door:
    return Door(database_url)


@pytest.fixture
def asked(engine: Engine, create: Create) -> Callable[..., StudyRecord]:
    """Create the tiny study, with all its trials in the queue and no coordinator."""

    def made(**changes: Any) -> StudyRecord:
        values = {"rungs": RUNGS, "budget": {"trials": PACK}, "promotion": {"top": 0}, **changes}
        record = create(**values)
        storage = mirror.open_storage(optuna_url(engine))
        Coordinator(engine, storage).tick()
        storage.engine.dispose()
        assert records.counts(engine, record.id)[RunState.WAITING] == PACK
        return record

    return made


def found(engine: Engine, record: StudyRecord) -> list[Any]:
    """What became of a study, without times."""
    assert records.study(engine, record.name).state is StudyState.COMPLETE
    runs = [
        (run.trial_number, run.kind, run.state, run.epoch, run.value)
        for run in records.runs(engine, record.id)
    ]
    epochs = [
        (each.trial_number, each.epoch, each.value) for each in records.epochs(engine, record.id)
    ]
    return [runs, epochs]


def after_steps(monkeypatch: pytest.MonkeyPatch, actions: dict[int, Callable[[], None]]) -> None:
    """Do each action once, when a pack has trained so many steps."""
    step, count = PackRun.step, 0

    def counted(self: PackRun) -> Any:
        nonlocal count
        ends = step(self)
        if self.busy:
            count += 1
        if count in actions:
            actions.pop(count)()
        return ends

    monkeypatch.setattr(PackRun, "step", counted)


def test_what_was_trained_beyond_a_budget_while_nobody_heard_counts_for_nothing(
    engine: Engine,
    settings: Settings,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four runs train their three epochs unheard, then there is room for ten of the twelve."""
    rungs = {**RUNGS, "rule": "none"}
    calm = asked(name="calm", rungs=rungs)
    work(pack=PACK)
    record = asked(rungs=rungs, budget={"trials": PACK, "epochs": 10})
    timer = threading.Timer(2.0, door.open)
    after_steps(monkeypatch, {STEPS // 2: door.shut, 3 * STEPS - 1: timer.start})
    work(pack=PACK, lease_seconds=60.0)
    study = records.study(engine, record.name)
    assert study.state_reason == "budget.epochs is spent: 10 of 10 used; 2 runs unfinished"
    runs = records.runs(engine, record.id)
    left = [run for run in runs if run.state is RunState.WAITING]
    assert [(run.epoch, run.checkpoint_epoch) for run in left] == [(2, 2), (2, 2)]
    for run in left:
        (path,) = (settings.checkpoints_dir / run.checkpoint).parent.iterdir()
        assert path.name == "epoch_00002.t1"
    assert len(records.epochs(engine, record.id)) == 10
    with engine.begin() as connection:  # as if the budget had been larger
        connection.execute(
            text("""
                UPDATE cubeopt.studies SET state = 'running',
                    spec = jsonb_set(spec, '{budget,epochs}', '99') WHERE name = 'tiny'
            """)
        )
    work(pack=PACK)
    assert found(engine, record) == found(engine, calm)


@pytest.mark.parametrize("rule", ["none", "asha"])
def test_training_goes_on_without_a_storage_and_all_reports_are_heard_in_the_end(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
) -> None:
    rungs = {**RUNGS, "rule": rule}
    calm = asked(name="calm", rungs=rungs)
    work(pack=PACK)
    record = asked(rungs=rungs)
    opened: list[int] = []

    def open_again() -> None:
        opened.append(len(records_of_outage))
        door.open()

    records_of_outage: list[Event] = []
    # In the middle of the first epoch, and when all have trained to their last.
    timer = threading.Timer(2.0, open_again)
    after_steps(monkeypatch, {STEPS // 2: door.shut, 3 * STEPS - 1: timer.start})
    told = work(pack=PACK, lease_seconds=60.0, tell=records_of_outage.append)
    assert opened == [PACK]  # nothing but the starts was told before the storage was back
    assert found(engine, record) == found(engine, calm)
    attempts = records.attempts(engine, record.id)
    assert len(attempts) == PACK
    ends = {each.end_class for each in attempts}
    assert ends == ({EndClass.DONE} if rule == "none" else {EndClass.DONE, EndClass.PRUNED})
    assert Happening.ABANDONED not in {event.what for event in told}


def test_without_a_storage_for_longer_than_the_lease_the_worker_stops_and_nothing_doubles(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm = asked(name="calm")
    work(pack=PACK)
    record = asked()
    after_steps(monkeypatch, {STEPS + STEPS // 2: door.shut})
    told: list[Event] = []
    with pytest.raises(StorageLostError, match=r"not answered for \d+ s, and this worker waits"):
        work(pack=PACK, lease_seconds=2.0, tell=told.append)
    assert [event.what for event in told].count(Happening.ABANDONED) >= 1
    door.open()
    queue.reap(engine)
    work(pack=PACK)
    assert found(engine, record) == found(engine, calm)
    ends = [each.end_class for each in records.attempts(engine, record.id)]
    assert EndClass.LOST in ends
    assert set(ends) <= {EndClass.LOST, EndClass.DONE, EndClass.PRUNED}


def test_a_worker_that_may_wait_outlives_an_outage_longer_than_its_lease(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calm = asked(name="calm")
    work(pack=PACK)
    record = asked()
    after_steps(monkeypatch, {STEPS + STEPS // 2: door.shut})
    timers = []

    def tell(event: Event) -> None:
        if event.what is Happening.ABANDONED and not timers:
            timers.append(threading.Timer(1.0, door.open))
            timers[0].start()

    told = work(pack=PACK, lease_seconds=2.0, outage_seconds=600.0, tell=tell)
    assert timers
    assert found(engine, record) == found(engine, calm)
    started = [event for event in told if event.what is Happening.STARTED]
    assert len(started) > PACK


def test_what_breaks_while_the_storage_is_gone_is_trained_again_and_held_by_nobody(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs that joined the pack later: their leases are not those it began with."""
    rungs = {**RUNGS, "rule": "none"}
    calm = asked(name="calm", rungs=rungs)
    work(pack=PACK // 2)
    record = asked(rungs=rungs)

    def breaks() -> None:
        door.shut()
        threading.Timer(0.5, door.open).start()
        raise RuntimeError("a device that trembled")

    stop = threading.Event()
    guard = threading.Timer(300.0, stop.set)
    guard.start()
    after_steps(monkeypatch, {3 * STEPS + STEPS // 2: breaks})
    work(stop, pack=PACK // 2, lease_seconds=2.0, outage_seconds=600.0)
    guard.cancel()
    assert found(engine, record) == found(engine, calm)
    ends = [each.end_class for each in records.attempts(engine, record.id)]
    assert ends == [EndClass.DONE] * 2 + [EndClass.LOST] * 2 + [EndClass.DONE] * 2


def test_a_run_whose_report_breaks_while_the_storage_is_gone_takes_no_epoch_from_others(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rungs = {**RUNGS, "rule": "none"}
    calm = asked(name="calm", rungs=rungs)
    work(pack=PACK)
    record = asked(rungs=rungs)
    put, broken = Shelf.put, []

    def breaks(self: Shelf, run: PackRun, claim: Claim, slot: int, *rest: Any) -> str:
        if run.steps_done(slot) == 2 * STEPS and not broken:  # the first of four
            broken.append(claim.trial_number)
            raise RuntimeError("no such layer")
        return put(self, run, claim, slot, *rest)

    monkeypatch.setattr(Shelf, "put", breaks)
    timer = threading.Timer(0.5, door.open)
    after_steps(monkeypatch, {STEPS + STEPS // 2: door.shut, 2 * STEPS: timer.start})
    work(pack=PACK, lease_seconds=4.0, outage_seconds=600.0)
    assert broken == [0]
    assert found(engine, record) == found(engine, calm)


def test_a_worker_told_to_leave_while_the_storage_is_gone_leaves(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = asked()
    stop = threading.Event()
    after_steps(monkeypatch, {STEPS + 2: door.shut, 2 * STEPS + 2: stop.set})
    work(stop, pack=PACK)
    assert "leases will expire" in caplog.text
    door.open()
    runs = records.runs(engine, record.id)
    assert {run.epoch for run in runs} == {1}
    assert RunState.RUNNING in {run.state for run in runs}


def test_a_worker_that_cannot_write_begins_nothing(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    settings: Any,
) -> None:
    record = asked()
    settings.checkpoints_dir.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*/checkpoints: "):
        work()
    assert records.attempts(engine, record.id) == []


def test_a_worker_whose_disk_fails_gives_its_runs_back_and_says_why(
    engine: Engine,
    asked: Callable[..., StudyRecord],
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = asked(rungs={"epochs": [1, 2, 3], "rule": "none"})
    put, written = Shelf.put, []

    def full(self: Shelf, *arguments: Any) -> str:
        if len(written) == PACK + 1:  # within the second epoch's reports
            raise CheckpointError("cannot write: No space left on device")
        written.append(None)
        return put(self, *arguments)

    monkeypatch.setattr(Shelf, "put", full)
    with pytest.raises(CheckpointError, match="No space left"):
        work(pack=PACK)
    runs = records.runs(engine, record.id)
    assert {(run.state, run.epoch, run.checkpoint_epoch) for run in runs} == {
        (RunState.WAITING, 1, 1)
    }
    ends = {each.end_class for each in records.attempts(engine, record.id)}
    assert ends == {EndClass.PREEMPTED}
