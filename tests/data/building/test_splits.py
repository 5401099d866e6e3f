from collections import defaultdict

import numpy as np
import pytest

from cubeopt.data.building import splits
from cubeopt.data.building.splits import Members, Splits
from cubeopt.data.dataset import TASKS

FRACTIONS = (0.8, 0.1, 0.1)
OF_ANOTHER_CORPUS = len(TASKS)  # a stratum: the same task, the next corpus


def keys(groups: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 2**63, groups, dtype=np.uint64)


def members(rows: list[tuple[int, int, int, int]]) -> Members:
    """Each row: group, stratum, component of the source, component of the target."""
    group, stratum, source, target = np.array(rows, dtype=np.int64).T
    return Members(group, stratum, source, target)


def apart(sizes: list[int], stratum: int = 0, first: int = 0) -> list[tuple[int, int, int, int]]:
    """Groups of *sizes* rows that share no sentence, numbered from *first*."""
    rows = []
    for group, size in enumerate(sizes, start=first):
        rows += [
            (group, stratum, 1000 * group + 2 * row, 1000 * group + 2 * row + 1)
            for row in range(size)
        ]
    return rows


def shared_out(rows: list[tuple[int, int, int, int]], seed: int = 0) -> Splits:
    held = members(rows)
    groups = int(held.group.max()) + 1
    components = int(max(held.source.max(), held.target.max())) + 1
    return splits.assign(held, keys(groups), components, FRACTIONS, seed)


def rows_by_split(
    rows: list[tuple[int, int, int, int]], split: np.ndarray, stratum: int
) -> list[int]:
    counts = [0, 0, 0]
    for group, of, _, _ in rows:
        counts[split[group]] += of == stratum
    return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [[1] * 300, [3] * 100, [1, 2, 3, 4] * 50, list(range(1, 60))])
def test_a_stratum_comes_near_the_fractions_by_rows(sizes: list[int], seed: int) -> None:
    rows = apart(sizes)
    counts = rows_by_split(rows, shared_out(rows, seed).group, 0)
    total = sum(sizes)
    for count, part in zip(counts, FRACTIONS, strict=True):
        assert abs(count - part * total) <= max(sizes)


def test_single_rows_are_shared_out_exactly() -> None:
    rows = apart([1] * 200)
    assert rows_by_split(rows, shared_out(rows).group, 0) == [160, 20, 20]


def test_every_stratum_comes_near_the_fractions_not_only_their_sum() -> None:
    rows = apart([5] * 100) + apart([2] * 50, OF_ANOTHER_CORPUS, first=100)
    rows += apart([7, 3] * 15, 2, first=150)
    split = shared_out(rows).group
    assert rows_by_split(rows, split, 0) == [400, 50, 50]
    assert rows_by_split(rows, split, OF_ANOTHER_CORPUS) == [80, 10, 10]
    counts = rows_by_split(rows, split, 2)
    assert counts == pytest.approx([120, 15, 15], abs=7)


def test_the_seed_decides_and_equal_seeds_decide_equally() -> None:
    rows = apart([1, 2, 3] * 40)
    one, again, other = (shared_out(rows, seed).group for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert 20 < (one != other).sum() < 80


def test_numbers_of_groups_and_the_order_of_rows_change_nothing() -> None:
    rows = apart([1, 2, 3, 5, 8] * 20)
    content = keys(100)
    plain = splits.assign(members(rows), content, 100_000, FRACTIONS, 3)
    generator = np.random.default_rng(1)
    moved = generator.permutation(100)  # the new number of each group
    turned = [(int(moved[group]), *rest) for group, *rest in rows]
    generator.shuffle(turned)
    content_moved = np.empty_like(content)
    content_moved[moved] = content
    other = splits.assign(members(turned), content_moved, 100_000, FRACTIONS, 3)
    assert np.array_equal(other.group[moved], plain.group)
    assert np.array_equal(other.merged[moved], plain.merged)
    assert np.array_equal(other.component, plain.component)


def test_one_group_more_moves_few_others() -> None:
    rows = apart([1] * 1000)
    content = keys(1001)
    one = splits.assign(members(rows), content, 2_000_000, FRACTIONS, 0).group[:1000]
    more = apart([1] * 1001)
    other = splits.assign(members(more), content, 2_000_000, FRACTIONS, 0).group[:1000]
    assert (one != other).sum() <= 3


def test_groups_that_share_a_sentence_become_one_while_that_is_small() -> None:
    rows = apart([2] * 200)
    # Group 2n and 2n + 1 share a sentence for n < 20.
    rows += [
        (2 * pair + side, 0, 900_000 + pair, 950_000 + 2 * pair + side)
        for pair in range(20)
        for side in (0, 1)
    ]
    made = shared_out(rows)
    for pair in range(20):
        assert made.merged[2 * pair] == made.merged[2 * pair + 1]
        assert made.group[2 * pair] == made.group[2 * pair + 1]
    assert len(np.unique(made.merged)) == 180


def test_a_chain_of_shared_sentences_stays_below_its_limit() -> None:
    rows = apart([1] * 400)
    rows += [
        (group + side, 0, 900_000 + group, 900_000 + group)
        for group in range(399)
        for side in (0, 1)
    ]
    made = shared_out(rows)
    size = defaultdict(int)
    for group, *_ in rows:
        size[made.merged[group]] += 1
    assert max(size.values()) <= 0.25 * 0.1 * len(rows)
    assert len(size) < 400


@pytest.mark.parametrize("seed", range(6))
def test_what_all_share_belongs_to_the_split_with_most_of_its_rows(seed: int) -> None:
    rows = apart([3] * 10)
    rows += [(group, 0, 999_999, 500_000 + group) for group in range(10)]
    made = shared_out(rows, seed)
    assert made.component[999_999] == 0
    later = [group for group in range(10) if made.group[group] != 0]
    assert all(made.component[500_000 + group] == made.group[group] for group in later)


def test_a_sentence_that_is_mostly_in_validation_stays_there() -> None:
    rows = apart([20] * 30)
    made = shared_out(rows)
    later = int(np.flatnonzero(made.group == 1)[0])
    trained = int(np.flatnonzero(made.group == 0)[0])
    rows += [(later, 0, 900_000, 900_001 + row) for row in range(5)] + [
        (trained, 0, 900_000, 910_000)
    ]
    again = shared_out(rows)
    assert again.component[900_000] == again.group[later]


@pytest.mark.parametrize("seed", range(5))
def test_few_groups_fill_every_split_of_every_task(seed: int) -> None:
    nli = 2
    rows = apart([50, 3, 20]) + apart([4, 4, 40], OF_ANOTHER_CORPUS + nli, first=3)
    split = shared_out(rows, seed).group
    assert sorted(split[:3]) == [0, 1, 2]
    assert sorted(split[3:]) == [0, 1, 2]


def test_groups_and_components_without_rows_belong_nowhere() -> None:
    rows = [(group, 0, 2 * group, 2 * group) for group in range(5, 45)]
    made = splits.assign(members(rows), keys(60), 100, FRACTIONS, 0)
    assert set(made.group[:5]) | set(made.group[45:]) == {-1}
    assert set(made.component[1::2]) == {-1}
    assert (made.component[10:90:2] == made.group[5:45]).all()
    assert sorted(made.merged[5:45]) == list(range(40))
