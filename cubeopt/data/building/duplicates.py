"""Sentences that are all but equal, found without comparing each with each.

Signed random projections: the signs of a row's projections on random directions differ from those
of another row the more often, the wider the angle between the two. Rows that agree in all signs of
a *band* are candidates; a candidate whose *signature*, all bands together, differs in too many
places is dropped, and of the others the cosine is computed exactly. Rows are centred first: where
all lie in one narrow cone, all would agree.

In a dense cluster the work is bounded: a crowd that shares a band is told apart by further bands,
and rows that share every band are compared with the first of them and with their neighbour alone,
which still ties them all together.

Shapes: M rows of a table, K some of them, D embedding, W words of a signature, P pairs.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int16, UInt32, UInt64
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

THRESHOLDS = (0.95, 1.0)  # below, sentences that differ would be called one

_MISSED = 1e-6  # chance that a pair at the threshold shares no band
_MAX_BANDS = 96
_ROOM = 5.0  # of rows around the centre, in distances of a pair at the threshold
_CROWD = 64  # rows of one band that are compared each with each
_BUDGET = 4  # candidates of a band whose cosine is computed, for each row of the table
_SAMPLE = 4096  # rows that the centre is taken from
_ROUNDING = 1e-4  # of a cosine in float32, many times over
_PIECE = 2048  # rows projected, or pairs compared, at a time: few, for the processor's cache
_BLOCK = 1 << 20  # candidates whose signatures are compared at a time

Progress = Callable[[int, int], None]  # steps done, steps in all


@runtime_checkable
class Table(Protocol):
    """Rows of embeddings that are fetched by their numbers: a tensor, or files."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class _Plan:
    """How rows are projected, for one table and one threshold."""

    centre: Float[Tensor, " D"]  # of the rows at norm 1
    bits: int  # of a band
    bands: int
    chord: float  # between two rows of norm 1 at the threshold


@dataclass(frozen=True)
class _Signatures:
    bits: int  # of a band
    bands: int
    words: UInt64[np.ndarray, "M W"]  # all bits, the first band's lowest
    most: Int16[np.ndarray, " M"]  # signs in which a row near this one may differ from it

    def codes(self, band: int) -> UInt32[np.ndarray, " M"]:
        """The bits of *band* as a number."""
        word, bit = divmod(band * self.bits, 64)
        code = self.words[:, word] >> np.uint64(bit)
        if bit + self.bits > 64:
            code |= self.words[:, word + 1] << np.uint64(64 - bit)
        return (code & np.uint64((1 << self.bits) - 1)).astype(np.uint32)


def near(
    table: Table,
    threshold: float,
    seed: int = 0,
    order: Int[Tensor, " M"] | None = None,
    progress: Progress | None = None,
) -> Int[Tensor, "P 2"]:
    """Pairs of rows of *table* whose cosine is *threshold* or more, each once, smaller row first.

    The chance to miss a pair is about one in a million, less above the threshold; of a dense
    cluster only pairs that tie it together are found. *order* is the order in which the table is
    read best. No row may be zero.
    """
    low, high = THRESHOLDS
    assert low <= threshold <= high, f"a threshold between {low} and {high}, got {threshold}"
    if len(table) < 2:
        return torch.empty(0, 2, dtype=torch.int64)
    tell = progress or (lambda done, total: None)
    order = torch.arange(len(table)) if order is None else order
    plan = _plan(table, threshold)
    signatures = _signatures(table, plan, seed, order, tell)
    seen = np.empty(0, dtype=np.int64)
    found = [seen]
    with ThreadPoolExecutor(2) as pool:  # two bands at a time: what one holds is bounded, not small
        bands = pool.map(lambda band: _candidates(signatures, band), range(plan.bands))
        for band, candidates in enumerate(bands, start=1):
            fresh = np.setdiff1d(candidates, seen, assume_unique=True)
            found.append(fresh[_close(table, fresh, threshold)])
            seen = np.sort(np.concatenate([seen, fresh]))
            tell(plan.bands + band, 2 * plan.bands)
    keys = np.sort(np.concatenate(found))
    return torch.from_numpy(np.stack(np.divmod(keys, len(table)), axis=1))


def components(count: int, pairs: Int[Tensor, "P 2"]) -> Int[Tensor, " M"]:
    """For each of *count* rows the first row that *pairs* tie it to, over any number of pairs."""
    label = np.arange(count)
    one, other = pairs.numpy().T
    while (label[one] != label[other]).any():
        low = np.minimum(label[one], label[other])
        np.minimum.at(label, np.maximum(label[one], label[other]), low)
        while (label[label] != label).any():
            label = label[label]
    return torch.from_numpy(label)


