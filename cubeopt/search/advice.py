"""What a person should know of a study before it runs: what it will not do."""

from cubeopt.search.proposals import modelled
from cubeopt.search.samplers import Cmaes, Gp, Grid, Mfgp, Nsgaii, Tpe
from cubeopt.search.study import StudySpec


def notes(spec: StudySpec, taught: int = 0) -> list[str]:
    """One line for each limit; none for a study without any.

    *taught* trials of earlier studies are known to the sampler from the start.
    """
    found = [
        _budget(spec),
        _chance(spec),
        _startup(spec, taught),
        _pruned(spec),
        _promoted(spec),
        _bounds(spec),
        _ends(spec),
    ]
    return [note for note in found if note is not None]


def _budget(spec: StudySpec) -> str | None:
    """The number of points against the number of trials."""
    points, trials = spec.points(), spec.budget.trials
    if points is None or len(points) == trials:
        return None
    if trials is None:
        if isinstance(spec.sampler, Grid):
            return None
        return (
            f"the space has {len(points)} points, and there is no budget.trials: when all were "
            "tried, points are repeated"
        )
    if isinstance(spec.sampler, Grid):
        if len(points) > trials:
            return (
                f"the grid has {len(points)} points, budget.trials is {trials}: only {trials} of "
                "them are tried, in an order that the seed decides"
            )
        return (
            f"the grid has {len(points)} points, budget.trials is {trials}: the study ends with "
            "the grid"
        )
    if len(points) < trials:
        return (
            f"the space has {len(points)} points, budget.trials is {trials}: when all were tried, "
            "points are repeated"
        )
    return None


def _chance(spec: StudySpec) -> str | None:
    """Values that the sampler has no model for."""
    if not isinstance(spec.sampler, Cmaes | Gp | Nsgaii):
        return None
    seen = modelled(spec)
    unseen = [
        f"{name} ({'when' if each.when else 'choices'})"
        for name, each in spec.search.items()
        if name not in seen
    ]
    if not unseen:
        return None
    what = "numbers" if isinstance(spec.sampler, Cmaes) else "values"
    return (
        f"{spec.sampler.name} models {what} that every trial has; drawn at random: "
        f"{', '.join(unseen)}"
    )


def _startup(spec: StudySpec, taught: int) -> str | None:
    """A budget that is spent before the sampler begins."""
    sampler, trials = spec.sampler, spec.budget.trials
    if trials is None or taught:
        return None
    if isinstance(sampler, Nsgaii) and sampler.population >= trials:
        return (
            f"the first generation of nsgaii is drawn at random until {sampler.population} trials "
            f"are complete, budget.trials is {trials}: all trials are random"
        )
    if isinstance(sampler, Tpe | Cmaes | Gp | Mfgp) and sampler.startup_trials >= trials:
        return (
            f"sampler.startup_trials is {sampler.startup_trials}, budget.trials is {trials}: all "
            "trials are random"
        )
    return None


def _pruned(spec: StudySpec) -> str | None:
    """Trials that the sampler does not learn from."""
    if spec.rungs.rule == "none" or len(spec.rungs.epochs) == 1:
        return None
    if isinstance(spec.sampler, Tpe) and spec.objective.second is not None:
        return (
            "tpe with two objectives takes all trials that are pruned for equally bad; "
            "rungs.rule: none prunes nobody"
        )
    ignores = isinstance(spec.sampler, Gp | Nsgaii)
    if not ignores and not (isinstance(spec.sampler, Cmaes) and not spec.sampler.pruned):
        return None
    return (
        f"{spec.sampler.name} learns only from trials that reach epoch {spec.short_epochs}, not "
        f"from those that {spec.rungs.rule} prunes before; rungs.rule: none prunes nobody"
    )


def _promoted(spec: StudySpec) -> str | None:
    """A promotion that comes to nothing."""
    promotion, trials, epochs = spec.promotion, spec.trials(), spec.budget.epochs
    if promotion.top == 0:
        return None
    if promotion.top is not None and trials is None:
        return (
            "promotion.top waits for the end of all trials, and without budget.trials there is "
            "none: no full run is begun; promotion.reduction_factor promotes as results come"
        )
    factor = promotion.reduction_factor
    if factor is not None and trials is not None and trials < factor:
        return (
            f"promotion.reduction_factor is {factor:g}, but there are only {trials} trials: none "
            "is promoted"
        )
    if epochs is not None and epochs < spec.full_epochs:
        return (
            f"budget.epochs is {epochs}, but one trial needs {spec.full_epochs} to the end of its "
            "full run: none gets there"
        )
    return None


def _bounds(spec: StudySpec) -> str | None:
    """Constraints that the sampler does not look at, though it learns."""
    if not spec.constraints or not isinstance(spec.sampler, Cmaes | Mfgp):
        return None
    return (
        f"{spec.sampler.name} does not look at constraints: it learns from a trial that breaks one "
        "as from any other; tpe, gp and nsgaii keep away"
    )


def _ends(spec: StudySpec) -> str | None:
    """A front of which one end alone is carried on."""
    if spec.objective.second is None or spec.promotion.top != 1:
        return None
    return (
        "promotion.top is 1: of the front of two objectives one end is carried on; let it be as "
        "many as the front shall have"
    )
