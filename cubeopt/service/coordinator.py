"""The coordinator: asks for trials ahead of need, mirrors results, promotes, reaps, finishes.

Exactly one leads a database. It holds no state that is not in our tables: when it dies, the next
one goes on from what they say.
"""

import logging
import threading
from dataclasses import dataclass

from optuna.storages import RDBStorage

from cubeopt.db import breaker, leader, notices, orders, outcomes, queue, records
from cubeopt.db.engine import Engine, optuna_url
from cubeopt.db.outcomes import ENDED, Standing
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import RunKind, RunState, StudyState
from cubeopt.errors import StudyError
from cubeopt.search import mirror, rungs, samplers, study
from cubeopt.search.demand import Demand
from cubeopt.search.memory import Drawn, Memory
from cubeopt.search.mirror import Mirror
from cubeopt.search.study import StudySpec

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.3  # between two looks, unless a worker finds nothing to do
_REST_SECONDS = 0.05  # between two looks in any case
_FAILURES_IN_A_ROW = 5  # end a study: what fails again and again will not mend itself
_SHOWN = 256  # trials shown to Optuna's tables in a look, so that asking does not wait for it


def coordinate(engine: Engine, stop: threading.Event, tick: float = TICK_SECONDS) -> bool:
    """Lead until *stop* is set; False at once when another process leads.

    Raises StorageError when the database goes away: whoever hosts it starts another.
    """
    with leader.lead(engine) as leadership:
        if leadership is None:
            return False
        logger.info("leading")
        storage = mirror.open_storage(optuna_url(engine))
        try:
            coordinator = Coordinator(engine, storage)
            with notices.listening(engine, notices.CHANNEL, notices.WANTED) as listener:
                while not stop.is_set():
                    leadership.check()
                    with mirror.translated():
                        behind = coordinator.tick()
                    stop.wait(min(_REST_SECONDS, tick))
                    if not behind:
                        listener.wait(max(0.0, tick - _REST_SECONDS))
        finally:
            storage.engine.dispose()
    return True


@dataclass(frozen=True)
class _Opened:
    """A study that runs: its file, what its sampler knows, and its counterpart in Optuna."""

    spec: StudySpec
    memory: Memory
    mirror: Mirror
    trials: int  # how many there will be
    demand: Demand