def representatives(count: int, pairs: Int[Tensor, "P 2"]) -> Int[Tensor, " M"]:
    """For each of *count* rows the row that stands for it: itself, or the first kept one near it.

    Rows are kept in their order; one that is near a kept row is not.
    """
    stands = list(range(count))
    by_later = np.lexsort((pairs[:, 0].numpy(), pairs[:, 1].numpy()))
    for first, later in pairs[torch.from_numpy(by_later)].tolist():
        if stands[later] == later and stands[first] == first:
            stands[later] = first
    return torch.tensor(stands, dtype=torch.int64)


def _plan(table: Table, threshold: float) -> _Plan:
    rows = torch.linspace(0, len(table) - 1, min(len(table), _SAMPLE), dtype=torch.float64).long()
    sample = normalize(table[rows].double(), dim=1)
    chord = math.sqrt(2 - 2 * threshold)
    centre, radius = _centre(sample, _ROOM * chord)
    # The chance that one sign differs. Equal rows differ by rounding alone, so never take zero.
    differs = max(2 * math.asin(min(1.0, chord / 2 / radius)) / math.pi, 1e-3)
    largest = 16 if len(table) <= 1 << 14 else 24 if len(table) <= 1 << 22 else 32
    for bits in range(largest, 8, -8):
        wanted = math.ceil(math.log(_MISSED) / math.log1p(-((1 - differs) ** bits)))
        if wanted <= _MAX_BANDS:
            break
    bands = min(max(wanted, 4), _MAX_BANDS)
    return _Plan(centre.float(), bits, bands, chord)


def _centre(sample: Float[Tensor, "K D"], room: float) -> tuple[Float[Tensor, " D"], float]:
    """What to take from each row, and how far from it rows then are, which is *room* at least.

    It is the mean or, where rows lie so close to it that a pair at the threshold would be torn
    apart, a part of the mean.
    """
    mean = sample.mean(0)
    square = max(float(mean.square().sum()), 1e-12)
    share = min(1.0, max(0.0, 1 - room**2) / square)  # of what the whole mean would take away
    return mean * (1 - math.sqrt(1 - share)), math.sqrt(max(1 - share * square, 1e-12))


