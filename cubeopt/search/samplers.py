"""The samplers by name: the options of each, and the Optuna sampler that they make."""

import hashlib
import importlib.util
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
    nsgaii,
)
from pydantic import BeforeValidator, Field, model_validator

from cubeopt.errors import StudyError
from cubeopt.search.space import Section
from cubeopt.trial import did_you_mean

EXTRA = "samplers"  # of our package: what samplers need beyond its own dependencies
_CROSSOVERS: dict[str, Callable[[], nsgaii.BaseCrossover]] = {
    "uniform": nsgaii.UniformCrossover,
    "blx_alpha": nsgaii.BLXAlphaCrossover,
    "sbx": nsgaii.SBXCrossover,
    "vsbx": nsgaii.VSBXCrossover,
    "spx": nsgaii.SPXCrossover,
    "undx": nsgaii.UNDXCrossover,
}

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class _Sampler(Section):
    packages: ClassVar[tuple[str, ...]] = ()  # what it imports beyond our dependencies

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Tpe(_Sampler):
    """Tree-structured Parzen estimators: a model of where the good trials lie, and the others."""

    name: Literal["tpe"] = "tpe"
    startup_trials: Count = 10  # ended, until when points are drawn at random
    multivariate: bool = True  # all values in one model, or one model for each
    # One model for each set of values that trials have together; None: where there are conditions.
    group: bool | None = None
    # Trials that still run count as bad ones, so that a batch asked at once is spread out.
    constant_liar: bool = True
    candidates: Annotated[int, Field(ge=1)] = 24  # points compared for a proposal

    @model_validator(mode="after")
    def _check(self) -> "Tpe":
        if self.group and not self.multivariate:
            raise ValueError("group: true needs multivariate: true")
        return self


class Random(_Sampler):
    """Each point for itself, at random."""

    name: Literal["random"] = "random"


class Qmc(_Sampler):
    """A sequence that fills the space more evenly than chance; it learns nothing from results."""

    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    name: Literal["qmc"] = "qmc"
    sequence: Literal["sobol", "halton"] = "sobol"
    scramble: bool = True  # by the seed; the plain sequence begins with the low end of everything


class Grid(_Sampler):
    """Every combination once, in an order shuffled by the seed."""

    name: Literal["grid"] = "grid"
    # How many values of an interval; an interval of whole numbers without an entry has them all.
    points: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)


class Cmaes(_Sampler):
    """CMA-ES: a normal distribution that moves and stretches toward the good trials."""

    packages: ClassVar[tuple[str, ...]] = ("cmaes",)

    name: Literal["cmaes"] = "cmaes"
    startup_trials: Count = 1
    # separable: a diagonal covariance; margin: keeps whole numbers from freezing; adaptive: a
    # learning rate for noisy objectives.
    variant: Literal["full", "separable", "margin", "adaptive"] = "full"
    population: Annotated[int, Field(ge=4)] | None = None  # None: 4 + 3 ln(values)
    pruned: bool = True  # learns from pruned trials too, by their last value


class Gp(_Sampler):
    """A Gaussian process and the expected improvement, for few and dear trials."""

    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    name: Literal["gp"] = "gp"
    startup_trials: Count = 10
    deterministic: bool = False  # whether the same point always has the same value


class Mfgp(_Sampler):
    """A Gaussian process over points and epochs: every rung of every trial teaches it."""

    name: Literal["mfgp"] = "mfgp"
    # That came to a rung, until when points are drawn at random. Fewer than of TPE: a model that
    # knows of a smooth trend needs few, and while they train more have been asked for.
    startup_trials: Count = 5
    candidates: Annotated[int, Field(ge=1)] = 1000  # points compared for a proposal


class Nsgaii(_Sampler):
    """NSGA-II: generations of trials, crossed and mutated."""

    name: Literal["nsgaii"] = "nsgaii"
    population: Annotated[int, Field(ge=2)] = 50  # complete trials of a generation
    crossover: Literal["uniform", "blx_alpha", "sbx", "vsbx", "spx", "undx"] = "uniform"
    crossover_probability: Share = 0.9
    swapping_probability: Share = 0.5  # of each value, between the parents
    mutation_probability: Share | None = None  # of each value; None: one divided by their number

    @model_validator(mode="after")
    def _check(self) -> "Nsgaii":
        parents = 3 if self.crossover in ("spx", "undx") else 2
        if self.population < parents:
            raise ValueError(
                f"crossover {self.crossover} needs {parents} parents, but population is "
                f"{self.population}"
            )
        return self


