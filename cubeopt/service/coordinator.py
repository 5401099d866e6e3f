"""The coordinator: asks for trials ahead of need, mirrors results, promotes, reaps, finishes.

Exactly one leads a database. It holds no state that is not in the database: when it dies, the next
one goes on from what the tables say.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from optuna.storages import RDBStorage

from cubeopt.db import breaker, budgets, leader, measures, orders, queue, records
from cubeopt.db.budgets import Account
from cubeopt.db.engine import Engine, optuna_url
from cubeopt.db.records import RunRecord, StudyRecord
from cubeopt.db.tables import RunKind, RunState, StudyState
from cubeopt.errors import StudyError
from cubeopt.search import mirror, rungs, samplers, study
from cubeopt.search.mirror import Mirror
from cubeopt.search.objective import Goal
from cubeopt.search.study import StudySpec

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.3
_SETTLING_SECONDS = 10.0  # for workers to beat in, after the server has come up
_FAILURES_IN_A_ROW = 5  # end a study: what fails again and again will not mend itself
_AHEAD = 4  # waiting trials kept ready at least; more when more are running
_ENDED = (RunState.COMPLETE, RunState.PRUNED, RunState.FAILED)


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
            while not stop.is_set():
                leadership.check()
                with mirror.translated():
                    coordinator.tick()
                stop.wait(tick)
        finally:
            storage.engine.dispose()
    return True


class Coordinator:
    """The work of one leader."""

    def __init__(self, engine: Engine, storage: RDBStorage) -> None:
        self._engine, self._storage = engine, storage
        self._studies: dict[int, tuple[StudySpec, Mirror]] = {}
        # Those that run no more, but whose runs workers held.
        self._leaving: dict[int, tuple[StudySpec, Mirror]] = {}
        self._complete: dict[int, int] = {}  # trials when promotion was last looked at

    def tick(self) -> None:
        """Do everything that is due, once."""
        lost = queue.reap(self._engine, settling_seconds=_SETTLING_SECONDS)
        if lost:
            logger.warning("leases expired, runs returned to the queue: %s", lost)
        for record in records.studies(self._engine):
            try:
                if record.state == StudyState.RUNNING:
                    self._advance(record)
                else:
                    self._settle(record)
            except KeyError:  # Optuna's word for a study that somebody deleted meanwhile
                if any(each.id == record.id for each in records.studies(self._engine)):
                    raise

    def _advance(self, record: StudyRecord) -> None:
        try:
            spec, counterpart = self._opened(record)
        except StudyError as error:  # an older file, or a sampler that is not installed here
            logger.error("study %s: %s", record.name, error)
            orders.end(self._engine, record.id, StudyState.FAILED, str(error))
            return
        self._show(record, spec, counterpart)
        reason = breaker.trip(self._engine, record.id, _FAILURES_IN_A_ROW)
        if reason is not None:
            logger.warning("study %s failed: %s", record.name, reason)
            self._show(record, spec, counterpart)
            return
        spent = budgets.spent(self._engine, record.id, record.spec)
        if spent is not None:
            self._close(record, spent)
            return
        counts = records.counts(self._engine, record.id)
        self._ask(record, spec, counterpart, counts)
        if spec.promotion.top is None and counts[RunState.COMPLETE] != self._complete.get(
            record.id
        ):
            self._promote(record, spec)
            self._complete[record.id] = counts[RunState.COMPLETE]
        ended = sum(counts[state] for state in _ENDED)
        if counterpart.trials is not None and ended >= counterpart.trials:
            self._finish(record, spec, counterpart)

    def _settle(self, record: StudyRecord) -> None:
        """Of a study that runs no more, Optuna shall have what the workers still report."""
        opened = self._studies.pop(record.id, None)  # once resumed, it is looked at anew
        if opened is not None:
            self._leaving[record.id] = opened
        if record.id not in self._leaving:
            return
        held = any(
            records.counts(self._engine, record.id, kind)[RunState.RUNNING] for kind in RunKind
        )
        self._show(record, *self._leaving[record.id])
        if not held:
            del self._leaving[record.id]

    def _opened(self, record: StudyRecord) -> tuple[StudySpec, Mirror]:
        """The study's file and counterpart; at first sight, what was asked but not queued is."""
        if record.id not in self._studies:
            self._leaving.pop(record.id, None)
            spec = study.parse(record.spec, f"study {record.name}")
            samplers.check_installed(spec.sampler)
            counterpart = Mirror(self._storage, spec)
            known = [each.number for each in records.trials(self._engine, record.id)]
            self._enqueue(record, spec, counterpart.orphans(known))
            self._studies[record.id] = spec, counterpart
        return self._studies[record.id]

    def _show(self, record: StudyRecord, spec: StudySpec, counterpart: Mirror) -> None:
        """Bring Optuna's tables up to date: epochs first, then ends.

        The ends are read before the epochs: an end that is seen here has all its epochs recorded.
        """
        ended = records.untold(self._engine, record.id)
        reached: dict[int, int] = {}
        for epoch in records.unmirrored_epochs(self._engine, record.id):
            if epoch.value is not None:
                counterpart.report(epoch.trial_number, epoch.epoch, epoch.value)
            reached[epoch.trial_number] = epoch.epoch
        if reached:
            records.mark_mirrored(self._engine, record.id, reached)
        goal = spec.goal
        found = measures.last(self._engine, record.id, goal.keys, [run.id for run in ended])
        for run in ended:
            # One that diverged has no result, whatever its epochs before that were like.
            metrics = found.get(run.id, {}) if run.value is not None else {}
            _tell(counterpart, goal, run, metrics)
        if ended:
            records.mark_told(self._engine, record.id, [run.trial_number for run in ended])

    def _ask(
        self,
        record: StudyRecord,
        spec: StudySpec,
        counterpart: Mirror,
        counts: dict[RunState, int],
    ) -> None:
        """Keep enough trials waiting that no worker has to wait for a sampler."""
        asked = sum(counts.values())
        wanted = max(_AHEAD, counts[RunState.RUNNING]) - counts[RunState.WAITING]
        trials = counterpart.trials
        count = wanted if trials is None else min(wanted, trials - asked)
        if count > 0:
            self._enqueue(record, spec, counterpart.ask(count, asked))

    def _enqueue(
        self, record: StudyRecord, spec: StudySpec, points: list[tuple[int, dict[str, object]]]
    ) -> None:
        trials = []
        for number, params in points:
            trial = spec.trial(params, number)
            trials.append(
                queue.NewTrial(
                    number=number,
                    params=params,
                    spec=trial.flat(),
                    pack_key=trial.pack_key(record.dataset_fingerprint),
                    target_epochs=spec.short_epochs,
                )
            )
        if trials:
            queue.enqueue(self._engine, record.id, trials)

    def _promote(self, record: StudyRecord, spec: StudySpec) -> bool:
        """Start the full runs that are due; whether there were new ones."""
        reached = measures.results(self._engine, record.id, spec.goal.keys)
        due = rungs.promoted(spec.goal, spec.promotion, reached)
        seeds = spec.promotion.seeds
        new = queue.promote(self._engine, record.id, due, spec.full_epochs, seeds)
        if new:
            logger.info("study %s: %d new full runs of trials among %s", record.name, new, due)
        return new > 0

    def _finish(self, record: StudyRecord, spec: StudySpec, counterpart: Mirror) -> None:
        """All short runs have ended: start the full runs, or end the study when they have ended."""
        runs = records.runs(self._engine, record.id)
        full = [run for run in runs if run.kind == RunKind.FULL]
        if spec.promotion.top and not full and self._promote(record, spec):
            return
        if any(run.state not in _ENDED for run in full):
            return
        noted = {
            f"{run.trial_number}, replicate {run.replicate}"
            if run.replicate
            else f"{run.trial_number}": {"epochs": run.epoch, "value": run.value}
            for run in full
        }
        counterpart.note("full runs", noted)
        state, reason = StudyState.COMPLETE, f"all {counterpart.trials} trials have ended"
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
        if orders.end(self._engine, record.id, state, reason):
            logger.info("study %s: %s, %s", record.name, state, reason)


def _tell(counterpart: Mirror, goal: Goal, run: RunRecord, metrics: Mapping[str, Any]) -> None:
    """Tell Optuna how a short run ended; *metrics* are the goal's at its last validated epoch."""
    if run.state == RunState.FAILED:
        counterpart.tell_failed(run.trial_number)
        return
    values = goal.values(metrics) if goal.objective.second is not None else (run.value,)
    counterpart.bound(run.trial_number, goal.excesses(metrics))
    if run.state == RunState.COMPLETE and values is not None and values[0] is not None:
        counterpart.tell_complete(run.trial_number, *values)
    else:
        counterpart.tell_pruned(run.trial_number, *(values or ()))
