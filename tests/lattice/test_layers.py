"""Weights in an arena: each trial's own, each parameter in its place."""

import torch

from cubeopt.lattice.layers import Gradients, Layout, Parameter, linear, linear_parameters

LAYOUT = Layout(
    [
        *linear_parameters("first", 5, 3),
        Parameter("place.vector", (2, 7), 0.5, decays=False),
        Parameter("clock.time", (3,), 0.0, fill=0.25, decays=False),
    ]
)


def test_initial_weights_depend_on_the_seed_and_the_name_alone():
    assert torch.equal(LAYOUT.initial(3), LAYOUT.initial(3))
    assert not torch.equal(LAYOUT.initial(3), LAYOUT.initial(4))
    longer = Layout([Parameter("new.vector", (9,), 1.0), *LAYOUT.parameters])
    before, after = LAYOUT.named(LAYOUT.initial(3)), longer.named(longer.initial(3))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_initial_weights_have_the_scale_that_was_asked_for():
    wide = Layout(linear_parameters("wide", 400, 300, gain=2.0))
    named = wide.named(wide.initial(0))
    assert abs(named["wide.weight"].std().item() * 20.0 - 2.0) < 0.02
    assert named["wide.bias"].abs().max() == 0.0
    assert LAYOUT.named(LAYOUT.initial(0))["clock.time"].tolist() == [0.25] * 3


def test_row_is_the_inverse_of_named():
    row = LAYOUT.initial(1)
    assert torch.equal(LAYOUT.row(LAYOUT.named(row)), row)


def test_every_parameter_starts_on_a_border_of_sixteen_numbers():
    arena = torch.zeros(2, LAYOUT.size)
    starts = [view.storage_offset() for view in LAYOUT.views(arena).values()]
    assert all(start % 16 == 0 for start in starts)
    assert LAYOUT.size % 16 == 0


def test_a_packed_linear_is_torchs_linear_for_each_trial():
    arena = torch.stack([LAYOUT.initial(seed) for seed in range(4)]).double()
    x = torch.randn(4, 2, 6, 5, dtype=torch.float64)
    out = linear(LAYOUT.views(arena), "first", x)
    for p in range(4):
        named = LAYOUT.named(arena[p])
        expected = torch.nn.functional.linear(x[p], named["first.weight"].T, named["first.bias"])
        torch.testing.assert_close(out[p], expected)


def test_an_opened_arena_has_the_gradients_of_autograd_and_those_added_up():
    arena = torch.stack([LAYOUT.initial(seed) for seed in range(2)]).double().requires_grad_()
    gradients = Gradients()
    views = LAYOUT.opened(arena, gradients)
    assert all(torch.equal(views[name], view) for name, view in LAYOUT.views(arena).items())
    gradients.add("place.vector", torch.full((2, 2, 7), 2.0, dtype=torch.float64))
    gradients.add("place.vector", torch.ones(2, 2, 7, dtype=torch.float64))
    gradients.add("first.bias", torch.full((2, 3), 5.0, dtype=torch.float64))
    left, right = (
        torch.randn(2, 5, 4, dtype=torch.float64),
        torch.randn(2, 4, 3, dtype=torch.float64),
    )
    gradients.add_product("first.weight", left, right)
    gradients.add_product("first.weight", left, right)
    gradients.add_multiple("clock.time", views["clock.time"].detach(), right[:, 0])
    gradients.add_multiple("clock.time", views["clock.time"].detach(), right[:, 1])
    (found,) = torch.autograd.grad((7.0 * views["first.bias"]).sum(), arena, retain_graph=True)
    expected = torch.zeros_like(arena)
    parts = LAYOUT.views(expected)
    parts["place.vector"].fill_(3.0)
    parts["first.bias"].fill_(12.0)
    parts["first.weight"].copy_(2.0 * left @ right)
    parts["clock.time"].copy_(0.25 * (right[:, 0] + right[:, 1]))
    torch.testing.assert_close(found, expected)
    # What was added up is spent: a second way back finds autograd's part alone.
    (again,) = torch.autograd.grad((7.0 * views["first.bias"]).sum(), arena)
    assert again.sum() == 7.0 * 6


def test_decay_touches_matrices_and_not_biases():
    named = LAYOUT.named(LAYOUT.decay_mask())
    assert {name: set(mask.flatten().tolist()) for name, mask in named.items()} == {
        "first.weight": {1.0},
        "first.bias": {0.0},
        "place.vector": {0.0},
        "clock.time": {0.0},
    }


def test_norms_are_those_of_each_modules_numbers():
    ones = torch.stack(
        [LAYOUT.row({n: torch.ones_like(v) for n, v in LAYOUT.named(LAYOUT.initial(0)).items()})]
        * 2
    )
    assert LAYOUT.modules == ("first", "place", "clock")
    expected = torch.tensor([18.0, 14.0, 3.0]).sqrt().expand(2, -1)
    torch.testing.assert_close(LAYOUT.norms(ones), expected)
