"""A pack in training: which run stands in which slot, what is reported, how runs leave."""

import logging
from collections import deque
from collections.abc import Container, Iterable

from cubeopt import trial
from cubeopt.db import leases
from cubeopt.db.leases import EpochReport, Lease, RungQuestion, Verdict
from cubeopt.db.queue import Claim
from cubeopt.db.tables import RunKind
from cubeopt.errors import CheckpointError, CubeoptError, StorageLostError
from cubeopt.search import objective, rungs, study
from cubeopt.search.rungs import Met
from cubeopt.service.events import Event, Happening
from cubeopt.service.station import Held, Station
from cubeopt.training import checkpoint
from cubeopt.training.loop import EpochEnd, PackRun

logger = logging.getLogger(__name__)


class Pack:
    """Runs of one shape that train side by side on a worker's station.

    While the storage does not answer they train on, and their reports wait.
    """

    def __init__(self, station: Station, run: PackRun) -> None:
        self._station, self._run = station, run
        self.held: dict[int, Held] = {}
        self._unsent: dict[int, deque[EpochReport]] = {}  # by slot, the oldest first
        self._spent: dict[int, str | None] = {}  # by slot, to be given back: the checkpoint for it
        self._tested = True  # False while a suspect has to show that it was not at fault

    @property
    def places(self) -> int:
        """How many runs may join now; none beside a suspect, or while anything is untold."""
        return len(self._run.free) if self._tested and not self._untold else 0

    @property
    def _untold(self) -> int:
        """How many runs have something for the storage to hear."""
        return len(self._unsent) + len(self._spent)

    @property
    def waits(self) -> bool:
        """Whether reports wait, and the storage may hear them now."""
        return self._untold > 0 and not self._station.heart.unheard

    @property
    def idle(self) -> bool:
        """Whether nothing is left to train: what is held has only to be reported."""
        return not self._run.busy

    def place(self, claims: Iterable[Claim]) -> None:
        """Put each claimed run into a free slot, at the step that it has reached."""
        for claim in claims:
            # A run that we lost without noticing may come back to us under a newer lease.
            self._drop([s for s, each in self.held.items() if each.claim.run_id == claim.run_id])
            self._tested = self._tested and not claim.suspect
            spec = trial.from_flat(claim.spec)
            slot = self._run.free[0]
            try:
                state = self._station.shelf.take(self._run, claim, spec)
                self._run.fill(slot, state)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
                self._run.empty(slot)
                self._station.broke([Held(claim, spec, claim.epoch)], error)
                continue
            epoch = state.step // self._run.steps_per_epoch
            self.held[slot] = Held(claim, spec, epoch, saved=state.step)
            self._station.tell(Event(Happening.STARTED, claim, epoch))

    def step(self) -> list[EpochEnd]:
        """Train every run on its next batch; the ends of epochs, to be reported."""
        return self._run.step()

    def broke(self, error: Exception) -> None:
        """Training raised *error*: all leave, each to where it belongs."""
        self._station.broke(list(self.held.values()), error)

    def release(self) -> None:
        """Give all runs back; the next attempts go on from where they stand.

        Raises StorageLostError when that cannot be written down: their leases will expire.
        """
        self.report(())
        if self._untold:
            raise StorageLostError(f"{self._untold} runs have reports that were not heard")
        self.give_back({each.lease for each in self.held.values()})

    def put_back(self) -> None:
        """Give all runs back as their last recorded checkpoints have them."""
        self._station.release(self.held.values())
        for slot in list(self.held):
            self._leave(slot)

    def abandon(self) -> None:
        """Stop training without a word: the leases have run out while nobody heard us."""
        for slot in list(self.held):
            each = self.held[slot]
            self._station.tell(Event(Happening.ABANDONED, each.claim, each.epoch))
            self._leave(slot)

    def give_back(self, recalled: Container[Lease]) -> None:
        """Stop training what was recalled: it waits, or has ended by a person's word."""
        slots = [
            slot
            for slot, each in self.held.items()
            if each.lease in recalled and slot not in self._unsent and slot not in self._spent
        ]
        for slot in slots:  # one by one: what has gone back is safe, whatever becomes of the next
            self._station.release([self.held[slot]], checkpoint=self._saved(slot))
            self._leave(slot)

    def _saved(self, slot: int) -> str | None:
        """A checkpoint of the begun epoch, unless nothing was trained since the newest one."""
        each = self.held[slot]
        if self._run.steps_done(slot) == each.saved:
            return None
        try:
            return self._station.shelf.put(self._run, each.claim, slot, {})
        except CheckpointError as error:
            logger.warning("the run goes back as its last checkpoint has it: %s", error)
            return None

    def drop_lost(self) -> None:
        """Stop training runs that another worker may have by now."""
        lost = self._station.heart.lost()
        self._drop([slot for slot, each in self.held.items() if each.lease in lost])

    def report(self, ends: Iterable[EpochEnd]) -> None:
        """Write down ended epochs, the ones that wait first, and act on the verdicts.

        All of a pack go into one transaction. When the storage does not answer, they wait for the
        next call.
        """
        for end in ends:
            written = self._checked(end)
            if written is None:
                continue
            each = self.held[end.slot]
            each.epoch = written.epoch
            if written.checkpoint is not None:
                each.saved = self._run.steps_done(end.slot)
            if written.diverged or written.epoch == each.claim.target_epochs:
                self._run.empty(end.slot)  # trained to its end, whatever becomes of the report
            self._unsent.setdefault(end.slot, deque()).append(written)
        heart = self._station.heart
        while self._unsent and not heart.unheard:
            first = {slot: waiting[0] for slot, waiting in self._unsent.items()}
            try:
                verdicts = leases.report(
                    self._station.engine, list(first.values()), _decide, self._keys()
                )
            except StorageLostError as error:
                logger.debug("reports of %d runs wait: %s", len(first), error)
                heart.alarm()
                return
            for slot, written in first.items():
                self._heard(slot, written, verdicts[written.run_id])
        if not heart.unheard:
            self._return_spent()

    def _heard(self, slot: int, written: EpochReport, verdict: Verdict) -> None:
        """Act on what the storage answered to the oldest report of *slot*."""
        each, waiting = self.held[slot], self._unsent[slot]
        waiting.popleft()
        goes_on = verdict is Verdict.GO_ON
        if not goes_on or not waiting:
            # What was trained beyond an end that nobody had heard of counts for nothing.
            del self._unsent[slot]
            if verdict is not Verdict.LOST and written.checkpoint is not None:
                self._station.shelf.forget_older(written.checkpoint, each.claim.token)
        stays = verdict in (Verdict.GO_ON, Verdict.SPENT)
        what = Happening.EPOCH if stays else Happening(verdict)
        self._station.tell(Event(what, each.claim, written.epoch, written.value))
        if verdict is Verdict.SPENT:
            # Beyond that epoch nothing was recorded, so nothing is saved.
            self._spent[slot] = None if waiting else self._saved(slot)
            self._run.empty(slot)
        elif not goes_on:
            self._leave(slot)
        self._tested = True  # a suspect is alone: this report is its own

    def _return_spent(self) -> None:
        """Give back what trains no more because its study's budget is spent."""
        for slot, saved in list(self._spent.items()):
            self._station.release([self.held[slot]], checkpoint=saved)
            self._leave(slot)

    def _keys(self) -> list[str]:
        """The metrics by which a rung compares any of these runs with others."""
        goals = [objective.goal_of(each.claim.study_spec) for each in self.held.values()]
        return sorted({key for goal in goals for key in goal.keys})

    def _checked(self, end: EpochEnd) -> EpochReport | None:
        """The report of an ended epoch; None of a run that left while it was made."""
        if end.slot not in self.held:
            return None
        each = self.held[end.slot]
        station = self._station
        try:
            return self._epoch_report(each, end)
        except CheckpointError:
            if station.owns(each):
                raise
            self._drop([end.slot])  # its new owner cleared our draft away
        except CubeoptError:
            raise
        except Exception as error:  # noqa: BLE001 - raised by this run's own test
            self._leave(end.slot)
            station.broke([each], error)
        return None

    def _epoch_report(self, each: Held, end: EpochEnd) -> EpochReport:
        claim, metrics = each.claim, dict(end.metrics)
        at_end = end.epoch == claim.target_epochs
        test_value = None
        if claim.kind is RunKind.FULL and at_end and not end.diverged:
            tested = self._run.evaluate("test", [end.slot])[end.slot]
            metrics |= {f"test/{name}": value for name, value in tested.items()}
            test_value = tested[claim.metric]
        path = None
        due = claim.kind is RunKind.SHORT or end.epoch % each.spec.plan.save_checkpoint_every == 0
        if (due or at_end) and not end.diverged:
            path = self._station.shelf.put(self._run, claim, end.slot, metrics)
        return EpochReport(
            run_id=claim.run_id,
            token=claim.token,
            epoch=end.epoch,
            value=metrics.get(f"validation/{claim.metric}"),
            metrics=checkpoint.finite(metrics),
            checkpoint=path,
            diverged=end.diverged,
            test_value=test_value,
        )

    def _drop(self, slots: list[int]) -> None:
        for slot in slots:
            each = self.held[slot]
            self._station.tell(Event(Happening.LOST, each.claim, each.epoch))
            self._leave(slot)

    def _leave(self, slot: int) -> None:
        each = self.held.pop(slot)
        self._unsent.pop(slot, None)
        self._spent.pop(slot, None)
        self._run.empty(slot)
        self._station.heart.drop([each.lease])


def _decide(question: RungQuestion) -> bool:
    """Whether the rules of its study end a trial at this rung."""
    spec = study.stored(question.study_spec)
    here = Met(question.value, question.metrics, question.others, question.others_metrics)
    before = [
        Met(value, metrics, others, others_metrics)
        for (value, others), (metrics, others_metrics) in zip(
            question.before, question.before_metrics, strict=True
        )
    ]
    return rungs.ends(spec.rungs, spec.goal, question.epoch, here, before)
