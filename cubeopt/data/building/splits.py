"""Groups of rows shared out among train, validation and test, so that no text is on two sides.

Raw groups that share a sentence are made one while that stays small. A sentence that many share
("yes", "hello") would make everything one group: it belongs to the split that holds most of its
rows, and the rows of other splits that hold it are left out.

Shapes: N rows, G raw groups, K merged groups, U sentences (components are numbered as their first
sentence), S strata.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

from cubeopt.data.dataset import SPLITS, TASKS

_SHARE = 0.25  # of the smallest split, at most, that groups made one may be
_MANY = 32  # groups alike in stratum and size are shared out together

Numbers = Int[np.ndarray, " N"]
Sizes = Int[np.ndarray, "K S"]  # rows of each stratum


@dataclass(frozen=True, eq=False)
class Members:
    """Distinct rows, each with its raw group, its stratum (task and corpus) and its components."""

    group: Numbers
    stratum: Numbers  # corpus * len(TASKS) + task
    source: Numbers  # component
    target: Numbers


@dataclass(frozen=True, eq=False)
class Splits:
    """Where every raw group and every component belongs."""

    group: Int[np.ndarray, " G"]  # -1: a group without rows
    merged: Int[np.ndarray, " G"]  # the number of the group that it became a part of
    component: Int[np.ndarray, " U"]  # -1: a component without rows


def assign(
    members: Members,
    keys: UInt64[np.ndarray, " G"],
    components: int,
    fractions: Sequence[float],
    seed: int,
) -> Splits:
    """A split for every group, so that each stratum comes near *fractions* by rows.

    Groups come in an order drawn by *seed* from their *keys*.
    """
    strata, stratum = np.unique(members.stratum, return_inverse=True)
    present, group = np.unique(members.group, return_inverse=True)
    sizes = _counted(group, stratum, len(present), len(strata))
    together = _merge(_sharing(group, members), sizes, min(fractions))
    # Numbered by the smallest key of their parts, so by content alone.
    rank = np.empty(len(present), dtype=np.int64)
    rank[np.lexsort((present, keys[present]))] = np.arange(len(present))
    first = np.full(len(present), len(present))
    np.minimum.at(first, together, rank)
    firsts, merged = np.unique(first[together], return_inverse=True)
    whole = _counted(merged[group], stratum, len(firsts), len(strata))
    drawn = _drawn(keys[present][np.argsort(rank)[firsts]], seed)
    split = _share_out(drawn, whole, np.array(fractions))
    _fill_empty(split, whole, drawn, strata % len(TASKS))
    of_group, of_merged = np.full(len(keys), -1), np.full(len(keys), -1)
    of_group[present], of_merged[present] = split[merged], merged
    return Splits(of_group, of_merged, _of_components(members, of_group, components))


def _counted(group: Numbers, stratum: Numbers, groups: int, strata: int) -> Sizes:
    counts = np.bincount(group * strata + stratum, minlength=groups * strata)
    return counts.reshape(groups, strata)


def _sharing(group: Numbers, members: Members) -> Iterator[list[int]]:
    """The groups that share a component, of each component; the least shared first."""
    count = int(group.max()) + 1
    shared = np.concatenate([members.source, members.target])
    both = np.sort(shared * count + np.concatenate([group, group]))
    both = both[np.append(True, np.diff(both) != 0)]
    component, group = np.divmod(both, count)
    starts = np.flatnonzero(np.append(True, np.diff(component) != 0))
    degrees = np.diff(np.append(starts, len(both)))
    several = np.flatnonzero(degrees > 1)
    several = several[np.argsort(degrees[several], kind="stable")]
    groups, begins = group.tolist(), starts[several]
    ends = begins + degrees[several]
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        yield groups[begin:end]


def _merge(sharing: Iterable[list[int]], sizes: Sizes, smallest: float) -> Int[np.ndarray, " K"]:
    """For each group the one that it is made one with, as long as what comes of it is small."""
    parent = list(range(len(sizes)))
    weight = sizes.copy()
    limits = _SHARE * smallest * sizes.sum(axis=0)

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for groups in sharing:
        roots = sorted({root(group) for group in groups})
        together = weight[roots].sum(axis=0)
        # A stratum that they have no rows of does not speak against it.
        if (together[together > 0] <= limits[together > 0]).all():
            weight[roots[0]] = together
            for each in roots:
                parent[each] = roots[0]
    return np.array([root(group) for group in parent], dtype=np.int64)


def _drawn(keys: UInt64[np.ndarray, " K"], seed: int) -> Int[np.ndarray, " K"]:
    """Groups in an order that looks random, and that other groups do not change."""
    return np.argsort(_mixed(keys ^ _mixed(np.array([seed], dtype=np.uint64))), kind="stable")


def _mixed(keys: UInt64[np.ndarray, " K"]) -> UInt64[np.ndarray, " K"]:
    """The finaliser of SplitMix64, which leaves no pattern of *keys*."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _share_out(
    drawn: Int[np.ndarray, " K"], sizes: Sizes, fractions: Float[np.ndarray, " 3"]
) -> Int[np.ndarray, " K"]:
    """A split for every group: first for those unlike others, then many alike at a time.

    Groups are alike that have the same number of rows, all of one stratum.
    """
    rows, main = sizes.sum(axis=1), sizes.argmax(axis=1)
    alike = np.where(sizes.max(axis=1) == rows, rows * sizes.shape[1] + main, -1)
    kinds, kind, count = np.unique(alike, return_inverse=True, return_counts=True)
    count[kinds == -1] = 0
    missing = fractions[:, None] * sizes.sum(axis=0)
    split = np.full(len(sizes), -1)
    _one_by_one(drawn[count[kind[drawn]] < _MANY], sizes, missing, split)
    for number in np.argsort(-kinds, kind="stable"):  # the largest first: the small fit anywhere
        if count[number] >= _MANY:
            each, stratum = divmod(int(kinds[number]), sizes.shape[1])
            shares = _quotas(missing[:, stratum], int(count[number]))
            split[drawn[kind[drawn] == number]] = np.repeat(np.arange(len(shares)), shares)
            missing[:, stratum] -= shares * each
    return split


