"""What a report of a study says in words and tables, as rows: question, space, data, what was
tried, winner, and how to have it all again.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.db.budgets import Account
from cubeopt.errors import StudyError
from cubeopt.report import baselines, origins, timeline, winner
from cubeopt.report.material import Material
from cubeopt.report.ranking import Best
from cubeopt.report.summary import Summary
from cubeopt.report.timeline import Timeline
from cubeopt.search import configuration, export, study
from cubeopt.search.space import Range


@dataclass(frozen=True)
class Searched:
    """One value of the space."""

    name: str
    values: str  # "0.001 to 0.02", or its choices
    scale: str
    when: str | None


@dataclass(frozen=True)
class Baseline:
    """A baseline, and the winner's value minus it."""

    label: str
    value: float
    difference: float | None


@dataclass(frozen=True)
class Tried:
    """What was spent."""

    trials: dict[str, int]  # by state
    full_runs: int
    epochs: int  # recorded
    attempts: int
    ends: dict[str, int]  # of attempts, by how they ended
    workers: int
    first: str | None
    seconds: float  # from the first attempt to the last end, or now
    device_seconds: float  # in which workers held runs; those of one worker count once
    devices: dict[str, int]  # attempts by kind of device
    codes: dict[str, int]
    torches: dict[str, int]


@dataclass(frozen=True)
class Winner:
    """The trial that is exported, or one of a front."""

    trial: int
    kind: str
    epochs: int
    seeds: int
    value: float
    spread: float | None
    test_value: float | None
    second_value: float | None
    params: dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """A study in words and tables."""

    name: str
    state: str
    state_reason: str | None
    written: str
    created: str
    finished: str | None
    goes_on: bool
    metric: str  # the first objective's
    direction: str
    second: str | None
    question: dict[str, str]
    space: list[Searched]
    base: dict[str, Any]
    data: dict[str, Any]
    baselines: list[Baseline]
    tried: Tried
    budgets: list[Account]
    past: list[str]
    winners: list[Winner]  # one, or those of a front, or none
    no_winner: str | None  # why there is none
    warnings: list[str]
    commands: list[str]
    versions: dict[str, str]
    exported: str | None  # the winner's configuration, as YAML
    file: str  # the study's, as YAML

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


def protocol(found: Material, short: Summary, times: Timeline) -> Protocol:
    """All of it, of *found*, its summary and its timeline."""
    winners = _winners(short)
    exported, reason = _exported(found, winners)
    return Protocol(
        name=short.name,
        state=short.state,
        state_reason=short.state_reason,
        written=found.now.isoformat(timespec="seconds"),
        created=short.created,
        finished=short.finished,
        goes_on=not found.ended,
        metric=short.metric,
        direction=short.direction,
        second=short.second,
        question=_question(found, short),
        space=[_searched(name, each) for name, each in _spec(found).search.items()],
        base=dict(found.study.spec.get("base", {})),
        data=short.dataset,
        baselines=_baselines(short, winners),
        tried=_tried(found, short, times),
        budgets=found.budgets,
        past=found.past.lines(),
        winners=winners,
        no_winner=reason,
        warnings=short.warnings,
        commands=_commands(found, winners),
        versions=_versions(found, winners),
        exported=exported,
        file=configuration.text(export.study_file(found.study.spec)),
    )


def _spec(found: Material) -> study.StudySpec:
    return study.stored(found.study.spec)


def _question(found: Material, short: Summary) -> dict[str, str]:
    spec = _spec(found)
    rungs, promotion = spec.rungs, spec.promotion
    asked = {
        "objective": " and ".join(
            f"{name} ({'lower' if way == 'minimize' else 'higher'} is better)"
            for name, way in zip(spec.objective.names, spec.objective.directions, strict=True)
        ),
        "constraints": ", ".join(short.constraints) or "none",
        "sampler": _sampler(found),
        "rungs": f"epochs {', '.join(map(str, rungs.epochs))} by the rule {rungs.rule}"
        + (f", one in {rungs.reduction_factor:g} goes on" if rungs.rule == "asha" else "")
        + (f", patience {rungs.patience}" if rungs.patience else ""),
        "promotion": (
            f"the best {promotion.top}"
            if promotion.reduction_factor is None
            else f"one in {promotion.reduction_factor:g} of those that are complete"
        )
        + f", to {spec.full_epochs} epochs"
        + (f", {promotion.seeds} seeds each" if promotion.seeds > 1 else ""),
        "budget": ", ".join(
            f"{limit:g} {name.replace('_', ' ')}"
            for name, limit in spec.budget
            if limit is not None
        ),
    }
    return asked


