import time

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cubeopt.data.building import duplicates


def clustered(count: int, threshold: float, offset: float = 0.0, seed: int = 0) -> Tensor:
    """Rows in families of four, with cosines on both sides of *threshold*, of varying norm.

    *offset* pulls all into one cone.
    """
    generator = torch.Generator().manual_seed(seed)
    width = 96
    centres = torch.randn(count // 4, width, generator=generator)
    centres += offset * torch.randn(1, width, generator=generator)
    rows = centres.repeat(4, 1)
    spread = 2 * (2 - 2 * threshold) ** 0.5 * torch.rand(count, 1, generator=generator)
    noise = torch.randn(count, width, generator=generator) / width**0.5
    rows = rows + spread * noise * rows.norm(dim=1, keepdim=True)
    rows = rows[torch.randperm(count, generator=generator)]
    return rows * (0.5 + torch.rand(count, 1, generator=generator))


def brute_force(rows: Tensor, threshold: float) -> Tensor:
    unit = normalize(rows.double(), dim=1)
    close = (unit @ unit.T >= threshold).triu(1)
    return close.nonzero()


def sure(rows: Tensor, pairs: Tensor, threshold: float) -> set[tuple[int, ...]]:
    """The pairs that rounding alone does not decide."""
    unit = normalize(rows.double(), dim=1)
    cosine = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1)
    return {tuple(pair) for pair in pairs[(cosine - threshold).abs() > 1e-12].tolist()}


@pytest.mark.parametrize(
    ("threshold", "offset"),
    [(0.999, 0.0), (0.999, 2.0), (0.999, 5.0), (0.99, 0.0), (0.96, 0.0), (0.9999, 1.0)],
)
def test_pairs_are_those_of_brute_force(threshold: float, offset: float) -> None:
    rows = clustered(3000, threshold, offset)
    expected = brute_force(rows, threshold)
    assert len(expected) > 200
    found = duplicates.near(rows, threshold)
    assert sure(rows, found, threshold) == sure(rows, expected, threshold)
    assert torch.equal(found, found.unique(dim=0))
    assert bool((found[:, 0] < found[:, 1]).all())


def test_equal_rows_have_a_cosine_of_one_but_for_rounding() -> None:
    rows = clustered(400, 0.999)
    rows[300:] = rows[:100] * 3
    found = {tuple(pair) for pair in duplicates.near(rows, 1 - 1e-6).tolist()}
    assert {(row, row + 300) for row in range(100)} <= found


def test_the_order_of_reading_and_half_precision_do_not_matter() -> None:
    rows = clustered(2000, 0.999)
    found = duplicates.near(rows, 0.999)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(duplicates.near(rows, 0.999, order=order), found)
    assert torch.equal(duplicates.near(rows, 0.999), found)
    halves = rows.half()
    exact = brute_force(halves, 0.999)
    assert sure(halves, duplicates.near(halves, 0.999), 0.999) == sure(halves, exact, 0.999)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_have_no_pairs(count: int) -> None:
    assert duplicates.near(torch.ones(count, 5), 0.999).shape == (0, 2)


def test_a_dense_cluster_is_tied_together_with_bounded_work() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 6000
    dense = torch.randn(1, 64, generator=generator) + 1e-3 * torch.randn(
        count, 64, generator=generator
    )
    begun = time.monotonic()
    pairs = duplicates.near(dense, 0.999)
    assert time.monotonic() - begun < 60
    assert len(pairs) < count * (count - 1) / 2 / 5
    assert bool((duplicates.components(count, pairs) == 0).all())
    kept = duplicates.representatives(count, pairs).unique()
    assert len(kept) <= count / 100
    bound = 4 * count * 96  # checks of a band, for each row, times the most bands
    assert len(pairs) <= bound


def test_many_copies_of_some_rows_leave_the_others_as_they_are() -> None:
    rows = clustered(1000, 0.999)
    copies = rows[5].repeat(500, 1) * torch.linspace(0.5, 2, 500)[:, None]
    both = torch.cat([rows, copies])
    label = duplicates.components(1500, duplicates.near(both, 0.999))
    alone = duplicates.components(1000, brute_force(rows, 0.999))
    assert torch.equal(label[:1000], alone)
    assert bool((label[1000:] == alone[5]).all())


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_a_plain_search(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(300, (220, 2), generator=generator).sort(dim=1).values
    near: dict[int, set[int]] = {row: set() for row in range(300)}
    for one, other in pairs.tolist():
        near[one].add(other)
        near[other].add(one)
    expected = [-1] * 300
    for row in range(300):
        todo = [row] if expected[row] < 0 else []
        while todo:
            each = todo.pop()
            if expected[each] < 0:
                expected[each] = row
                todo += near[each]
    assert duplicates.components(300, pairs).tolist() == expected


def test_a_long_chain_is_one_component() -> None:
    place = torch.randperm(5000, generator=torch.Generator().manual_seed(2))
    pairs = torch.stack([place[:-1], place[1:]], dim=1).sort(dim=1).values
    assert not duplicates.components(5000, pairs).any()


def test_a_row_is_replaced_by_the_first_kept_row_near_it_and_by_no_other() -> None:
    # A chain: 1 goes for 0, and 2, near 1 alone, stays; 4 is near both 2 and 3.
    pairs = torch.tensor([[0, 1], [1, 2], [2, 4], [3, 4]])
    assert duplicates.representatives(6, pairs).tolist() == [0, 0, 2, 3, 2, 5]
    assert duplicates.representatives(6, pairs.flip(0)).tolist() == [0, 0, 2, 3, 2, 5]


def test_kept_rows_are_never_near_each_other_and_replaced_ones_are_near_theirs() -> None:
    rows = clustered(2000, 0.999, seed=4)
    stands = duplicates.representatives(2000, duplicates.near(rows, 0.999))
    kept = stands.unique()
    assert torch.equal(stands[kept], kept)
    assert len(brute_force(rows[kept], 0.999 + 1e-9)) == 0
    unit = normalize(rows.double(), dim=1)
    assert float((unit * unit[stands]).sum(1).min()) >= 0.999 - 1e-9


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_the_code_of_a_band_is_its_bits_wherever_they_lie(bits: int) -> None:
    signs = np.random.default_rng(0).random((20, 8 * bits)) < 0.5
    words = np.packbits(signs, axis=1, bitorder="little").view("<u8")
    signatures = duplicates._Signatures(bits, 8, words, np.zeros(20, dtype=np.int16))
    for band in range(8):
        own = signs[:, band * bits : (band + 1) * bits]
        assert signatures.codes(band).tolist() == (own @ (1 << np.arange(bits))).tolist()
