"""Each scheme against its paper's formula, computed slowly for one trial."""

import pytest
import torch

from cubeopt import trial
from cubeopt.training import losses, weighting
from cubeopt.trial import LossKnobs

from .conftest import SMALL, WHOLE, spec, start, train
from .reference import Trainer

STEPS = 27  # four epochs of six batches, and some
SCHEMES = {
    "fixed": {},
    "annealed": {
        "weighting": "annealed",
        "similarity_weight_end": 2.0,
        "diversity_weight_end": 0.0,
    },
    "uncertainty": {"weighting": "uncertainty", "learning_rate": 0.02},
    "uncertainty of few": {"weighting": "uncertainty", "spatial_weight": 0.0},
    "dynamic_average": {"weighting": "dynamic_average", "dynamic_average_temperature": 0.3},
    "gradnorm": {"weighting": "gradnorm", "gradnorm_rate": 0.1, "learning_rate": 0.01},
    "gradnorm of one": {"weighting": "gradnorm", "similarity_weight": 0.0},
    "gradnorm of none": {
        "weighting": "gradnorm",
        "similarity_weight": 0.0,
        "reconstruction_weight": 0.0,
    },
}


def specs(base, **values):
    return [
        trial.from_flat({**base, "weight_decay": 0.0, "seed": seed, **scheme, **values})
        for seed, scheme in enumerate(SCHEMES.values())
    ]


def assert_follows(state, reference):
    expected = reference.weights.detach()
    torch.testing.assert_close(state.weights, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("base", [SMALL, WHOLE], ids=["slot by slot", "one pass"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_each_scheme_follows_its_paper_in_a_pack(feed64, base, accumulation):
    chosen = specs(base, gradient_accumulation=accumulation)
    run = start(feed64, len(chosen), dict(enumerate(chosen)))
    train(run, STEPS)
    for slot, each in enumerate(chosen):
        reference = Trainer(feed64, each).train(STEPS)
        assert_follows(run.state(slot), reference)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_follows_its_paper_alone(feed64, scheme):
    each = spec(weight_decay=0.0, gradient_accumulation=2, ema_decay=0.9, **SCHEMES[scheme])
    run = train(start(feed64, 1, {0: each}), STEPS)
    reference = Trainer(feed64, each).train(STEPS)
    assert_follows(run.state(0), reference)
    torch.testing.assert_close(run.state(0).average, reference.average, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_weights_in_force_are_reported_each_epoch(feed64, scheme):
    each = spec(weight_decay=0.0, **SCHEMES[scheme])
    run, reference = start(feed64, 1, {0: each}), Trainer(feed64, each).train(24)
    ends = [end.metrics for _ in range(24) for end in run.step()]
    for epoch, metrics in enumerate(ends):
        of_epoch = reference.coefficients[6 * epoch : 6 * epoch + 6]
        for name in losses.TERMS:
            expected = sum(row[name] for row in of_epoch) / 6
            assert metrics[f"train/weight/{name}"] == pytest.approx(expected, rel=1e-9)
    moved = ends[-1]["train/weight/similarity"] != each.loss.similarity_weight
    assert moved is (scheme not in ("fixed", "gradnorm of one", "gradnorm of none"))


def test_the_weighted_terms_add_up_to_the_loss(feed64):
    run = start(feed64, 2, {0: spec(), 1: spec(**SCHEMES["gradnorm"])})
    for end in [end for _ in range(12) for end in run.step()]:
        weighted = [end.metrics[f"train/weighted/{name}"] for name in losses.TERMS]
        assert sum(weighted) == pytest.approx(end.metrics["train/loss/total"])


def test_the_total_of_uncertainty_has_half_of_each_log_variance(feed64):
    run = start(feed64, 1, {0: spec(**SCHEMES["uncertainty"])})
    (end,) = [end for _ in range(6) for end in run.step()]
    weighted = sum(end.metrics[f"train/weighted/{name}"] for name in losses.TERMS)
    # The weight of a batch is exp(-s) w / 2.
    reference = Trainer(feed64, spec(weight_decay=0.0, **SCHEMES["uncertainty"])).train(6)
    halves = [
        -0.5 * torch.log(torch.tensor(2 * row[name] / reference.given[name])).item()
        for row in reference.coefficients
        for name in reference.errors
    ]
    assert end.metrics["train/loss/total"] - weighted == pytest.approx(sum(halves) / 6, abs=1e-3)


def test_a_term_that_hardly_moves_gains_weight_by_dynamic_average():
    knobs = LossKnobs(weighting="dynamic_average")
    means = torch.ones(2, len(losses.TERMS), dtype=torch.float64)
    means[1, 0] = 0.2
    factors = dict(zip(losses.TERMS, weighting.dynamic_average(knobs, means).tolist(), strict=True))
    assert factors["reconstruction"] < 1.0 < factors["similarity"]
    assert factors["similarity"] == factors["lattice"] == factors["spatial"]
    assert factors["diversity"] == factors["emergence"] == factors["ponder"] == 1.0
    errors = ("reconstruction", "similarity", "lattice", "spatial")
    assert sum(factors[name] for name in errors) == pytest.approx(4.0)


def test_a_factor_of_gradnorm_stays_positive_after_a_step_too_far(feed64):
    wild = spec(weighting="gradnorm", gradnorm_rate=1.0, reconstruction_weight=1.0)
    run = train(start(feed64, 1, {0: wild}), 3)
    run._weighting._learned[0, :2] = torch.tensor([1e-3, 1.999])
    ends = [end for _ in range(15) for end in run.step()]
    for end in ends:
        assert end.metrics["train/weight/reconstruction"] > 0
        assert end.metrics["train/weight/similarity"] > 0