def _one_by_one(
    drawn: Int[np.ndarray, " some"],
    sizes: Sizes,
    missing: Float[np.ndarray, "3 S"],
    split: Int[np.ndarray, " K"],
) -> None:
    """Each group goes where most is missing of the stratum that it has most rows of.

    That is: the largest share of what a split should hold, where the group still fits; where it
    fits nowhere, most rows.
    """
    wanted = missing.copy()
    for group in drawn:
        stratum = sizes[group].argmax()
        lacking = missing[:, stratum]
        fits = lacking >= sizes[group, stratum]
        chosen = np.where(fits, lacking / wanted[:, stratum], -1) if fits.any() else lacking
        split[group] = chosen.argmax()
        missing[split[group]] -= sizes[group]


def _quotas(missing: Float[np.ndarray, " 3"], count: int) -> Int[np.ndarray, " 3"]:
    """*count* divided as *missing* is; what rounding leaves goes to the largest remainders."""
    shares = missing.clip(0)
    if not shares.any():
        shares = np.ones(len(missing))
    exact = count * shares / shares.sum()
    quotas = np.floor(exact).astype(np.int64)
    remainders = np.argsort(quotas - exact, kind="stable")
    quotas[remainders[: count - quotas.sum()]] += 1
    return quotas


def _fill_empty(
    split: Int[np.ndarray, " K"],
    sizes: Sizes,
    drawn: Int[np.ndarray, " K"],
    task: Int[np.ndarray, " S"],
) -> None:
    """Give each split without a group of some task the smallest one of the richest split."""
    for code in np.unique(task):
        having = drawn[sizes[drawn][:, task == code].any(axis=1)]
        for place in range(len(SPLITS)):
            held = np.bincount(split[having], minlength=len(SPLITS))
            if len(having) < len(SPLITS) or held[place]:
                continue
            donors = having[split[having] == held.argmax()]
            split[donors[sizes[donors].sum(axis=1).argmin()]] = place


def _of_components(
    members: Members, split: Int[np.ndarray, " G"], components: int
) -> Int[np.ndarray, " U"]:
    """The split that holds most rows of each component, the earliest of several."""
    held = np.zeros((components, len(SPLITS)), dtype=np.int64)
    for side in (members.source, members.target):
        np.add.at(held, (side, split[members.group]), 1)
    return np.where(held.any(axis=1), held.argmax(axis=1), -1)