class Coordinator:
    """The work of one leader."""

    def __init__(self, engine: Engine, storage: RDBStorage) -> None:
        self._engine, self._storage = engine, storage
        self._studies: dict[int, _Opened] = {}

    def tick(self) -> bool:
        """Do everything that is due, once; True when Optuna's tables are left behind."""
        behind = False
        lost = queue.reap(self._engine)
        if lost:
            logger.warning("leases expired, runs returned to the queue: %s", lost)
        for record in records.studies(self._engine):
            if record.state != StudyState.RUNNING:
                opened = self._studies.pop(record.id, None)  # once resumed, it is looked at anew
                while opened is not None and self._show(record, opened):
                    pass
                continue
            try:
                behind |= self._advance(record)
            except KeyError:  # Optuna's word for a study that somebody deleted meanwhile
                if any(each.id == record.id for each in records.studies(self._engine)):
                    raise
        return behind

    def _advance(self, record: StudyRecord) -> bool:
        try:
            opened = self._opened(record)
        except StudyError as error:  # an older file, or a sampler that is not installed here
            logger.error("study %s: %s", record.name, error)
            orders.end(self._engine, record.id, StudyState.FAILED, str(error))
            return False
        memory = opened.memory
        standing = outcomes.standing(self._engine, record.id)
        ended = memory.open - standing.numbers
        memory.learn(outcomes.ended(self._engine, record.id, ended))
        if not standing.numbers <= memory.open:
            del self._studies[record.id]  # a person had a failed trial tried again: look anew
            return False
        reason = breaker.trip(self._engine, record.id, _FAILURES_IN_A_ROW)
        if reason is not None:
            logger.warning("study %s failed: %s", record.name, reason)
            while self._show(record, opened):
                pass
            return False
        self._ask(record, opened, standing)
        behind = self._show(record, opened)
        if memory.asked >= opened.trials and not memory.open and not behind:
            self._promote(record, opened)
        return behind

    def _opened(self, record: StudyRecord) -> _Opened:
        """The study's file, memory and counterpart, made from the tables at first sight."""
        if record.id not in self._studies:
            spec = study.parse(record.spec, f"study {record.name}")
            samplers.check_installed(spec.sampler)
            counterpart = Mirror(self._storage, spec)
            known = outcomes.read(self._engine, record.id)
            counterpart.abandon({each.number for each in known})
            memory = Memory(spec, known, numbered=counterpart.count)
            self._studies[record.id] = _Opened(spec, memory, counterpart, spec.trials(), Demand())
        return self._studies[record.id]

    def _show(self, record: StudyRecord, opened: _Opened) -> bool:
        """Bring Optuna's tables up to date, by some trials; whether others are left."""
        news = outcomes.unmirrored(self._engine, record.id, _SHOWN)
        opened.mirror.show(news)
        outcomes.mark_mirrored(self._engine, record.id, news)
        return len(news) == _SHOWN

    def _ask(self, record: StudyRecord, opened: _Opened, standing: Standing) -> None:
        """Keep enough trials waiting that no worker has to wait for a sampler."""
        ahead = opened.demand.ahead(standing)
        count = min(ahead - len(standing.waiting), opened.trials - opened.memory.asked)
        if count <= 0:
            return
        drawn = opened.memory.ask(count, outcomes.wishes(self._engine, record.id))
        opened.demand.offer(each.number for each in drawn)
        if not self._enqueue(record, opened.spec, drawn):
            # Paused meanwhile, or a number was taken by a wish: look at the tables anew.
            del self._studies[record.id]

    def _enqueue(self, record: StudyRecord, spec: StudySpec, drawn: list[Drawn]) -> bool:
        trials = []
        for each in drawn:
            trial = spec.trial(each.params, each.number)
            trials.append(
                queue.NewTrial(
                    number=each.number,
                    params=each.params,
                    spec=trial.flat(),
                    pack_key=trial.pack_key(record.dataset_fingerprint),
                    target_epochs=spec.short_epochs,
                    notes=each.notes,
                )
            )
        return queue.enqueue(self._engine, record.id, trials)

    def _promote(self, record: StudyRecord, opened: _Opened) -> None:
        """All short runs have ended: start the full runs, or end the study when they have ended."""
        spec = opened.spec
        unended = records.counts(self._engine, record.id, RunKind.FULL)
        if unended[RunState.WAITING] or unended[RunState.RUNNING]:
            return  # before all runs are read, which may be many
        runs = records.runs(self._engine, record.id)
        results = {
            run.trial_number: run.value
            for run in runs
            if run.kind == RunKind.SHORT and run.state == RunState.COMPLETE
        }
        chosen = rungs.promote(results, spec.promotion, record.direction)
        full = [run for run in runs if run.kind == RunKind.FULL]
        if chosen and not full:
            logger.info("study %s: promoting trials %s", record.name, chosen)
            queue.promote(self._engine, record.id, chosen, spec.full_epochs)
            return
        if any(run.state not in ENDED for run in full):
            return
        opened.mirror.note(
            "full runs",
            {str(run.trial_number): {"epochs": run.epoch, "value": run.value} for run in full},
        )
        state, reason = StudyState.COMPLETE, f"all {opened.trials} trials have ended"
        if not results:
            state, reason = StudyState.FAILED, "no trial reached the last rung"
        elif full and all(run.state != RunState.COMPLETE for run in full):
            state, reason = StudyState.FAILED, "no promoted trial finished its full run"
        if orders.end(self._engine, record.id, state, reason):
            logger.info("study %s: %s, %s", record.name, state, reason)
