"""A small autoencoder with a bottleneck: what a network without a cube makes of the same rows.

The network is D-256-K-256-D. Its rows are centred by their training mean and divided by one
deviation for all numbers. With *noise* n, normal noise of deviation n is added to each number of
such a row, the sum is divided by sqrt(1 + n²), so that it is as long as the row was, and the clean
row is asked back.

Shapes: N rows, D embedding, K numbers.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from cubeopt.data.fitness.spectrum import Score, score

LIMIT = 20_000  # training rows, at most
HIDDEN = 256
NOISE = 0.5
REST = 0.1  # of the training groups say when to stop
_BATCH = 128
_EPOCHS = 600
_PATIENCE = 15  # epochs without a better error on them
_LEARNING_RATE, _DECAY = 5e-4, 1e-2


@dataclass(frozen=True)
class Trained:
    """The scores of several seeds."""

    noise: float
    width: int
    seeds: int
    epochs: list[int]  # of the weights that were kept
    mse: float  # medians
    cosine: float
    fvu: float
    spread: dict[str, float]  # largest less smallest


def autoencoder(
    train: Float32[Tensor, "N D"],
    rest: Bool[Tensor, " N"],
    unseen: Float32[Tensor, "M D"],
    width: int,
    noise: float,
    seeds: Sequence[int],
    step: Callable[[float], None],
) -> Trained:
    """Trained once for each of *seeds*, and stopped by the rows of *train* that *rest* names."""
    mean = train.mean(0)
    deviation = float((train - mean).square().mean().sqrt()) or 1.0
    scores: list[Score] = []
    epochs = []
    for place, seed in enumerate(seeds):

        def told(share: float, place: int = place) -> None:
            step((place + share) / len(seeds))

        network, epoch = _train((train - mean) / deviation, rest, width, noise, seed, told)
        with torch.no_grad():
            guess = network((unseen - mean) / deviation) * deviation + mean
        scores.append(score("mlp", guess, unseen, mean, width))
        epochs.append(epoch)
    values = {name: [getattr(each, name) for each in scores] for name in ("mse", "cosine", "fvu")}
    return Trained(
        noise,
        width,
        len(scores),
        epochs,
        **{name: statistics.median(each) for name, each in values.items()},
        spread={name: max(each) - min(each) for name, each in values.items()},
    )


def _train(
    rows: Float32[Tensor, "N D"],
    rest: Bool[Tensor, " N"],
    width: int,
    noise: float,
    seed: int,
    step: Callable[[float], None],
) -> tuple[nn.Module, int]:
    chance = torch.Generator().manual_seed(seed)
    network = _network(rows.shape[1], width, chance)
    fitting, asked = rows[~rest], rows[rest]
    descent = torch.optim.AdamW(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=_DECAY, foreach=True
    )
    best, best_epoch = float("inf"), 0
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in range(1, _EPOCHS + 1):
        for batch in torch.randperm(len(fitting), generator=chance).split(_BATCH):
            clean = fitting[batch]
            given = _noisy(clean, noise, chance)
            descent.zero_grad()
            _error(network, given, clean).backward()
            descent.step()
        with torch.no_grad():
            error = float(_error(network, asked, asked))
        if error < best:
            best, best_epoch = error, epoch
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif epoch - best_epoch >= _PATIENCE:
            break
        step(epoch / _EPOCHS)
    network.load_state_dict(kept)
    step(1.0)
    return network, best_epoch


def _noisy(
    rows: Float32[Tensor, "N D"], noise: float, chance: torch.Generator
) -> Float32[Tensor, "N D"]:
    if not noise:
        return rows
    drawn = torch.randn(rows.shape, generator=chance)
    return (rows + noise * drawn) / math.sqrt(1.0 + noise**2)


def _error(
    network: nn.Module, given: Float[Tensor, "N D"], wanted: Float[Tensor, "N D"]
) -> Float[Tensor, ""]:
    return (network(given) - wanted).square().mean()


def _network(size: int, width: int, chance: torch.Generator) -> nn.Sequential:
    """Linear layers with weights of torch's own scale, drawn from *chance* alone."""
    sizes = (size, HIDDEN, width, HIDDEN, size)
    layers: list[nn.Module] = []
    for place, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(inner, outer)
        bound = inner**-0.5
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=chance)
            linear.bias.uniform_(-bound, bound, generator=chance)
        layers.append(linear)
        if place in (0, 2):  # the code itself and the output are linear
            layers.append(nn.GELU())
    return nn.Sequential(*layers)