def _signatures(
    table: Table,
    plan: _Plan,
    seed: int,
    order: Int[Tensor, " M"],
    tell: Progress,
) -> _Signatures:
    count, signs = len(table), plan.bits * plan.bands
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(plan.centre), signs, generator=generator)
    middle = (plan.centre @ directions).numpy()
    # With the centre for one direction more, its product costs no pass of its own.
    directions = torch.cat([directions, plan.centre[:, None]], dim=1)
    words = np.zeros((count, -(-signs // 64)), dtype="<u8")
    most = np.empty(count, dtype=np.int16)
    bytes_of = words.view(np.uint8)
    square = float(plan.centre.square().sum())

    def project(numbers: Int[Tensor, " K"]) -> int:
        rows = table[numbers].float()
        along = (rows @ directions).numpy()
        norms = torch.linalg.vector_norm(rows, dim=1).numpy()
        above = along[:, :signs] > norms[:, None] * middle
        packed = np.packbits(above, axis=1, bitorder="little")
        bytes_of[numbers.numpy(), : packed.shape[1]] = packed
        radius = np.sqrt((1 - 2 * along[:, signs] / norms + square).clip(1e-12))
        most[numbers.numpy()] = _most(radius, plan.chord, signs)
        return len(rows)

    done = 0
    with ThreadPoolExecutor(2) as pool:  # one piece is fetched and packed beside another's product
        for rows in pool.map(project, order.split(_PIECE)):
            done += rows
            tell(plan.bands * done // count, 2 * plan.bands)
    return _Signatures(plan.bits, plan.bands, words, most)


def _most(radius: Float[np.ndarray, " K"], chord: float, signs: int) -> Int16[np.ndarray, " K"]:
    """The signs that turn on the way to a row at the threshold, and six deviations more."""
    half = (chord / 2 / radius).clip(max=1.0)
    expected = signs * 2 * np.arcsin(half) / np.pi + 1  # that one: by rounding near zero
    return (expected + 6 * np.sqrt(expected)).astype(np.int16)


def _candidates(signatures: _Signatures, band: int) -> Int[np.ndarray, " P"]:
    """Pairs that share *band* and whose signatures fit, as first * M + second, sorted."""
    words, most = signatures.words, signatures.most
    found, distances = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for one, other in _meetings(signatures, band):
        differing = np.bitwise_count(words[one] ^ words[other]).sum(1, dtype=np.int64)
        alike = differing <= np.maximum(most[one], most[other])
        one, other = one[alike], other[alike]
        found.append(np.minimum(one, other) * len(words) + np.maximum(one, other))
        distances.append(differing[alike])
    pairs, first = np.unique(np.concatenate(found), return_index=True)
    budget = _BUDGET * len(words)
    if len(pairs) > budget:  # then the likeliest alone
        nearest = np.argsort(np.concatenate(distances)[first], kind="stable")[:budget]
        pairs = np.sort(pairs[nearest])
    return pairs


def _meetings(
    signatures: _Signatures, band: int
) -> Iterator[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]]:
    """Rows that share *band*, in pairs, some at a time.

    Of a crowd each row meets the first and the one beside it, and those that share further bands.
    """
    order, begins = _sorted(signatures.codes(band))
    crowded = _crowded(begins)
    if crowded.any():
        firsts = order[begins][np.cumsum(begins) - 1]  # the sorting is stable: the smallest number
        order, finer = _refined(signatures, band, order, begins)
        beside = np.flatnonzero(crowded & ~begins)
        yield order[beside - 1], order[beside]
        apart = crowded & (firsts != order)
        yield firsts[apart], order[apart]
        begins = finer
    starts, sizes = _runs(begins)
    active = np.flatnonzero(~begins) - 1  # those with another of the same run behind them
    ends = np.repeat(np.where(sizes > _CROWD, 0, starts + sizes), sizes - 1)
    for step in range(1, _CROWD):
        more = active + step < ends
        active, ends = active[more], ends[more]
        for some in np.array_split(active, -(-len(active) // _BLOCK) or 1):
            yield order[some], order[some + step]


def _sorted(
    codes: UInt32[np.ndarray, " M"],
) -> tuple[Int[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """Stable places of ascending *codes*, and where each run of equal ones starts.

    Sorting both as one number is several times quicker.
    """
    both = codes.astype(np.uint64) << np.uint64(32) | np.arange(len(codes), dtype=np.uint64)
    both.sort()
    begins = np.append(True, np.diff(both >> np.uint64(32)) != 0)
    return (both & np.uint64(0xFFFFFFFF)).astype(np.int64), begins


def _crowded(begins: Bool[np.ndarray, " M"]) -> Bool[np.ndarray, " M"]:
    """The places of runs that are crowds, where *begins* says where each run starts."""
    _, sizes = _runs(begins)
    return np.repeat(sizes > _CROWD, sizes)


def _runs(
    begins: Bool[np.ndarray, " M"],
) -> tuple[Int[np.ndarray, " runs"], Int[np.ndarray, " runs"]]:
    """Where each run starts, and how long it is."""
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=len(begins))


def _refined(
    signatures: _Signatures,
    band: int,
    order: Int[np.ndarray, " M"],
    begins: Bool[np.ndarray, " M"],
) -> tuple[Int[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """*order* and *begins* with crowds sorted by the bands after *band*, while they are crowds."""
    order, begins = order.copy(), begins.copy()
    for further in range(1, signatures.bands):
        crowd = np.flatnonzero(_crowded(begins))
        if not len(crowd):
            break
        run = np.cumsum(begins)[crowd]
        code = signatures.codes((band + further) % signatures.bands)[order[crowd]]
        again = np.lexsort((code, run))
        order[crowd] = order[crowd][again]
        begins[crowd[1:]] |= np.diff(code[again]) != 0
    return order, begins


def _close(table: Table, keys: Int[np.ndarray, " P"], threshold: float) -> Bool[np.ndarray, " P"]:
    """Of which pairs the cosine is *threshold* or more; in float64 where float32 cannot tell."""
    close = [np.empty(0, dtype=bool)]
    for some in np.array_split(keys, -(-len(keys) // _PIECE) or 1):
        first, second = (torch.from_numpy(each) for each in np.divmod(some, len(table)))
        one, other = table[first], table[second]
        cosine = cosine_similarity(one.float(), other.float(), eps=0.0)
        far = cosine < threshold - _ROUNDING
        cosine = cosine.double()
        cosine[~far] = cosine_similarity(one[~far].double(), other[~far].double(), eps=0.0)
        close.append((cosine >= threshold).numpy())
    return np.concatenate(close)
