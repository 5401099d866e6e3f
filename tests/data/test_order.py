"""The order of an epoch: by seed and epoch alone, each corpus with its share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cubeopt.data.order import Mixture, batches, mixture


def corpora(*sizes: int) -> torch.Tensor:
    """A column of corpus codes, mixed up."""
    codes = torch.arange(len(sizes), dtype=torch.uint8).repeat_interleave(torch.tensor(sizes))
    return codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(3))]


def visits(each: Mixture, epochs: range, seed: int = 0) -> torch.Tensor:
    """How often each row comes in these epochs."""
    rows = torch.cat([each.order(seed, epoch) for epoch in epochs])
    return torch.bincount(rows, minlength=each.count)


def test_with_equal_weights_every_row_comes_exactly_once_an_epoch() -> None:
    for weight in (1.0, 0.1):
        plain = mixture(corpora(7, 30, 1), dict.fromkeys(range(3), weight))
        for epoch in (0, 1, 17):
            assert torch.equal(plain.order(5, epoch).sort().values, torch.arange(38))


def test_an_order_depends_on_seed_and_epoch_and_on_nothing_before() -> None:
    codes, weights = corpora(20, 50), {0: 3.0, 1: 0.5}
    walked = [mixture(codes, weights).order(1, epoch) for epoch in range(6)]
    assert torch.equal(mixture(codes, weights).order(1, 5), walked[5])
    assert not torch.equal(walked[4], walked[5])
    assert not torch.equal(mixture(codes, weights).order(2, 5), walked[5])
    # Studies of different years compare only while this stays what it is.
    plain = mixture(torch.zeros(6, dtype=torch.uint8), {0: 1.0})
    assert plain.order(0, 0).tolist() == [5, 3, 4, 2, 0, 1]


def test_epochs_have_the_size_of_the_split_and_each_corpus_its_share() -> None:
    codes = corpora(100, 300, 600)
    mixed = mixture(codes, {0: 4.0, 1: 1.0, 2: 0.5})  # 400 : 300 : 300 of 1000
    for epoch in range(5):
        order = mixed.order(9, epoch)
        assert len(order) == 1000
        assert torch.bincount(codes[order].long()).tolist() == [400, 300, 300]


def test_a_corpus_taken_more_than_once_repeats_whole_permutations() -> None:
    codes = corpora(100, 300, 600)
    mixed = mixture(codes, {0: 4.0, 1: 1.0, 2: 0.5})
    times = visits(mixed, range(1))
    assert set(times[codes == 0].tolist()) == {4}
    assert set(times[codes == 1].tolist()) == {1}


def test_a_corpus_taken_less_is_walked_through_in_successive_epochs() -> None:
    codes = corpora(100, 300, 600)
    mixed = mixture(codes, {0: 4.0, 1: 1.0, 2: 0.5})
    for first in (0, 2, 8):
        assert set(visits(mixed, range(first, first + 2))[codes == 2].tolist()) == {1}
    assert set(visits(mixed, range(1))[codes == 2].tolist()) == {0, 1}


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    weights=st.lists(st.floats(0.0, 50.0), min_size=5, max_size=5),
    seed=st.integers(0, 2**31 - 1),
    start=st.integers(0, 10**6),
)
def test_nothing_is_forgotten_and_nothing_preferred(
    sizes: list[int], weights: list[float], seed: int, start: int
) -> None:
    """In any run of epochs, rows of one corpus are visited equally often but for two."""
    if not any(weight > 0 for weight in weights[: len(sizes)]):
        weights[0] = 1.0
    codes = corpora(*sizes)
    mixed = mixture(codes, dict(enumerate(weights)))
    times = visits(mixed, range(start, start + 7), seed)
    assert int(times.sum()) == 7 * len(codes)
    exact = [weight * size for weight, size in zip(weights, sizes, strict=False)]
    taken = [int(times[codes == corpus].sum()) for corpus in range(len(sizes))]
    for corpus, each in enumerate(taken):
        held = times[codes == corpus]
        assert int(held.max() - held.min()) <= 2
        assert (each > 0) == (weights[corpus] > 0)
        share = 7 * len(codes) * exact[corpus] / sum(exact)
        assert abs(each - share) <= 7 * len(sizes)


def test_each_row_of_a_rare_corpus_comes_once_in_its_turn() -> None:
    codes = corpora(10, 90)
    mixed = mixture(codes, {0: 1e-9, 1: 1.0})  # at least one row an epoch
    assert visits(mixed, range(40, 50))[codes == 0].tolist() == [1] * 10


def test_a_weight_of_nought_leaves_a_corpus_out() -> None:
    codes = corpora(10, 30)
    times = visits(mixture(codes, {0: 0.0, 1: 2.0}), range(3))
    assert times[codes == 0].tolist() == [0] * 10
    assert int(times.sum()) == 120


def test_batches_fill_the_last_one_from_the_start_of_the_order() -> None:
    rows = torch.tensor([4, 2, 0, 1, 3])
    assert batches(rows, 2).tolist() == [[4, 2], [0, 1], [3, 4]]
    assert batches(rows, 12).tolist() == [[4, 2, 0, 1, 3, 4, 2, 0, 1, 3, 4, 2]]


@pytest.mark.parametrize("weights", [{0: 0.0, 1: 0.0}])
def test_a_mixture_of_nothing_is_a_mistake_of_the_caller(weights: dict[int, float]) -> None:
    with pytest.raises(AssertionError, match="a corpus whose weight is not 0"):
        mixture(corpora(1, 1), weights)
