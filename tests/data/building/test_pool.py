from collections.abc import Callable

import numpy as np
import pytest
import torch
import xxhash

from cubeopt.data.building import pool
from cubeopt.data.building.pool import Pool
from cubeopt.data.reading import sources


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@pytest.fixture
def gathered(save: Callable, save_prepared: Callable, rows: Callable) -> Pool:
    """Two files of three sides with bad rows, halves, and sentences in common."""
    questions, answers = rows(300, 1), rows(300, 2).double()
    answers[7] = torch.nan
    answers[100:110] = questions[:10]
    lone = rows(50, 3)
    lone[5] = 0.0
    lone[40:] = questions[20:30]
    paths = [save_prepared("pairs.pt", questions, answers), save("lone.pt", lone)]
    return pool.gather([sources.read(path) for path in paths], None, silent)


def test_each_usable_row_is_found_again_by_its_number(gathered: Pool) -> None:
    for source, sides in zip(gathered.sources, gathered.numbers, strict=True):
        for number, numbers in enumerate(sides):
            assert len(numbers) == source.usable_rows
            expected = source.side(number, source.good)
            assert torch.equal(gathered.sentences[numbers], expected)


def test_sentences_are_distinct_and_in_the_order_of_their_digests(gathered: Pool) -> None:
    # Nine of the ten questions that are answers too: the row of the tenth is not usable.
    assert len(gathered.sentences) == 299 + 299 + 49 - 9 - 10
    rows = gathered.sentences[torch.arange(len(gathered.sentences))]
    digests = [xxhash.xxh3_128_digest(row) for row in rows.numpy()]
    assert digests == sorted(set(digests))
    assert [
        int(high).to_bytes(8) + int(low).to_bytes(8) for high, low in gathered.digests
    ] == digests


def test_rows_come_in_the_order_in_which_they_are_asked_for(gathered: Pool) -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(len(gathered.sentences), (1000,), generator=generator)
    everything = gathered.sentences[torch.arange(len(gathered.sentences))]
    assert torch.equal(gathered.sentences[numbers], everything[numbers])
    assert gathered.sentences[numbers[:0]].shape == (0, 768)
    assert gathered.sentences[numbers].dtype == torch.float32


def test_without_a_threshold_each_sentence_stands_for_itself(gathered: Pool) -> None:
    own = torch.arange(len(gathered.sentences))
    assert torch.equal(gathered.stands, own)
    assert torch.equal(gathered.component, own)


def test_rows_that_are_not_whole_pieces_are_hashed_all_the_same(
    save: Callable, rows: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources.read(save("lone.pt", rows(100, 1)))
    whole = pool.gather([source], None, silent)
    seen: list[tuple[str, int, int]] = []
    monkeypatch.setattr(pool, "_PIECE_BYTES", 7 * 4 * 768)
    pieces = pool.gather([source], None, lambda *step: seen.append(step))
    assert (whole.digests == pieces.digests).all()
    assert seen == [("hashing rows", done, 100) for done in [*range(7, 100, 7), 100]]


@pytest.mark.parametrize("firsts", [1, 3, 1000, 2**63])
@pytest.mark.parametrize("seconds", [1, 2, 2**63])
def test_digests_are_ordered_by_both_halves_and_equal_ones_as_they_come(firsts, seconds):
    random = np.random.default_rng(firsts % 97 + seconds % 89)
    halves = [random.integers(0, most, 500, dtype=np.uint64) for most in (firsts, seconds)]
    digests = np.stack(halves, axis=1)
    digests = np.concatenate([digests, digests[:200]])
    order, fresh = pool._ordered(digests)
    assert np.array_equal(order, np.lexsort((digests[:, 1], digests[:, 0])))
    ordered = digests[order].tolist()
    assert fresh.tolist() == [
        index == 0 or row != ordered[index - 1] for index, row in enumerate(ordered)
    ]