_SAMPLERS: dict[str, type[_Sampler]] = {
    str(each.model_fields["name"].default): each
    for each in (Tpe, Random, Qmc, Grid, Cmaes, Gp, Mfgp, Nsgaii)
}
NAMES = tuple(_SAMPLERS)


def _known(section: Any) -> Any:
    """*section* with the name it stands for; an option that its sampler lacks is an error."""
    if not isinstance(section, dict):
        return section
    content = {"name": "tpe", **section}
    name = content["name"]
    if not isinstance(name, str) or name not in _SAMPLERS:
        hint = did_you_mean(str(name), frozenset(NAMES))
        raise ValueError(f"no sampler is called {name!r}{hint}; there are {', '.join(NAMES)}")
    options = [option for option in _SAMPLERS[name].model_fields if option != "name"]
    for option in section:
        if option != "name" and option not in options:
            hint = did_you_mean(str(option), frozenset(options))
            raise ValueError(f"{name} has no option {option!r}{hint}; it has {', '.join(options)}")
    return content


Sampler = Annotated[
    Annotated[Tpe | Random | Qmc | Grid | Cmaes | Gp | Mfgp | Nsgaii, Field(discriminator="name")],
    BeforeValidator(_known),
]


def check_installed(spec: Sampler) -> None:
    """StudyError when a package that the sampler needs is missing; names what to install."""
    needed = list(spec.packages)
    if isinstance(spec, Cmaes) and spec.variant == "margin":
        needed.append("scipy")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise StudyError(
            f"sampler {spec.name} needs {' and '.join(missing)}, not installed here; install with: "
            f"pip install 'cubeopt[{EXTRA}]'"
        )


def seed(spec: Sampler, asked: int) -> int:
    """The seed of the point before which *asked* were asked, 0 to 2**32 - 1.

    A sampler of its own for every point: a coordinator that starts again goes on with the points
    that the last one would have drawn.
    """
    digest = hashlib.sha256(f"{spec.seed} {asked}".encode()).digest()
    return int.from_bytes(digest[:4])  # NumPy takes 32 bits


def learns(spec: Sampler) -> bool:
    """Whether it makes anything of trials that it did not ask for."""
    return isinstance(spec, Tpe | Gp | Mfgp | Nsgaii)


def adopted(spec: Sampler) -> dict[str, Any]:
    """What has to stand beside a trial that the sampler did not ask for, so that it learns of it.

    NSGA-II takes such trials for its first generation.
    """
    return {NSGAIISampler._get_generation_key(): 0} if isinstance(spec, Nsgaii) else {}


def build(spec: Tpe | Random | Cmaes | Gp | Nsgaii, asked: int, conditional: bool) -> BaseSampler:
    """Optuna's sampler for the point before which *asked* were asked.

    *conditional* is a space in which some trials have values that others lack.
    """
    drawn = seed(spec, asked)
    match spec:
        case Random():
            return RandomSampler(seed=drawn)
        case Tpe():
            return TPESampler(
                seed=drawn,
                n_startup_trials=spec.startup_trials,
                multivariate=spec.multivariate,
                group=conditional and spec.multivariate if spec.group is None else spec.group,
                constant_liar=spec.constant_liar,
                n_ei_candidates=spec.candidates,
            )
        case Cmaes():
            return _cmaes(spec, drawn)
        case Gp():
            return GPSampler(
                seed=drawn,
                n_startup_trials=spec.startup_trials,
                deterministic_objective=spec.deterministic,
                warn_independent_sampling=False,
            )
        case Nsgaii():
            return NSGAIISampler(
                seed=drawn,
                population_size=spec.population,
                crossover=_crossover(spec),
                crossover_prob=spec.crossover_probability,
                swapping_prob=spec.swapping_probability,
                mutation_prob=spec.mutation_probability,
            )


def _cmaes(spec: Cmaes, drawn: int) -> BaseSampler:
    return CmaEsSampler(
        seed=drawn,
        n_startup_trials=spec.startup_trials,
        popsize=spec.population,
        consider_pruned_trials=spec.pruned,
        use_separable_cma=spec.variant == "separable",
        with_margin=spec.variant == "margin",
        lr_adapt=spec.variant == "adaptive",
        warn_independent_sampling=False,
    )


def _crossover(spec: Nsgaii) -> nsgaii.BaseCrossover:
    if spec.crossover == "uniform":
        return nsgaii.UniformCrossover(spec.swapping_probability)
    return _CROSSOVERS[spec.crossover]()
