"""The coordinator: asks for trials ahead of need, mirrors results, promotes, reaps, finishes.

Exactly one leads a database. It holds no state that is not in our tables: when it dies, the next
one goes on from what they say.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from optuna.storages import RDBStorage

from cubeopt import logs
from cubeopt.db import (
    breaker,
    budgets,
    leader,
    measures,
    notices,
    orders,
    outbox,
    outcomes,
    priors,
    queue,
    records,
    revisions,
)
from cubeopt.db.budgets import Account
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
_SETTLING_SECONDS = 10.0  # for workers to beat in, after the server has come up
_FAILURES_IN_A_ROW = 5  # end a study: what fails again and again will not mend itself
_DRAWN = 8  # trials queued at once: workers begin with them while the next are drawn
_EXPIRE_SECONDS = 3600.0  # after which a message expires, where nobody tells what happens
_SHOWN = 256  # trials shown to Optuna's tables in a look, so that asking does not wait for it


def coordinate(
    engine: Engine,
    stop: threading.Event,
    tick: float = TICK_SECONDS,
    herald: Callable[[], AbstractContextManager[object]] | None = None,
) -> bool:
    """Lead until *stop* is set; False at once when another process leads.

    A *herald* tells a receiver what happens while we lead; without one it is told to nobody.
    Raises StorageError when the database goes away: whoever hosts it starts another.
    """
    with leader.lead(engine) as leadership:
        if leadership is None:
            return False
        logger.info("leading")
        storage = mirror.open_storage(optuna_url(engine))
        try:
            coordinator = Coordinator(engine, storage, tells=herald is not None)
            with (
                herald() if herald is not None else nullcontext(),
                notices.listening(engine, notices.CHANNEL, notices.WANTED) as listener,
            ):
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

    content: dict[str, Any]  # the file
    spec: StudySpec
    memory: Memory
    mirror: Mirror
    trials: int | None  # how many there will be; None: until another budget is spent
    demand: Demand


class Coordinator:
    """The work of one leader."""

    def __init__(self, engine: Engine, storage: RDBStorage, tells: bool = False) -> None:
        """*tells*: somebody empties the outbox beside us."""
        self._engine, self._storage = engine, storage
        self._tidies_at = float("inf") if tells else time.monotonic()
        self._studies: dict[int, _Opened] = {}
        self._leaving: dict[int, _Opened] = {}  # they run no more, but workers held runs of them
        self._complete: dict[int, int] = {}  # trials when promotion was last looked at
        self._seen: set[int] = set()  # studies that do not run and were looked at since they did

    def tick(self) -> bool:
        """Do everything that is due, once; True when Optuna's tables are left behind."""
        behind = False
        if time.monotonic() >= self._tidies_at:
            outbox.tidy(self._engine, _EXPIRE_SECONDS)
            self._tidies_at = time.monotonic() + _EXPIRE_SECONDS / 6
        outbox.note_lost(self._engine, settling_seconds=_SETTLING_SECONDS)
        lost = queue.reap(self._engine, settling_seconds=_SETTLING_SECONDS)
        if lost:
            logger.warning("leases expired, runs returned to the queue: %s", lost)
        found = records.studies(self._engine)
        self._forget_all_but({each.id for each in found})
        for record in found:
            try:
                with logs.about(study=record.name):
                    if record.state == StudyState.RUNNING:
                        behind |= self._advance(record)
                    else:
                        self._settle(record)
            except KeyError:  # Optuna's word for a study that somebody deleted meanwhile
                if any(each.id == record.id for each in records.studies(self._engine)):
                    raise
        return behind

    def _forget_all_but(self, study_ids: set[int]) -> None:
        """A study that was deleted leaves nothing in here."""
        for study_id in {*self._studies, *self._leaving, *self._complete} - study_ids:
            for known in (self._studies, self._leaving, self._complete):
                known.pop(study_id, None)
        self._seen &= study_ids

    def _advance(self, record: StudyRecord) -> bool:
        self._seen.discard(record.id)
        try:
            opened = self._opened(record)
        except StudyError as error:  # an older file, or a sampler that is not installed here
            logger.error("study %s: %s", record.name, error)
            orders.end(self._engine, record.id, StudyState.FAILED, str(error))
            return False
        memory = opened.memory
        standing = outcomes.standing(self._engine, record.id)
        ended = memory.open - standing.numbers
        memory.learn(outcomes.ended(self._engine, record.id, ended, opened.spec.goal.keys))
        if not standing.numbers <= memory.open:
            del self._studies[record.id]  # a person had a failed trial tried again: look anew
            return False
        reason = breaker.trip(self._engine, record.id, _FAILURES_IN_A_ROW)
        if reason is not None:
            logger.warning("study %s failed: %s", record.name, reason)
            self._show_all(record, opened)
            return False
        spent = budgets.spent(self._engine, record.id, record.spec)
        if spent is not None:
            self._close(record, spent)
            self._show_all(record, opened)
            return False
        self._ask(record, opened, standing)
        behind = self._show(record, opened)
        self._promote_early(record, opened)
        all_asked = opened.trials is not None and memory.asked >= opened.trials
        if all_asked and not memory.open and not behind:
            self._finish(record, opened)
        return behind

    def _settle(self, record: StudyRecord) -> None:
        """Of a study that runs no more, Optuna shall have what the workers still report."""
        opened = self._studies.pop(record.id, None)  # once resumed, it is looked at anew
        if opened is None and record.id not in self._seen:
            opened = self._left_behind(record)
        self._seen.add(record.id)
        if opened is not None:
            self._leaving[record.id] = opened
        if record.id not in self._leaving:
            return
        held = self._held(record)
        self._show_all(record, self._leaving[record.id])
        if not held:
            del self._leaving[record.id]

    def _left_behind(self, record: StudyRecord) -> _Opened | None:
        """A study that ended under another coordinator, if Optuna does not have all of it."""
        if not self._held(record) and not outcomes.unmirrored(self._engine, record.id, limit=1):
            return None
        try:
            self._opened(record)
        except StudyError:  # an older file: it is shown as far as it was
            return None
        return self._studies.pop(record.id)

    def _held(self, record: StudyRecord) -> bool:
        """Whether workers hold runs of a study."""
        counts = [records.counts(self._engine, record.id, kind) for kind in RunKind]
        return any(each[RunState.RUNNING] for each in counts)

    def _opened(self, record: StudyRecord) -> _Opened:
        """The study's file, memory and counterpart, made from the tables at first sight, and anew
        when it was revised.
        """
        opened = self._studies.get(record.id)
        if opened is None or opened.content != record.spec:
            self._leaving.pop(record.id, None)
            self._complete.pop(record.id, None)
            opened = self._studies[record.id] = self._look(record)
        return opened

    def _look(self, record: StudyRecord) -> _Opened:
        spec = study.parse(record.spec, f"study {record.name}")
        samplers.check_installed(spec.sampler)
        before = [each.spec for each in revisions.read(self._engine, record.id)]
        counterpart = Mirror(self._storage, spec, [study.stored(each) for each in before])
        known = outcomes.read(self._engine, record.id, spec.goal.keys)
        counterpart.abandon({each.number for each in known})
        memory = Memory(
            spec,
            known,
            numbered=counterpart.count,
            priors=priors.read(self._engine, record.id),
            revision=study.redrawn([*before, record.spec]),
        )
        return _Opened(record.spec, spec, memory, counterpart, spec.trials(), Demand())

    def _show(self, record: StudyRecord, opened: _Opened) -> bool:
        """Bring Optuna's tables up to date, by some trials; whether others are left."""
        news = outcomes.unmirrored(self._engine, record.id, opened.spec.goal.keys, _SHOWN)
        opened.mirror.show(news)
        outcomes.mark_mirrored(self._engine, record.id, news)
        return len(news) == _SHOWN

    def _show_all(self, record: StudyRecord, opened: _Opened) -> None:
        while self._show(record, opened):
            pass

    def _ask(self, record: StudyRecord, opened: _Opened, standing: Standing) -> None:
        """Keep enough trials waiting that no worker has to wait for a sampler."""
        ahead = opened.demand.ahead(standing)
        count = ahead - len(standing.waiting)
        if opened.trials is not None:
            count = min(count, opened.trials - opened.memory.asked)
        while count > 0:
            drawn = opened.memory.ask(min(count, _DRAWN), outcomes.wishes(self._engine, record.id))
            if not drawn:
                return
            opened.demand.offer(each.number for each in drawn)
            if not self._enqueue(record, opened.spec, drawn):
                # Paused or revised meanwhile, or a number was taken by a wish: look anew.
                del self._studies[record.id]
                return
            count -= len(drawn)

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
        return queue.enqueue(self._engine, record.id, trials, drawn_by=record.spec)

    def _promote_early(self, record: StudyRecord, opened: _Opened) -> None:
        """By a factor, trials are promoted as results come."""
        if opened.spec.promotion.top is not None:
            return
        complete = records.counts(self._engine, record.id)[RunState.COMPLETE]
        if complete != self._complete.get(record.id):
            self._promote(record, opened.spec)
            self._complete[record.id] = complete

    def _promote(self, record: StudyRecord, spec: StudySpec) -> bool:
        """Start the full runs that are due; whether there were new ones."""
        reached = measures.results(self._engine, record.id, spec.goal.keys)
        due = rungs.promoted(spec.goal, spec.promotion, reached)
        seeds = spec.promotion.seeds
        new = queue.promote(self._engine, record.id, due, spec.full_epochs, seeds)
        if new:
            logger.info("study %s: %d new full runs of trials among %s", record.name, new, due)
        return new > 0

    def _finish(self, record: StudyRecord, opened: _Opened) -> None:
        """All short runs have ended: start the full runs, or end the study when they have ended."""
        spec = opened.spec
        unended = records.counts(self._engine, record.id, RunKind.FULL)
        if unended[RunState.WAITING] or unended[RunState.RUNNING]:
            return  # before all runs are read, which may be many
        full = [run for run in records.runs(self._engine, record.id) if run.kind == RunKind.FULL]
        if spec.promotion.top and self._promote(record, spec):
            return
        if any(run.state not in ENDED for run in full):
            return
        noted = {
            f"{run.trial_number}, replicate {run.replicate}"
            if run.replicate
            else f"{run.trial_number}": {"epochs": run.epoch, "value": run.value}
            for run in full
        }
        opened.mirror.note("full runs", noted)
        state, reason = StudyState.COMPLETE, f"all {opened.memory.asked} trials have ended"
        reached = measures.results(self._engine, record.id, spec.goal.keys)
        nearest = rungs.nearest(spec.goal, reached)
        if not reached:
            state, reason = StudyState.FAILED, "no trial reached the last rung"
        elif nearest is not None:
            reason += f"; {nearest}"
        elif full and all(run.state != RunState.COMPLETE for run in full):
            state, reason = StudyState.FAILED, "no promoted trial finished its full run"
        self._end(record, state, reason)

    def _close(self, record: StudyRecord, spent: Account) -> None:
        """A budget is spent: end the study where it is; what is unfinished waits."""
        counts = [records.counts(self._engine, record.id, kind) for kind in RunKind]
        unfinished = sum(each[RunState.WAITING] + each[RunState.RUNNING] for each in counts)
        reason = str(spent)
        if unfinished:
            reason += f"; {unfinished} run{'s' * (unfinished > 1)} unfinished"
        if not any(each[RunState.COMPLETE] for each in counts):
            reason += "; no trial reached the last rung"
        self._end(record, StudyState.COMPLETE, reason)

    def _end(self, record: StudyRecord, state: StudyState, reason: str) -> None:
        if orders.end(self._engine, record.id, state, reason, seen=record.spec):
            logger.info("study %s: %s, %s", record.name, state, reason)
