"""Trainings drawn: small multiples in plotly's JSON, made of `report.training` rows alone.

A panel shows one quantity of all tracks over the epochs, each track in a colour of its own; the
gate's panels show one track each, and its experts. What a finding is about is marked where it
shows: a line at its first epoch, a band to its last, and the number that its sentence has.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cubeopt.report import palette
from cubeopt.report.training import Sign, Track, Trainings
from cubeopt.training.diagnosis import Kind

_COLORS = (
    *(palette.BLUE, palette.VERMILION, palette.GREEN, palette.ORANGE),
    *(palette.PURPLE, palette.SKY, palette.GREY),
)
_DASHES = ("solid", "dash")
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
_CROWDED = 8  # signs in a panel: with more only their numbers stand at the marks
_LOG_FLOOR = 1e-12  # a norm of 0 has no place on a logarithmic axis
_POINTS, _FEWEST = 1200, 100  # in a panel, and at least in a line: a screen has no more columns

Pick = Callable[[Sign], bool]
_Point = tuple[int, float]


@dataclass(frozen=True)
class Line:
    """One quantity of one track."""

    label: str
    name: str  # of the metric
    track: Track
    color: str
    dash: str


@dataclass(frozen=True)
class Panel:
    """One small chart, as plotly takes it, and what it does not show."""

    id: str
    title: str
    figure: dict[str, Any]
    lacks: str  # a sentence, or ""


@dataclass(frozen=True)
class Section:
    """Panels about one thing, and their newest numbers as a table."""

    id: str
    title: str
    about: str
    panels: list[Panel] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Quantity:
    """What a panel shows: a metric by name, what it is called, and in which unit."""

    name: str
    title: str
    unit: str
    log: bool = False
    factor: float = 1.0
    beside: str = ""  # another metric, drawn dotted
    picks: Pick = lambda sign: False


def sections(shown: Trainings, weighted: bool = False) -> list[Section]:
    """Everything that there is to see; *weighted* losses are as the training adds them up."""
    made = (
        _objective(shown),
        _losses(shown, weighted),
        _validation(shown),
        _usage(shown),
        _modules(shown, "gradient_norm", "Gradients", "norm", _GRADIENTS),
        _modules(shown, "update_ratio", "Updates", "change / size of the weights", _UPDATES),
        _knobs(shown),
        _speed(shown),
    )
    return [section for section in made if section.panels]


def color(nth: int) -> tuple[str, str]:
    """The colour and the dash of the track at place *nth*."""
    return _COLORS[nth % len(_COLORS)], _DASHES[nth // len(_COLORS) % len(_DASHES)]


_GRADIENTS = "Mean norm over the updates of an epoch, before the clip, of each part of the cube."
_UPDATES = "What the last update of an epoch changed, over what was there, of each part."


def _objective(shown: Trainings) -> Section:
    metric = shown.metric
    unit = f"{metric} ({_unit(metric)}), validation"
    quantity = Quantity(f"validation/{metric}", metric, unit, picks=_about(*_ABOUT_FVU))
    better = "higher" if shown.direction == "maximize" else "lower"
    section = _section(
        *("objective", f"Objective: {metric}", f"What the study decides by; {better} is better."),
        shown,
        [quantity],
    )
    for panel in section.panels:
        _draw_baselines(panel.figure, shown)
        _draw_rungs(panel.figure, shown.rungs)
    return section


def _losses(shown: Trainings, weighted: bool) -> Section:
    terms = [term for term in _TERMS if _any(shown, f"train/loss/{term}")]
    idle = [term for term in terms if weighted and not _moves(shown, f"train/weighted/{term}")]
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
        about += f" Without weight, and not drawn: {', '.join(idle)}."
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
    panels, rows = [], []
    for nth, track in enumerate(shown.tracks):
        names = [name for name in track.metrics if name.startswith(prefix)]
        lines = [
            Line(expert, name, track, palette.EXPERTS.get(expert, palette.GREY), "solid")
            for name in names
            if (expert := name.removeprefix(prefix))
        ]
        signs = [sign for sign in track.signs if sign.kind == Kind.DEAD_EXPERT]
        quantity = Quantity(prefix, track.label, "share of the choices (%)")
        figure = _figure(quantity, lines, signs)
        figure["layout"]["yaxis"] |= {"range": [0, 100], "autorange": False}
        figure["layout"]["showlegend"] = True
        lacks = "" if names else f"{track.label}: no validation has measured the gate yet"
        panels.append(Panel(f"usage-{nth}", track.label, figure, lacks))
        rows += [
            [f"{track.label}: {line.label} (%)", _rounded(track.last(line.name))] for line in lines
        ]
    about = "How much of the choices the gate gives each expert; under 1 % an expert is dead."
    return Section("usage", "Gate usage", about, panels, ["expert", "newest"], rows)


def _modules(shown: Trainings, kind: str, title: str, unit: str, about: str) -> Section:
    prefix = f"train/{kind}/"
    names = [name for track in shown.tracks for name in track.metrics if name.startswith(prefix)]
    modules = list(dict.fromkeys(name.removeprefix(prefix) for name in names))
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
    return _section("knobs", "Learning rate and weights", about, shown, [rate, *weights])


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
    section = _section("speed", "Speed and device", about, shown, quantities)
    for panel in section.panels:
        panel.figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return section


def _section(
    id: str, title: str, about: str, shown: Trainings, quantities: Sequence[Quantity]
) -> Section:
    panels, rows = [], []
    for quantity in quantities:
        if not _any(shown, quantity.name) and not shown.tracks:
            continue
        panels.append(_panel(f"{id}-{quantity.name.replace('/', '-')}", quantity, shown))
        values = [track.last(quantity.name) for track in shown.tracks]
        scaled = [None if v is None else _rounded(v * quantity.factor) for v in values]
        rows.append([f"{quantity.title} ({quantity.unit})", *scaled])
    columns = ["newest", *(track.label for track in shown.tracks)]
    return Section(id, title, about, panels, columns, rows)


def _panel(id: str, quantity: Quantity, shown: Trainings) -> Panel:
    lines, without = [], []
    for nth, track in enumerate(shown.tracks):
        tint, dash = color(nth)
        if not track.has(quantity.name):
            without.append(track.label)
            continue
        lines.append(Line(track.label, quantity.name, track, tint, dash))
        if quantity.beside and track.has(quantity.beside):
            name = f"{track.label}, validation"
            lines.append(Line(name, quantity.beside, track, tint, "dot"))
    signs = [sign for sign in shown.signs if quantity.picks(sign)]
    lacks = f"not measured: {', '.join(without)}" if without else ""
    figure = _figure(quantity, lines, signs)
    _draw_promotions(figure, shown.tracks)
    return Panel(id, quantity.title, figure, lacks)


def _thinned(points: list[_Point], tracks: int) -> list[_Point]:
    """*points*, or every so many of them and the last one, where a screen could not show all."""
    stride = -(-len(points) // max(_FEWEST, _POINTS // max(1, tracks)))
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _figure(quantity: Quantity, lines: Sequence[Line], signs: Sequence[Sign]) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {
            "title": {"text": quantity.unit},
            "type": "log" if quantity.log else "linear",
            "zeroline": not quantity.log,
        },
        "showlegend": False,
        "shapes": [],
        "annotations": [],
    }
    if quantity.log:
        layout["yaxis"]["exponentformat"] = "power"
    figure = {"data": [_trace(quantity, line, len(lines)) for line in lines], "layout": layout}
    _draw_signs(figure, signs)
    return figure


def _trace(quantity: Quantity, line: Line, beside: int) -> dict[str, Any]:
    values = line.track.metrics[line.name]
    least = _LOG_FLOOR if quantity.log else -math.inf
    points = [
        (epoch, max(value * quantity.factor, least))
        for epoch, value in zip(line.track.epochs, values, strict=True)
        if value is not None
    ]
    points = _thinned(points, beside)
    few = len(points) <= 30
    return {
        "type": "scatter",
        "name": line.label,
        "x": [epoch for epoch, _ in points],
        "y": [_rounded(value) for _, value in points],
        "mode": "lines+markers" if few else "lines",
        "line": {"color": line.color, "width": 2, "dash": line.dash},
        "marker": {"color": line.color, "size": 5},
        "hovertemplate": f"%{{y:.4g}} in epoch %{{x}}<extra>{_plain(line.label)}</extra>",
    }


def _draw_signs(figure: dict[str, Any], signs: Sequence[Sign]) -> None:
    """A line at the first epoch of each, a band to its last, its number and its name."""
    layout = figure["layout"]
    for nth, sign in enumerate(signs):
        pen = {"color": palette.VERMILION, "width": 1.5, "dash": "dot"}
        ends = {"x0": sign.first, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"].append({"type": "line", **ends, "x1": sign.first, "line": pen})
        if sign.last > sign.first:
            band = {"fillcolor": palette.VERMILION, "opacity": 0.07, "line": {"width": 0}}
            layout["shapes"].append({"type": "rect", **ends, "x1": sign.last, **band})
        words = sign.kind if len(signs) < _CROWDED else ""
        layout["annotations"].append(
            {
                "x": sign.first,
                "yref": "paper",
                "y": 1.0 - 0.11 * (nth % 4),
                "text": f"{sign.number} {words}".strip(),
                "name": "sign",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "top",
                "xshift": 3,
                "bgcolor": palette.VERMILION,
                "font": {"color": "#FFFFFF", "size": 11},
                "borderpad": 2,
            }
        )


def _draw_promotions(figure: dict[str, Any], tracks: Iterable[Track]) -> None:
    """Where a short run became a full one."""
    borders = sorted({t.promoted_after for t in tracks if t.promoted_after is not None})
    for epoch in borders:
        pen = {"color": palette.GREY, "width": 1, "dash": "longdash"}
        x = epoch + 0.5  # after the last epoch of the short run, before the next
        line = {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": pen}
        figure["layout"]["shapes"].append(line | {"layer": "below"})
        figure["layout"]["annotations"].append(
            {
                **{"x": x, "yref": "paper", "y": 0, "yanchor": "bottom", "xanchor": "left"},
                **{"text": "promoted", "name": "promotion", "showarrow": False, "xshift": 3},
                "font": {"size": 10},
            }
        )


def _draw_rungs(figure: dict[str, Any], rungs: Iterable[int]) -> None:
    for epoch in rungs:
        pen = {"color": palette.FAINT, "width": 1, "dash": "dot"}
        ends = {"x0": epoch, "x1": epoch, "yref": "paper", "y0": 0, "y1": 1}
        figure["layout"]["shapes"].append({"type": "line", **ends, "line": pen, "layer": "below"})


def _draw_baselines(figure: dict[str, Any], shown: Trainings) -> None:
    last = max((track.epochs[-1] for track in shown.tracks if track.epochs), default=1)
    for name, value in shown.baselines.items():
        figure["data"].append(
            {
                "type": "scatter",
                "name": name,
                "x": [0, last],
                "y": [value, value],
                "mode": "lines",
                "line": {"color": palette.GREY, "width": 1.2, "dash": "dash"},
                "hovertemplate": f"{_plain(name)}: %{{y:.4g}}<extra></extra>",
            }
        )
        figure["layout"]["annotations"].append(
            {
                **{"x": 1, "xref": "paper", "xanchor": "right", "y": value, "yanchor": "bottom"},
                **{"text": _plain(name), "name": "baseline", "showarrow": False},
                "font": {"size": 11},
            }
        )


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


def _rounded(value: float | None) -> float | None:
    """With six significant digits: a screen shows four, and a page shall stay small."""
    return None if value is None else float(f"{value:.6g}")


def _plain(text: str) -> str:
    """*text* without what plotly reads as markup or as a place for a number."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "% {")):
        text = text.replace(sign, written)
    return text
