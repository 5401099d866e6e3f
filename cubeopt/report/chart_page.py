"""A chart painted by plotly, for pages."""

import html
import math
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import plotly.graph_objects as go

from cubeopt.report import palette
from cubeopt.report.chart import Axis, Bars, Chart, Label, Line, Mark, Points, Rule, Spans

_SYMBOLS = {"x": "x-thin", "triangle": "triangle-up", "bar": "line-ew"}
_NO_FILL = ("x", "bar")
_GRID = "rgba(128, 128, 128, 0.18)"
_CROWDED = 60  # letters of all names along an axis
_UNDER = "rgba(255, 255, 255, 0.75)"  # a label; the page's scripts know it, for dark pages
_ZERO = "rgba(128, 128, 128, 0.75)"


def figure(chart: Chart) -> go.Figure:
    """*chart* as a figure of plotly; its title and sentence belong to the page around it."""
    return go.Figure(drawing(chart)).update_layout(template="none")


def drawing(chart: Chart) -> dict[str, Any]:
    """The same as plain data and layout, for a script; plotly's own classes are far slower."""
    layout: dict[str, Any] = {
        "height": chart.height,
        "font": {"color": palette.INK, "size": 13, "family": "system-ui, sans-serif"},
        "margin": {"l": 8, "r": 12, "t": 34 if chart.named else 12, "b": 8},
        "legend": {"orientation": "h", "y": 1.0, "yref": "container", "yanchor": "top", "x": 0},
        "showlegend": chart.named,
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "barmode": "overlay",
        "dragmode": False,
        "uirevision": "kept",
        "xaxis": _axis(chart.x),
        "yaxis": _axis(chart.y),
        "shapes": [],
        "annotations": [],
    }
    names = list((chart.x.ticks or {}).values())
    if any("\n" in name for name in names):
        layout["xaxis"]["tickangle"] = 0
    elif sum(map(len, names)) > _CROWDED:
        layout["xaxis"]["tickangle"] = 60  # else a narrow screen leaves some names out
    drawn = _Drawing([], layout)
    for mark in chart.marks:
        _add(mark, drawn, chart)
    if chart.empty:
        layout["xaxis"]["visible"] = layout["yaxis"]["visible"] = False
        where = {"x": 0.5, "xref": "paper", "y": 0.5, "yref": "paper"}
        drawn.say(where, _wrapped(chart.empty), font={"size": 15})
    return {"data": drawn.traces, "layout": layout}


def content(chart: Chart) -> dict[str, Any]:
    """*chart* for a script: figure, title, sentence, notes, and its facts as a table."""
    return {
        "title": chart.title,
        "sentence": chart.sentence,
        "notes": list(chart.notes),
        "empty": chart.empty,
        "columns": list(chart.columns),
        "rows": [list(row) for row in chart.rows],
        "figure": drawing(chart),
    }


@dataclass(frozen=True)
class _Drawing:
    """What grows mark by mark."""

    traces: list[dict[str, Any]]
    layout: dict[str, Any]

    def say(self, where: dict[str, Any], text: str, **look: Any) -> None:
        self.layout["annotations"].append({**where, "text": text, "showarrow": False, **look})


@singledispatch
def _add(mark: Mark, drawn: _Drawing, chart: Chart) -> None:
    raise AssertionError(f"no painter of {type(mark).__name__}")


@_add.register
def _(mark: Line, drawn: _Drawing, chart: Chart) -> None:
    pen = {"color": mark.color, "width": mark.width, "dash": mark.dash}
    drawn.traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": list(mark.xs),
            "y": list(mark.ys),
            "line": {**pen, "shape": "hv"} if mark.steps else pen,
            "opacity": mark.opacity,
            "connectgaps": False,
            **_shared(mark, mark.legend),
        }
    )


@_add.register
def _(mark: Points, drawn: _Drawing, chart: Chart) -> None:
    thin = mark.marker in _NO_FILL
    marker = {
        "color": mark.color,
        "symbol": _SYMBOLS.get(mark.marker, mark.marker),
        "size": mark.size,
        "line": {"color": mark.color, "width": 2.4 if mark.marker == "bar" else 1.6 * thin},
    }
    drawn.traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": list(mark.xs),
            "y": list(mark.ys),
            "marker": marker,
            "opacity": mark.opacity,
            "cliponaxis": False,
            **_shared(mark, mark.legend),
        }
    )


