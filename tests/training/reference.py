"""One trial trained slowly by torch's own autograd and AdamW, by the papers' formulas."""

import math

import torch

from cubeopt.lattice.pack import columns
from cubeopt.training import losses
from cubeopt.training.loop import PackRun
from cubeopt.training.schedules import multiplier
from cubeopt.trial import TrialSpec

ERRORS = ("reconstruction", "similarity", "lattice", "spatial")
OF_OUTPUT = ("reconstruction", "similarity")


class Trainer:
    """A trial without weight decay, in float64: its weights, and the coefficients it used."""

    def __init__(self, feed, spec: TrialSpec) -> None:
        run = PackRun(spec.shape, 1, feed, torch.float64)
        self.feed, self.spec, self.cube = feed, spec, run.cube
        self.epoch_steps = run.steps_per_epoch
        self.weights = torch.nn.Parameter(run.fresh(spec).weights.double())
        given = {name: getattr(spec.loss, f"{name}_weight") for name in losses.TERMS}
        self.given = given
        self.errors = [name for name in ERRORS if given[name] > 0]
        balances = spec.loss.weighting == "gradnorm"
        self.balanced = [name for name in OF_OUTPUT if balances and given[name] > 0]
        self.spread = {
            name: torch.nn.Parameter(torch.zeros((), dtype=torch.float64)) for name in self.errors
        }
        self.factors = {name: 1.0 for name in losses.TERMS}
        self.factor_gradients = {name: [] for name in self.balanced}
        self.first = None
        self.means, self.epoch = [], []
        self.optimizer = torch.optim.AdamW(
            [self.weights, *self.spread.values()], lr=1.0, weight_decay=0.0
        )
        self.updates = 0
        self.average = self.weights.detach().clone()
        self.coefficients = []

    def train(self, steps: int) -> "Trainer":
        group = []
        for step in range(steps):
            group.append(self._loss(step))
            ends = (step + 1) % self.epoch_steps == 0
            if len(group) == self.spec.optim.gradient_accumulation or ends:
                self._update(torch.stack(group).mean(), step)
                group = []
            if ends:
                self._end_epoch()
        return self

    def _loss(self, step):
        source, target = self.feed.batch(
            {0: (self.spec.plan.data_seed, step)}, 1, self.spec.shape.batch_size
        )
        knobs = columns([self.spec], torch.device("cpu"), torch.float64)
        passage = self.cube.forward(self.weights[None], source, knobs.halting_threshold)
        found = losses.terms(passage, source, target, knobs.legacy_log)
        each = {name: value[0] for name, value in found.items()}
        self.epoch.append({name: float(value.detach()) for name, value in each.items()})
        weights = self._weights(step)
        offset = 0.0
        if self.spec.loss.weighting == "uncertainty":
            for name, s in self.spread.items():
                weights[name] = 0.5 * torch.exp(-s) * self.given[name]
                offset = offset + 0.5 * s
        if self.balanced:
            self._balance(each)
        exact = {n: torch.as_tensor(w, dtype=torch.float64).detach() for n, w in weights.items()}
        self.coefficients.append({name: float(weight) for name, weight in exact.items()})
        return sum(weights[name] * each[name] for name in losses.TERMS) + offset

    def _weights(self, step):
        scheme, total = self.spec.loss.weighting, self.spec.plan.epochs * self.epoch_steps
        weights = {name: self.given[name] * self.factors[name] for name in losses.TERMS}
        if scheme == "annealed":
            for name in losses.TERMS:
                end = getattr(self.spec.loss, f"{name}_weight_end", None)
                if end is not None:
                    weights[name] = (1 - step / total) * self.given[name] + step / total * end
        return weights

    def _balance(self, each):
        """Gradients of the factors, by Algorithm 1 of Chen et al. 2018."""
        if self.first is None:
            self.first = {name: float(each[name].detach()) for name in self.balanced}
        shared = {}
        for name in self.balanced:
            (whole,) = torch.autograd.grad(each[name], self.weights, retain_graph=True)
            shared[name] = self.cube.layout.views(whole[None])["leave.weight"]
        factors = {
            name: torch.tensor(self.factors[name], dtype=torch.float64, requires_grad=True)
            for name in self.balanced
        }
        norms = {name: torch.linalg.norm(factors[name] * shared[name]) for name in self.balanced}
        mean = sum(norms.values()) / len(norms)
        left = {name: float(each[name].detach()) / self.first[name] for name in self.balanced}
        rates = {name: left[name] / (sum(left.values()) / len(left)) for name in self.balanced}
        targets = {
            name: (mean * rates[name] ** self.spec.loss.gradnorm_asymmetry).detach()
            for name in self.balanced
        }
        sum((norms[name] - targets[name]).abs() for name in self.balanced).backward()
        for name in self.balanced:
            self.factor_gradients[name].append(float(factors[name].grad))

    def _update(self, loss, step):
        total = self.spec.plan.epochs * self.epoch_steps
        rate = self.spec.optim.learning_rate * multiplier(self.spec.optim, step, total)
        for part in self.optimizer.param_groups:
            part["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.weights], self.spec.optim.gradient_clip)
        self.optimizer.step()
        self.updates += 1
        n = self.updates
        decay = min(self.spec.optim.ema_decay, (1 + n) / (10 + n))
        self.average = decay * self.average + (1 - decay) * self.weights.detach()
        if self.balanced:
            self._move_factors()

    def _move_factors(self):
        moved = {}
        for name in self.balanced:
            gradients = self.factor_gradients[name]
            slope = sum(gradients) / len(gradients)
            moved[name] = self.factors[name] - self.spec.loss.gradnorm_rate * slope
            gradients.clear()
        scale = len(moved) / sum(moved.values())
        self.factors |= {name: factor * scale for name, factor in moved.items()}

    def _end_epoch(self):
        names = losses.TERMS
        self.means.append({n: sum(row[n] for row in self.epoch) / len(self.epoch) for n in names})
        self.epoch = []
        if self.spec.loss.weighting == "dynamic_average" and len(self.means) >= 2:
            before, last = self.means[-2:]
            powers = {
                name: math.exp(
                    last[name] / before[name] / self.spec.loss.dynamic_average_temperature
                )
                for name in self.errors
            }
            for name in self.errors:
                self.factors[name] = len(powers) * powers[name] / sum(powers.values())
