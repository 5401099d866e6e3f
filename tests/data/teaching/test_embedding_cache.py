"""What was embedded once is found again, and nothing else is."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cubeopt.data.teaching import embedding_cache
from cubeopt.data.teaching.embedding_cache import Cache

WIDTH = 5


def digests(*texts: str) -> np.ndarray:
    joined = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)


def rows_of(*texts: str) -> np.ndarray:
    """A row for each text that only the text decides."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
    return np.stack([np.random.default_rng(seed).random(WIDTH, np.float32) for seed in seeds])


def keep(folder: Path, *texts: str) -> None:
    """Put *texts* into one shard; those that begin with "long" are truncated ones."""
    cache = Cache(folder, WIDTH, digests(*texts))
    truncated = np.array([text.startswith("long") for text in texts])
    cache.add(np.arange(len(texts)), rows_of(*texts), truncated)
    cache.flush()


def test_texts_are_found_whatever_shards_and_orders_they_stand_in(tmp_path: Path) -> None:
    texts = [f"{'long ' if number % 7 == 0 else ''}text {number}" for number in range(200)]
    random = np.random.default_rng(1)
    kept: set[str] = set()
    for _ in range(6):  # some stand in several shards
        some = [texts[number] for number in random.permutation(200)[:30]]
        keep(tmp_path, *some)
        kept |= set(some)
    asked = [texts[number] for number in random.permutation(200)]
    cache = Cache(tmp_path, WIDTH, digests(*asked))
    missing = [asked[number] for number in cache.missing()]
    assert missing == [text for text in asked if text not in kept]
    known = np.array([number for number, text in enumerate(asked) if text in kept])
    shuffled = random.permutation(np.concatenate([known, known]))  # any order, also twice
    expected = rows_of(*(asked[number] for number in shuffled))
    np.testing.assert_array_equal(cache.rows(shuffled), expected)
    truncated = {asked[number] for number in np.flatnonzero(cache.truncated)}
    assert truncated == {text for text in kept if text.startswith("long")}
    assert cache.damaged == []


def test_a_text_with_half_the_digest_of_another_is_another(tmp_path: Path) -> None:
    both = digests("one", "two")
    both = np.stack([both[0], np.concatenate([both[0, :8], both[1, 8:]])])
    first = Cache(tmp_path, WIDTH, both[:1])
    first.add(np.arange(1), rows_of("one"), np.zeros(1, dtype=bool))
    first.flush()
    assert Cache(tmp_path, WIDTH, both[1:]).missing().tolist() == [0]
    assert Cache(tmp_path, WIDTH, both).missing().tolist() == [1]
    assert Cache(tmp_path, WIDTH, both[:1]).missing().tolist() == []


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda content: content[: len(content) // 2], "truncated or damaged"),
        (lambda content: b"", "truncated or damaged"),
        (lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "checksum"),
        (lambda content: content.replace(b'"digests"', b'"digestz"'), "damaged"),
        (lambda content: content.replace(b"[2, 5]", b"[5, 2]"), "do not fit"),
    ],
)
def test_a_damaged_shard_is_named_and_its_texts_are_missing(
    tmp_path: Path, harm: object, reason: str
) -> None:
    keep(tmp_path, "one", "two")
    (shard,) = tmp_path.iterdir()
    shard.write_bytes(harm(shard.read_bytes()))  # type: ignore[operator]
    keep(tmp_path, "three")
    cache = Cache(tmp_path, WIDTH, digests("one", "three", "two"))
    assert cache.missing().tolist() == [0, 2]
    (line,) = cache.damaged
    assert line.startswith(f"{shard}: ")
    assert reason in line
    np.testing.assert_array_equal(cache.rows(np.array([1])), rows_of("three"))
    cache.add(np.array([0, 2]), rows_of("one", "two"), np.zeros(2, dtype=bool))
    cache.flush()
    assert Cache(tmp_path, WIDTH, digests("one", "two")).missing().tolist() == []


def test_shards_of_another_width_are_not_mixed_in(tmp_path: Path) -> None:
    keep(tmp_path, "one")
    cache = Cache(tmp_path, 6, digests("one"))
    assert cache.missing().tolist() == [0]
    assert "expected width 6, got 5" in cache.damaged[0]


def test_a_shard_is_written_when_it_is_full_and_when_it_has_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number}" for number in range(10)]
    monkeypatch.setattr(embedding_cache, "SHARD_TEXTS", 4)
    cache = Cache(tmp_path, WIDTH, digests(*texts))
    counts = []
    for number, text in enumerate(texts):
        cache.add(np.array([number]), rows_of(text), np.zeros(1, dtype=bool))
        counts.append(len(list(tmp_path.iterdir())))
    assert counts == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert cache.missing().tolist() == [8, 9]
    monkeypatch.setattr(embedding_cache, "SHARD_SECONDS", 0.0)
    cache.add(np.array([9]), rows_of("text 9"), np.zeros(1, dtype=bool))
    assert cache.missing().tolist() == []
    np.testing.assert_array_equal(cache.rows(np.arange(10)), rows_of(*texts))
    cache.flush()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_of_nothing_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"")
    cache = Cache(tmp_path, WIDTH, digests())
    assert cache.missing().tolist() == []
    assert cache.damaged == []