def _sampler(found: Material) -> str:
    given = dict(found.study.spec.get("sampler") or {"name": "tpe"})
    name = str(given.pop("name", "tpe"))
    options = ", ".join(f"{key} {value}" for key, value in given.items() if value is not None)
    return f"{name} ({options})" if options else name


def _searched(name: str, each: Range) -> Searched:
    when = "; ".join(f"{of} is {' or '.join(map(str, some))}" for of, some in each.when.items())
    if each.choices is not None:
        return Searched(name, ", ".join(map(str, each.choices)), "choices", when or None)
    scale = "logarithmic" if each.log else "linear"
    return Searched(name, f"{each.low:g} to {each.high:g}", scale, when or None)


def _winners(short: Summary) -> list[Winner]:
    best: Sequence[Best] = short.front or ([short.best] if short.best else [])
    return [
        Winner(
            each.trial,
            each.kind,
            each.epochs,
            each.seeds,
            each.value,
            each.spread,
            each.test_value,
            getattr(each, "second_value", None),
            each.params,
        )
        for each in best
    ]


def _baselines(short: Summary, winners: Sequence[Winner]) -> list[Baseline]:
    return [
        Baseline(label, value, winners[0].value - value if len(winners) == 1 else None)
        for label, value in baselines.named(short)
    ]


def _tried(found: Material, short: Summary, times: Timeline) -> Tried:
    def by(name: Any) -> dict[str, int]:
        return dict(Counter(map(name, found.attempts)).most_common())

    held = timeline.busy(times.stretches, 0.0)
    return Tried(
        trials=short.trials,
        full_runs=len(short.promotions),
        epochs=sum(map(len, found.courses.values())),
        attempts=len(found.attempts),
        ends=timeline.ends(times.stretches),
        workers=len(times.workers),
        first=times.since.isoformat(timespec="seconds") if times.since else None,
        seconds=times.until,
        device_seconds=round(sum(each.end - each.start for each in held), 3),
        devices=by(origins.device_kind),
        codes=by(origins.code),
        torches=by(origins.torch_version),
    )


def _exported(found: Material, winners: Sequence[Winner]) -> tuple[str | None, str | None]:
    """The winner as a file, or why there is none; of a front its first."""
    try:
        content = winner.exported(found, winners[0].trial if winners else None)
    except StudyError as error:
        # Why nothing can be exported is why there is no winner.
        reason = str(error).removeprefix(f"study {found.study.name}: ")
        return None, reason.partition(", so there is nothing")[0]
    name = found.study.name
    heading = winner.heading(name, winners[0].trial if len(winners) > 1 else None, _best(name))
    return configuration.text(content, heading), None


def _best(name: str) -> str:
    """The file into which the winner is exported."""
    return f"{name}-best.yaml"


def _commands(found: Material, winners: Sequence[Winner]) -> list[str]:
    """What gives the winner, and the study, again."""
    name = shlex.quote(found.study.name)
    again = f"cubeopt study create {shlex.quote(found.study.name + '.yaml')}"
    if not winners:
        return [again]
    trial = f" --trial {winners[0].trial}" if len(winners) > 1 else ""
    file = shlex.quote(_best(found.study.name))
    device = _device(found, winners[0].trial)
    return [
        f"cubeopt study export {name}{trial} -o {file}",
        f"cubeopt train --config {file} --experiment-name "
        f"{shlex.quote(found.study.name + '-again')} {device}",
        again,
    ]


def _device(found: Material, trial: int) -> str:
    last = [each for each in found.attempts if each.trial_number == trial]
    return "--gpu 0" if last and last[-1].device.startswith("cuda") else "--cpu"


def _versions(found: Material, winners: Sequence[Winner]) -> dict[str, str]:
    """Of what the winner's numbers hang on."""
    row = {
        "dataset": found.study.dataset,
        "dataset fingerprint": found.study.dataset_fingerprint,
        "code of the study": found.study.code_version,
    }
    number = winners[0].trial if winners else None
    for each in reversed(found.attempts):
        if each.trial_number == number:
            return {
                **row,
                "code of the winner": origins.code(each),
                "torch": origins.torch_version(each),
                "device": origins.device_kind(each),
            }
    return row
