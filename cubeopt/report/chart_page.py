"""A chart painted by plotly, for pages."""

import html
import math
from functools import singledispatch
from typing import Any

import plotly.graph_objects as go

from cubeopt.report import palette
from cubeopt.report.chart import Axis, Bars, Chart, Label, Line, Mark, Points, Rule, Spans

_SYMBOLS = {"x": "x-thin", "triangle": "triangle-up", "bar": "line-ew"}
_NO_FILL = ("x", "bar")
_GRID = "rgba(128, 128, 128, 0.18)"
_UNDER = "rgba(255, 255, 255, 0.75)"  # a label; the page's scripts know it, for dark pages
_ZERO = "rgba(128, 128, 128, 0.75)"


def figure(chart: Chart) -> go.Figure:
    """*chart* as a figure of plotly; its title and sentence belong to the page around it."""
    drawn = go.Figure()
    for mark in chart.marks:
        _add(mark, drawn, chart)
    drawn.update_layout(
        template="none",
        height=chart.height,
        font={"color": palette.INK, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": 8, "r": 12, "t": 34 if chart.named else 12, "b": 8},
        legend={"orientation": "h", "y": 1.0, "yref": "container", "yanchor": "top", "x": 0},
        showlegend=chart.named,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        hovermode="closest",
        hoverlabel={"align": "left"},
        barmode="overlay",
        dragmode=False,
        uirevision="kept",
    )
    drawn.update_xaxes(_axis(chart.x))
    drawn.update_yaxes(_axis(chart.y))
    if chart.empty:
        drawn.update_layout(xaxis_visible=False, yaxis_visible=False)
        drawn.add_annotation(
            {"x": 0.5, "xref": "paper", "y": 0.5, "yref": "paper"},
            text=_wrapped(chart.empty),
            font={"size": 15},
            showarrow=False,
        )
    return drawn


def content(chart: Chart) -> dict[str, Any]:
    """*chart* for a script: figure, title, sentence, notes, and its facts as a table."""
    drawn = figure(chart).to_plotly_json()
    return {
        "title": chart.title,
        "sentence": chart.sentence,
        "notes": list(chart.notes),
        "empty": chart.empty,
        "columns": list(chart.columns),
        "rows": [list(row) for row in chart.rows],
        "figure": {"data": drawn["data"], "layout": drawn["layout"]},
    }


@singledispatch
def _add(mark: Mark, drawn: go.Figure, chart: Chart) -> None:
    raise AssertionError(f"no painter of {type(mark).__name__}")


@_add.register
def _(mark: Line, drawn: go.Figure, chart: Chart) -> None:
    pen = {"color": mark.color, "width": mark.width, "dash": mark.dash}
    if mark.steps:
        pen["shape"] = "hv"
    line = go.Scatter(x=list(mark.xs), y=list(mark.ys), mode="lines", line=pen, name=_text(mark))
    line.update(opacity=mark.opacity, connectgaps=False, **_shared(mark, mark.legend))
    drawn.add_trace(line)


@_add.register
def _(mark: Points, drawn: go.Figure, chart: Chart) -> None:
    thin = mark.marker in _NO_FILL
    marker = {
        "color": mark.color,
        "symbol": _SYMBOLS.get(mark.marker, mark.marker),
        "size": mark.size,
        "line": {"color": mark.color, "width": 2.4 if mark.marker == "bar" else 1.6 * thin},
    }
    dots = go.Scatter(x=list(mark.xs), y=list(mark.ys), mode="markers", name=_text(mark))
    dots.update(marker=marker, opacity=mark.opacity, cliponaxis=False)
    drawn.add_trace(dots.update(_shared(mark, mark.legend)))


@_add.register
def _(mark: Bars, drawn: go.Figure, chart: Chart) -> None:
    bars = go.Bar(y=list(mark.places), x=list(mark.lengths), orientation="h", name=_text(mark))
    drawn.add_trace(bars.update(marker_color=mark.color, width=0.62, **_shared(mark)))


@_add.register
def _(mark: Spans, drawn: go.Figure, chart: Chart) -> None:
    lengths = [end - start for start, end in zip(mark.starts, mark.ends, strict=True)]
    bars = go.Bar(y=list(mark.places), x=lengths, base=list(mark.starts), orientation="h")
    bars.update(marker={"color": mark.color, "line": {"width": 0}}, width=mark.height)
    drawn.add_trace(bars.update(name=_text(mark), **_shared(mark)))


@_add.register
def _(mark: Rule, drawn: go.Figure, chart: Chart) -> None:
    pen = {"color": mark.color, "width": 1.4, "dash": mark.dash}
    if mark.upright:
        drawn.add_vline(mark.value, line=pen, layer="below")
    else:
        drawn.add_hline(mark.value, line=pen, layer="below")
    if not mark.label:
        return
    axis = chart.x if mark.upright else chart.y
    value = math.log10(mark.value) if axis.log else mark.value
    place = (
        {"x": value, "y": 1, "yref": "y domain", "yanchor": "bottom"}
        if mark.upright
        else {"x": 1, "xref": "x domain", "xanchor": "right", "y": value}
        | {"yanchor": "bottom" if mark.above else "top"}
    )
    drawn.add_annotation(
        place, text=html.escape(mark.label), showarrow=False, font={"size": 12}, bgcolor=_UNDER
    )


@_add.register
def _(mark: Label, drawn: go.Figure, chart: Chart) -> None:
    x = math.log10(mark.x) if chart.x.log else mark.x
    y = {"y": 1, "yref": "y domain", "yanchor": "bottom"} if mark.top else {"y": mark.y}
    drawn.add_annotation(
        {"x": x, "xanchor": mark.anchor, **y},
        text=html.escape(mark.text).replace("\n", "<br>"),
        align=mark.anchor,
        font={"size": 12},
        showarrow=False,
    )


def _text(mark: Line | Points | Bars | Spans) -> str:
    return html.escape(mark.name)


def _shared(mark: Line | Points | Bars | Spans, legend: bool = True) -> dict[str, Any]:
    shown: dict[str, Any] = {"showlegend": legend and bool(mark.name)}
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
        "fixedrange": False,
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
        if any("\n" in name for name in axis.ticks.values()):
            said["tickangle"] = 0
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
