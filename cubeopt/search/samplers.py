"""An Optuna sampler from its name in the study file."""

import hashlib

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from cubeopt.search.study import Sampler


def sampler(spec: Sampler, asked: int) -> BaseSampler:
    """The sampler of a study for which *asked* trials were asked so far.

    The count is mixed into the seed: a coordinator that starts again goes on, instead of drawing
    the same points a second time.
    """
    digest = hashlib.sha256(f"{spec.seed} {asked}".encode()).digest()
    seed = int.from_bytes(digest[:4])  # NumPy takes 32 bits
    if spec.name == "random":
        return RandomSampler(seed=seed)
    # The constant liar counts the trials that still run, so that a batch asked at once is diverse.
    return TPESampler(
        multivariate=True,
        constant_liar=True,
        n_startup_trials=spec.startup_trials,
        seed=seed,
    )
