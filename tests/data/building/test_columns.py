import numpy as np
import pytest

from cubeopt.data.building import columns


# Numbers that fit into one, into two, and some that each need their own.
@pytest.mark.parametrize("largest", [(3, 4, 2), (1 << 20, 1 << 30, 1 << 30), (1 << 62, 1 << 61, 9)])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_ascending_rows_are_those_of_a_plain_sort(largest: tuple[int, ...], count: int) -> None:
    generator = np.random.default_rng(0)
    few = [generator.integers(0, each, 4, endpoint=True) for each in largest]
    keys = [generator.choice(each, count) for each in few]
    flags = generator.random(count) < 0.5
    expected = sorted(range(count), key=lambda row: (*(key[row] for key in keys), flags[row]))
    assert columns.ascending(*keys, flags).tolist() == expected
