"""Trainings drawn: everything that `report.training` has, by section, made of its rows alone.

A panel shows one quantity of all tracks over the epochs, each track in a colour of its own; the
gate's panels show one track each, and its experts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cubeopt.report import multiples, palette
from cubeopt.report.multiples import Line, Panel, Pick, Quantity, rounded
from cubeopt.report.training import Trainings
from cubeopt.training.diagnosis import Kind

_MODULES = (
    *("all", "enter", "place", "local", "functional.speech", "functional", "distant"),
    *("gate", "leave"),
)
_TERMS = ("reconstruction", "similarity", "diversity", "emergence", "lattice", "spatial", "ponder")
_JUDGED = ("fvu", "cosine", "top1", "mrr", "effective_rank")
_GATE = ("specialisation", "specialisation/cell", "specialisation/task", "gate_entropy", "steps")
_UNITS = {
    "fvu": "share of the variance",
    "cosine": "cosine",
    "top1": "share found first",
    "mrr": "mean reciprocal rank",
    "effective_rank": "directions",
    "specialisation": "bits",
    "gate_entropy": "bits",
    "steps": "exchanges",
}
_ABOUT_FVU = (Kind.WORSE_THAN_MEAN, Kind.OVERFITTING, Kind.PLATEAU, Kind.CONVERGED)
_ABOUT_LOSS = (Kind.DIVERGED, Kind.DIVERGING, Kind.OVERFITTING)


@dataclass(frozen=True)
class Section:
    """Panels about one thing, and their newest numbers as a table."""

    id: str
    title: str
    about: str
    panels: list[Panel] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)  # of what are no tracks


def sections(shown: Trainings, weighted: bool = False) -> list[Section]:
    """Everything that there is to see; *weighted* losses are as the training adds them up."""
    made = (
        _objective(shown),
        _losses(shown, weighted),
        _validation(shown),
        _usage(shown),
        _modules(shown, "gradient_norm", "Gradients", "norm", _GRADIENTS),
        _modules(shown, "update_ratio", "Updates", "change / size", _UPDATES),
        _knobs(shown),
        _speed(shown),
    )
    return [section for section in made if section.panels]


_GRADIENTS = "Mean norm over the updates of an epoch, before the clip, of each part of the cube."
_UPDATES = "What the last update of an epoch changed, over what was there, of each part."


def _objective(shown: Trainings) -> Section:
    metric = shown.metric
    unit = f"{metric} ({_unit(metric)}), validation"
    quantity = Quantity(f"validation/{metric}", metric, unit, picks=_about(*_ABOUT_FVU))
    better = "higher" if shown.direction == "maximize" else "lower"
    about = f"What the study decides by; {better} is better."
    if shown.rungs:
        about += " Dotted: the rungs, where short runs are compared."
    section = _section("objective", f"Objective: {metric}", about, shown, [quantity])
    panels = [
        replace(panel, chief=True, baselines=shown.baselines, rungs=shown.rungs)
        for panel in section.panels
    ]
    return replace(section, panels=panels)


def _losses(shown: Trainings, weighted: bool) -> Section:
    terms = [term for term in _TERMS if _any(shown, f"train/loss/{term}")]
    kind = "weighted" if weighted else "loss"
    idle = [term for term in terms if not _moves(shown, f"train/{kind}/{term}")]
    quantities = [
        Quantity(
            *("train/loss/total", "total", "loss, weighted"),
            picks=_about(Kind.DIVERGED),
        )
    ]
    for term in terms:
        if term in idle:
            continue
        picks = _about(*_ABOUT_LOSS) if term == "reconstruction" else _about()
        if weighted:
            one = Quantity(f"train/weighted/{term}", term, "loss x weight", picks=picks)
        else:
            beside = f"validation/loss/{term}"
            one = Quantity(f"train/loss/{term}", term, "loss", beside=beside, picks=picks)
        quantities.append(one)
    about = (
        "What each term adds to the training's loss."
        if weighted
        else "Means over an epoch's batches; dotted, where it was measured, the same term on the "
        "validation split. The total is weighted."
    )
    if idle:
        about += f" Always 0, and not drawn: {', '.join(idle)}."
    return _section("losses", "Losses", about, shown, quantities)


def _validation(shown: Trainings) -> Section:
    wanted = [name for name in (*_JUDGED, *_GATE) if name != shown.metric]
    names = [
        each
        for name in wanted
        for each in _with_tasks(shown, name)
        if _any(shown, f"validation/{each}")
    ]
    quantities = [
        Quantity(f"validation/{name}", name.replace("_", " "), _unit(name), picks=_of_fvu(name))
        for name in names
    ]
    about = "On the validation split, which no weight of the loss enters."
    return _section("validation", "Validation", about, shown, quantities)


def _usage(shown: Trainings) -> Section:
    """A panel a track: what the gate gave each expert."""
    prefix = "validation/usage/"
    found = (name for track in shown.tracks for name in track.metrics if name.startswith(prefix))
    experts = _ordered({name.removeprefix(prefix) for name in found}, tuple(palette.EXPERTS))
    colors = {expert: palette.EXPERTS.get(expert, palette.GREY) for expert in experts}
    panels, rows = [], []
    for nth, track in enumerate(shown.tracks):
        lines = [
            Line(expert, prefix + expert, track, colors[expert], "solid")
            for expert in experts
            if track.has(prefix + expert)
        ]
        signs = [sign for sign in track.signs if sign.kind == Kind.DEAD_EXPERT]
        quantity = Quantity(prefix, track.label, "choices (%)")
        panels.append(
            Panel(
                f"usage-{nth}",
                track.label,
                quantity.unit,
                multiples.curves(quantity, lines),
                multiples.flags(signs),
                limits=(0, 100),
                lacks="" if lines else f"{track.label}: no validation has measured the gate yet",
            )
        )
        rows += [[f"{track.label}: {e.label} (%)", rounded(track.last(e.name))] for e in lines]
    about = "How much of the choices the gate gives each expert; under 1 % an expert is dead."
    legend = list(colors.items())
    return Section("usage", "Gate usage", about, panels, ["expert", "newest"], rows, legend)


def _modules(shown: Trainings, kind: str, title: str, unit: str, about: str) -> Section:
    prefix = f"train/{kind}/"
    names = [name for track in shown.tracks for name in track.metrics if name.startswith(prefix)]
    modules = _ordered({name.removeprefix(prefix) for name in names}, _MODULES)
    quantities = [
        Quantity(
            name=prefix + module,
            title="whole cube" if module == "all" else module,
            unit=unit,
            log=True,
            picks=_of_module(module) if kind == "gradient_norm" else _about(),
        )
        for module in modules
    ]
    return _section(kind.replace("_", "-"), title, about, shown, quantities)


def _knobs(shown: Trainings) -> Section:
    rate = Quantity("learning_rate", "learning rate", "learning rate", picks=_about(Kind.PLATEAU))
    weights = [
        Quantity(f"train/weight/{term}", f"weight of {term}", "weight")
        for term in _TERMS
        if _moves(shown, f"train/weight/{term}")
    ]
    about = (
        "Of an epoch's last batch the rate, of its batches the mean weight of each term: what was "
        "given, times what an adaptive weighting has learned."
    )
    section = _section("knobs", "Learning rate and weights", about, shown, [rate, *weights])
    return _from_zero(section)


def _speed(shown: Trainings) -> Section:
    quantities = [
        Quantity("samples_per_second", "samples a second", "samples/s"),
        Quantity("epoch_seconds", "time of an epoch", "s"),
        Quantity("peak_memory_bytes", "peak memory", "GB", factor=1e-9),
        Quantity("device_utilisation", "device utilisation", "%"),
    ]
    about = (
        "A run's own samples; a pack trains several runs in the same time. Memory: the most so far "
        "that the device's allocator gave, of a CPU the whole process. Utilisation: the time in "
        "which the device computed, of a CPU 100 % for each core that was always busy."
    )
    return _from_zero(_section("speed", "Speed and device", about, shown, quantities))


def _from_zero(section: Section) -> Section:
    """*section* with axes that begin at zero, where what stays the same is a line above it."""
    return replace(section, panels=[replace(panel, zero=True) for panel in section.panels])


def _section(
    id: str, title: str, about: str, shown: Trainings, quantities: Sequence[Quantity]
) -> Section:
    panels, rows = [], []
    for quantity in quantities:
        if not _any(shown, quantity.name) and not shown.tracks:
            continue
        panels.append(multiples.panel(f"{id}-{quantity.name.replace('/', '-')}", quantity, shown))
        values = [track.last(quantity.name) for track in shown.tracks]
        scaled = [None if v is None else rounded(v * quantity.factor) for v in values]
        rows.append([f"{quantity.title} ({quantity.unit})", *scaled])
    columns = ["newest", *(track.label for track in shown.tracks)]
    return Section(id, title, about, panels, columns, rows)


def _ordered(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """*names* in the order of *first*, and those that it does not know at the end."""
    found = set(names)
    return [*(name for name in first if name in found), *sorted(found - set(first))]


def _with_tasks(shown: Trainings, name: str) -> list[str]:
    """*name*, and where the trainings have several tasks also the same of each."""
    start = f"validation/{name}/"
    if name not in _JUDGED:
        return [name]
    found = (metric for track in shown.tracks for metric in track.metrics)
    parts = dict.fromkeys(m.removeprefix("validation/") for m in found if m.startswith(start))
    return [name, *parts]


def _unit(name: str) -> str:
    return _UNITS.get(name.partition("/")[0], name)


def _any(shown: Trainings, name: str) -> bool:
    return any(track.has(name) for track in shown.tracks)


def _moves(shown: Trainings, name: str) -> bool:
    """Whether any track has another number than 0 there."""
    return any(value for track in shown.tracks for value in track.metrics.get(name, ()))


def _about(*kinds: Kind) -> Pick:
    return lambda sign: sign.kind in kinds


def _of_module(module: str) -> Pick:
    return lambda sign: sign.kind == Kind.DEAD_GRADIENT and sign.subject == module


def _of_fvu(name: str) -> Pick:
    return _about(*_ABOUT_FVU) if name == "fvu" else _about()
