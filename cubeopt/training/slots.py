"""A trial in its place, and the arithmetic of where it stands in its run."""

from collections.abc import Sequence
from dataclasses import dataclass

from cubeopt.training import noise, optim, schedules
from cubeopt.training.schedules import Plateau
from cubeopt.trial import TrialSpec


@dataclass
class Slot:
    """A trial that is being trained."""

    spec: TrialSpec
    step: int  # batches done
    plateau: Plateau
    steps_per_epoch: int
    started: float  # when the epoch was begun, or gone on with
    since: int  # at this step

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def batches(self) -> int:
        """Batches done of the current epoch."""
        return self.step % self.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the next batch is the last one of its epoch."""
        return self.batches == self.steps_per_epoch - 1

    @property
    def total_steps(self) -> int:
        """Batches of the full run."""
        return self.spec.plan.epochs * self.steps_per_epoch

    @property
    def left(self) -> int:
        """Batches to the end of the full run."""
        return self.total_steps - self.step

    @property
    def gathered(self) -> int:
        """Batches since the last update."""
        return self.batches % self.spec.optim.gradient_accumulation

    @property
    def closes(self) -> int:
        """Batches in the group that ends with the next one, 0 if it goes on."""
        size = self.spec.optim.gradient_accumulation
        return self.gathered + 1 if self.ends_epoch or self.gathered + 1 == size else 0

    @property
    def updates_per_epoch(self) -> int:
        """Updates in an epoch; its last group may be smaller."""
        return -(-self.steps_per_epoch // self.spec.optim.gradient_accumulation)

    @property
    def updates_in_epoch(self) -> int:
        """Updates done in the current epoch."""
        return self.batches // self.spec.optim.gradient_accumulation

    @property
    def updates(self) -> int:
        """Updates done."""
        return self.epoch * self.updates_per_epoch + self.updates_in_epoch

    @property
    def validates(self) -> bool:
        """Whether a validation is due at the end of the epoch that is done."""
        plan = self.spec.plan
        return self.epoch % plan.validation_interval == 0 or self.epoch == plan.epochs

    @property
    def place(self) -> noise.Place:
        return noise.Place(self.spec, self.step)

    def pace(self) -> tuple[float, ...]:
        """The numbers of an optim.Pace at the next update."""
        count = self.updates + 1
        decay = self.spec.optim.weight_decay
        return (self.rate(self.step), decay, float(count), *optim.corrections(count))

    def rate(self, step: int) -> float:
        """The learning rate at batch *step* of the run."""
        knobs = self.spec.optim
        factor = schedules.multiplier(knobs, step, self.total_steps, self.plateau)
        return knobs.learning_rate * factor

    def heard(self, fvu: float) -> None:
        """A validation has ended: a schedule may listen."""
        if self.spec.optim.schedule == "plateau":
            self.plateau = self.plateau.after(fvu, self.spec.optim)


IDLE_PACE = (0.0, 0.0, 0.0, 1.0, 1.0)  # stands still


def progress(slots: Sequence[Slot | None]) -> list[float]:
    """Where each stands in its full run, from 0 to 1."""
    return [0.0 if each is None else each.step / each.total_steps for each in slots]
