"""Noise that depends on a trial's seed, its step and a place, and on nothing else."""

import math

import pytest
import torch

from cubeopt.training import noise
from cubeopt.training.noise import Place

from .conftest import CPU, WHOLE, spec


def place(step=0, **values):
    return Place(spec(**values), step)


def splitmix(key, index):
    """The *index*-th number, from 1, of the stream *key*, in Python's unlimited integers."""
    mask = 2**64 - 1
    z = (key + index * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_integers_are_those_of_splitmix64():
    assert splitmix(1234567, 1) == 6457827717110365317  # the published first number of this seed
    streams = torch.tensor([1234567, -5, 0])
    found = noise.integers(streams, 7)
    mixed = [[splitmix(key, i) for i in range(1, 5)] for key in streams.tolist()]
    expected = [[*(z >> 40 for z in row), *(z >> 16 & 0xFFFFFF for z in row)][:7] for row in mixed]
    assert found.tolist() == expected


def test_the_integers_are_even():
    found = noise.integers(noise.keys("input", [place(3)], CPU), 160_000)[0]
    counts = torch.bincount(found >> 20, minlength=16).double()
    chi_square = float(((counts - 10_000).square() / 10_000).sum())
    assert chi_square < 37.7  # 15 degrees of freedom, 0.1 %
    assert (int(found.min()), int(found.max())) == pytest.approx((0, 2**24), abs=1000)


def test_the_normals_are_normal():
    for count in (99_999, 100_000):
        found = noise.normals(torch.tensor([17]), count, torch.float64)[0]
        assert len(found) == count
        assert float(found.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(count))
        assert float(found.var()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / count))
        assert float(found.pow(4).mean()) == pytest.approx(3.0, abs=0.15)
        below = [float((found < x).double().mean()) for x in (-1.96, -1.0, 0.0, 1.0, 1.96)]
        assert below == pytest.approx([0.025, 0.1587, 0.5, 0.8413, 0.975], abs=0.006)


@pytest.mark.parametrize("other", [place(8), place(7, seed=1), None])
def test_trials_steps_and_purposes_are_independent(other):
    purpose = "dropout" if other is None else "input"
    streams = torch.cat(
        [noise.keys("input", [place(7)], CPU), noise.keys(purpose, [other or place(7)], CPU)]
    )
    drawn = noise.normals(streams, 40_000, torch.float64)
    for shift in (0, 1, 20_000):
        correlation = (drawn[0] * drawn[1].roll(shift)).mean()
        assert float(correlation) == pytest.approx(0.0, abs=4 / math.sqrt(40_000))


def shown(source, places):
    return noise.with_input_noise(source, noise.input_noise(places, source.dtype, CPU))


def kept(shape, places, dtype):
    return noise.kept(shape, noise.dropout(places, dtype, CPU))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_the_same_bits_in_every_slot(dtype):
    noisy = [
        Place(spec(**WHOLE, seed=seed, input_noise=0.3 * seed, dropout=0.2 * seed), step)
        for seed, step in [(1, 4), (2, 9), (0, 4), (3, 0)]
    ]
    source = torch.randn(4, 8, 32, dtype=dtype, generator=torch.Generator().manual_seed(0))
    shape = noisy[0].spec.shape
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 0, 3]):
        places = [noisy[p] for p in order]
        together = shown(source[order], places)
        masks = kept(shape, places, dtype)
        for slot, p in enumerate(order):
            assert torch.equal(together[slot], shown(source[[p]], [noisy[p]])[0])
            alone = kept(shape, [noisy[p]], dtype)
            assert torch.equal(masks[slot], torch.ones_like(masks[0]) if p == 2 else alone[0])
    assert torch.equal(shown(source, [*noisy[:2], noisy[2], None])[2:], source[2:])


def test_input_noise_leaves_the_size_of_its_input():
    source = torch.randn(1, 1000, 32, generator=torch.Generator().manual_seed(0))
    noisy = shown(source, [place(input_noise=2.0)])
    assert float(noisy.std()) == pytest.approx(1.0, abs=0.02)
    expected = 1.0 / math.sqrt(5.0)
    assert float((noisy * source).mean()) == pytest.approx(expected, abs=0.02)


def test_dropout_keeps_what_it_says_at_the_size_it_had():
    places = [place(dropout=0.25), place(), None]
    mask = kept(place().spec.shape, places, torch.float64)
    assert mask.shape == (3, 36, 8, 6)
    assert set(mask[0].flatten().tolist()) == {0.0, 1.0 / 0.75}
    assert float((mask[0] > 0).double().mean()) == pytest.approx(0.75, abs=0.04)
    assert bool((mask[1:] == 1.0).all())


def test_without_noise_nothing_is_drawn():
    source = torch.zeros(2, 8, 32)
    assert shown(source, [place(), None]) is source
    assert kept(place().spec.shape, [place(), None], torch.float32) is None