@_add.register
def _(mark: Bars, drawn: _Drawing, chart: Chart) -> None:
    drawn.traces.append(
        {
            "type": "bar",
            "orientation": "h",
            "y": list(mark.places),
            "x": list(mark.lengths),
            "marker": {"color": mark.color},
            "width": 0.62,
            **_shared(mark),
        }
    )


@_add.register
def _(mark: Spans, drawn: _Drawing, chart: Chart) -> None:
    drawn.traces.append(
        {
            "type": "bar",
            "orientation": "h",
            "y": list(mark.places),
            "base": list(mark.starts),
            "x": [end - start for start, end in zip(mark.starts, mark.ends, strict=True)],
            "marker": {"color": mark.color, "line": {"width": 0}},
            "width": mark.height,
            **_shared(mark),
        }
    )


@_add.register
def _(mark: Rule, drawn: _Drawing, chart: Chart) -> None:
    axis = chart.x if mark.upright else chart.y
    along, across = ("y", "x") if mark.upright else ("x", "y")
    drawn.layout["shapes"].append(
        {
            "type": "line",
            "layer": "below",
            "line": {"color": mark.color, "width": 1.4, "dash": mark.dash},
            f"{across}0": mark.value,
            f"{across}1": mark.value,
            f"{along}0": 0,
            f"{along}1": 1,
            f"{along}ref": f"{along} domain",
        }
    )
    if not mark.label:
        return
    where: dict[str, Any] = {across: math.log10(mark.value) if axis.log else mark.value}
    where |= {along: 1, f"{along}ref": f"{along} domain"}
    if mark.upright:
        where["yanchor"] = "bottom"
    else:
        where |= {"xanchor": "right", "yanchor": "bottom" if mark.above else "top"}
    drawn.say(where, html.escape(mark.label), font={"size": 12}, bgcolor=_UNDER)


@_add.register
def _(mark: Label, drawn: _Drawing, chart: Chart) -> None:
    where: dict[str, Any] = {"x": math.log10(mark.x) if chart.x.log else mark.x}
    where |= {"xanchor": mark.anchor}
    where |= {"y": 1, "yref": "y domain", "yanchor": "bottom"} if mark.top else {"y": mark.y}
    text = html.escape(mark.text).replace("\n", "<br>")
    drawn.say(where, text, align=mark.anchor, font={"size": 12})


def _shared(mark: Line | Points | Bars | Spans, legend: bool = True) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": html.escape(mark.name)}
    shown["showlegend"] = legend and bool(mark.name)
    if not mark.notes:
        return {**shown, "hoverinfo": "skip"}
    # What Optuna's and our own names hold is text, not markup.
    notes = [html.escape(note).replace("\n", "<br>") for note in mark.notes]
    return {**shown, "hovertext": notes, "hoverinfo": "text"}


def _axis(axis: Axis) -> dict[str, Any]:
    said: dict[str, Any] = {
        "title": {"text": html.escape(axis.title), "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "gridcolor": _GRID,
        "zeroline": axis.zero,
        "zerolinecolor": _ZERO,
        "zerolinewidth": 1.4,
        "type": "log" if axis.log else "linear",
    }
    if axis.limits is not None:
        ends = [math.log10(end) for end in axis.limits] if axis.log else list(axis.limits)
        said["range"] = ends[::-1] if axis.downwards else ends
    elif axis.downwards:
        said["autorange"] = "reversed"
    elif axis.zero:
        said["rangemode"] = "tozero"
    if axis.ticks is not None:
        said["tickvals"] = list(axis.ticks)
        names = (html.escape(name) for name in axis.ticks.values())
        said["ticktext"] = [name.replace("\n", "<br>") for name in names]
    elif axis.whole:
        said["tickformat"] = ",d"
        if axis.limits is not None and axis.limits[1] - axis.limits[0] < 8:
            said["dtick"] = 1
    if axis.form:
        said["tickformat"] = axis.form
    return said


def _wrapped(text: str, width: int = 44) -> str:
    """*text* in lines short enough for a phone."""
    lines: list[str] = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(map(html.escape, lines))
