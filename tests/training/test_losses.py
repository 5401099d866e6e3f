"""Each term against its formula, in the units that its docstring promises."""

import math
from dataclasses import replace

import pytest
import torch

from cubeopt.lattice import pack
from cubeopt.lattice.cube import Passage
from cubeopt.training import losses
from cubeopt.trial import LossKnobs, TrialSpec


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot_gates(experts):
    """Gates (1, 1, 3, C, 1) of cells that each trust one expert."""
    return torch.nn.functional.one_hot(torch.tensor(experts), 3).double().T[None, None, ..., None]


def information(gates):
    """The mutual information of *gates* where every step was taken."""
    active = torch.ones_like(gates[:, :, 0, 0])
    return losses.mutual_information(gates, active).item()


def test_the_mean_has_a_reconstruction_of_one_in_standardised_units():
    target = normal(1, 4000, 8)
    target = (target - target.mean(1)) / (target - target.mean(1)).square().mean().sqrt()
    assert losses.reconstruction(torch.zeros_like(target), target).item() == pytest.approx(1.0)


def test_similarity_is_nought_for_a_scaled_copy():
    source = normal(2, 6, 12)
    assert losses.similarity(source * 3.0, source).tolist() == pytest.approx([0.0, 0.0])


def test_similarity_is_the_mean_squared_difference_of_all_pairs_of_cosines():
    output, source = normal(1, 4, 12), normal(1, 4, 12, seed=1)
    cosine = torch.nn.functional.cosine_similarity
    differences = [
        cosine(output[0, i], output[0, j], dim=0) - cosine(source[0, i], source[0, j], dim=0)
        for i in range(4)
        for j in range(4)
    ]
    expected = torch.stack(differences).square().mean()
    torch.testing.assert_close(losses.similarity(output, source)[0], expected)


def test_diversity_is_minus_the_variance_over_the_batch():
    output = normal(3, 7, 5)
    expected = -torch.stack([p.var(0, unbiased=False).mean() for p in output])
    torch.testing.assert_close(losses.diversity(output), expected)


def test_mutual_information_is_ln_3_when_cells_are_decided_and_all_experts_in_use():
    assert information(one_hot_gates([0, 1, 2])) == pytest.approx(math.log(3))


@pytest.mark.parametrize("gates", [one_hot_gates([1, 1, 1]), torch.full((1, 2, 3, 4, 3), 1 / 3)])
def test_mutual_information_is_nought_for_one_expert_or_for_no_decision(gates):
    assert information(gates) == pytest.approx(0.0, abs=1e-6)


def test_mutual_information_looks_at_the_steps_that_were_taken_alone():
    gates = torch.cat([one_hot_gates([0, 1, 2]), one_hot_gates([1, 1, 1])], 1)
    active = torch.tensor([[[1.0], [0.0]]], dtype=torch.float64)
    found = losses.mutual_information(gates * active[:, :, None, None], active)
    assert found.item() == pytest.approx(math.log(3))


def test_the_emergence_of_a_single_expert_is_nought():
    alone = replace(passage(), gates=torch.ones(2, 4, 1, 5, 6, dtype=torch.float64))
    found = losses.emergence(alone, normal(2, 6, 5), knobs(LossKnobs(), LossKnobs()))
    assert found.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def knobs(*each):
    specs = [TrialSpec(loss=knobs) for knobs in each]
    return pack.columns(specs, torch.device("cpu"), torch.float64).legacy_log


def passage(seed=0):
    return Passage(
        output=normal(2, 6, 5, seed=seed),
        gates=normal(2, 4, 3, 5, 6, seed=seed).softmax(2),
        active=torch.ones(2, 4, 6, dtype=torch.float64),
        steps=torch.full((2, 6), 4.0, dtype=torch.float64),
        ponder=normal(2, seed=seed + 2).abs(),
        change=normal(2, seed=seed).abs(),
        roughness=normal(2, seed=seed + 1).abs(),
    )


def test_each_trial_has_the_emergence_that_it_chose():
    shown, source = passage(), normal(2, 6, 5, seed=9)
    found = losses.emergence(shown, source, knobs(LossKnobs(), LossKnobs(emergence="legacy_log")))
    bounded = -losses.mutual_information(shown.gates, shown.active)[0] / math.log(3)
    legacy = -(shown.output[1] - source[1]).square().mean().log()
    assert found.tolist() == pytest.approx([bounded.item(), legacy.item()], rel=1e-6)


def test_the_terms_come_in_their_order_one_of_each_trial():
    shown, source, target = passage(), normal(2, 6, 5, seed=9), normal(2, 6, 5, seed=8)
    each = losses.terms(shown, source, target, knobs(LossKnobs(), LossKnobs()))
    assert tuple(each) == losses.TERMS
    assert {value.shape for value in each.values()} == {(2,)}
    assert torch.equal(each["ponder"], shown.ponder)
    assert torch.equal(each["lattice"], shown.change)
    assert torch.equal(each["spatial"], shown.roughness)
