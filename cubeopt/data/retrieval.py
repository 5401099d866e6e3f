"""Whether a guess finds its own target among the targets of its task in a split, by cosine.

Shapes: N rows of a split, K of them, U distinct targets, D embedding.
"""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

LIMIT = 4096  # rows of a split at most: the work grows with their square, the memory with them
_PIECE = 512  # guesses compared at a time


def places(count: int) -> Int64[Tensor, " K"]:
    """At most LIMIT of *count* rows, spread evenly, ascending."""
    return torch.arange(min(count, LIMIT)) * count // max(1, min(count, LIMIT))


def ranks(
    guess: Float[Tensor, "K D"],
    target: Float[Tensor, "K D"],
    sentence: Int64[Tensor, " K"],
    task: UInt8[Tensor, " K"],
) -> Int64[Tensor, " K"]:
    """The place of each row's own target among the distinct targets of its *task*; 1 is the best.

    Targets of other tasks are no candidates: beside dialogues, sentences that stand for themselves
    would put every question among the answers, nearer to most guesses than any answer is.

    Rows with the same *sentence* share one target: it is a candidate once, and as right for one of
    them as for the other. Another target that is just as similar counts against a guess, so that
    guesses without a direction are last, not first; so does what cannot be compared (NaN).
    """
    found = torch.empty_like(sentence)
    for each in task.unique():
        rows = task == each
        found[rows] = _ranks(guess[rows], target[rows], sentence[rows])
    return found


def _ranks(
    guess: Float[Tensor, "K D"], target: Float[Tensor, "K D"], sentence: Int64[Tensor, " K"]
) -> Int64[Tensor, " K"]:
    distinct, own = sentence.unique(return_inverse=True)
    candidates = target.new_empty(len(distinct), target.shape[1])
    candidates[own] = F.normalize(target, dim=1)
    found = []
    for some, mine in zip(guess.split(_PIECE), own.split(_PIECE), strict=True):
        # The length of a guess is the same for all candidates.
        likeness = some @ candidates.T
        found.append((~(likeness < likeness.gather(1, mine[:, None]))).sum(1))
    return torch.cat(found)


def top1(ranks: Int64[Tensor, " K"]) -> float:
    """Share of the rows whose own target is the nearest."""
    return float((ranks == 1).double().mean())


def mrr(ranks: Int64[Tensor, " K"]) -> float:
    """Mean reciprocal rank."""
    return float(ranks.double().reciprocal().mean())
