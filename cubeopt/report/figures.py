"""The picture of a study painted: as a page (plotly) or as a PNG (matplotlib)."""

import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from plotly.subplots import make_subplots

from cubeopt import atomic
from cubeopt.report.labels import Star
from cubeopt.report.pareto import tick_label
from cubeopt.report.picture import Picture
from cubeopt.report.stroke import Stroke, Style

WIDTH, HEIGHT = 1400, 700  # pixels of the PNG
_SHARES = (0.64, 0.36)  # of the width: learning curves, results
_CURVES = "Learning curves"
_RUNG = "rung: trials are compared"
_RAISED = 9  # names beside stars of a front: above the stairs
_INK, _FAINT = "#333333", "#BBBBBB"
_MPL_DASH = {"solid": "-", "dot": ":", "dash": "--"}
_MPL_MARKER = {
    "x-thin": "x",
    "triangle-up": "^",
    "circle-open": "o",
    "circle": "o",
    "star": "*",
}


def history(shown: Picture) -> go.Figure:
    """*shown* as a figure of plotly."""
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        column_widths=list(_SHARES),
        subplot_titles=(_CURVES, shown.result_title),
    )
    low, high = shown.limits
    for rung in shown.rungs:
        pen = {"color": _FAINT, "width": 1, "dash": "dot"}
        line = go.Scatter(x=[rung, rung], y=[low, high], mode="lines", line=pen, name=_RUNG)
        line.update(hoverinfo="skip", legendgroup="rung", showlegend=rung == shown.rungs[0])
        figure.add_trace(line, row=1, col=1)
    for column, (first, last) in ((1, shown.epoch_range), (2, shown.result_range)):
        for level in shown.levels:
            pen = {"color": _INK, "width": 1.2, "dash": "dash"}
            line = go.Scatter(x=[first, last], y=[level.value] * 2, mode="lines", line=pen)
            line.update(showlegend=False, hoverinfo="text", text=f"{level.label}")
            figure.add_trace(line, row=1, col=column)
    for stroke in shown.curves:
        figure.add_trace(_trace(stroke, "lines+markers", shown.results), row=1, col=1)
    for stroke in shown.results:
        figure.add_trace(_trace(stroke, "markers", []), row=1, col=2)
    if shown.across and shown.across.front:
        (xs, ys), style = shown.across.stairs, shown.across.front.style
        line = go.Scatter(x=xs, y=ys, mode="lines", line={"color": style.color, "width": 1.5})
        line.update(hoverinfo="skip", legendgroup=style.label, showlegend=False)
        figure.add_trace(line, row=1, col=2)
        figure.add_trace(_trace(shown.across.front, "markers", []), row=1, col=2)
    for column, title in enumerate(figure.layout.annotations):
        first, _ = figure.layout[("xaxis", "xaxis2")[column]].domain
        title.update(x=first, xanchor="left", yshift=8, font_size=14)
    _lay_out(figure, shown)
    return figure


def write_html(shown: Picture, path: Path) -> None:
    """Write *shown* as one page that needs no network, whole or not at all."""
    body = history(shown).to_html(
        full_html=False,
        include_plotlyjs=True,
        default_width="100%",
        default_height="calc(100vh - 16px)",
        config={"displaylogo": False, "responsive": True},
    )
    title = html.escape(shown.title)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="icon" href="data:,"></head>\n'
        f'<body style="margin: 8px">{body}</body>\n</html>\n'
    )
    atomic.write(page.encode(), path)


def write_png(shown: Picture, path: Path) -> None:
    """Write *shown* as a PNG, whole or not at all."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=list(_SHARES))
    figure.suptitle(f"{shown.title}\n\n", x=0.012, ha="left", fontsize=15, color=_INK)
    figure.text(0.012, 0.935, shown.subtitle, fontsize=10.5, color=_INK, va="center")
    for axes, ticks, span in (
        (left, shown.epoch_ticks, shown.epoch_range),
        (right, shown.across.ticks if shown.across else shown.trial_ticks, shown.result_range),
    ):
        scaled = shown.across.logarithmic if shown.across and axes is right else False
        _prepare(axes, ticks, span, shown.logarithmic if axes is left else scaled)
        for level in shown.levels:
            axes.axhline(level.value, color=_INK, linewidth=1.2, linestyle=(0, (5, 4)), zorder=1)
    _paint_curves(left, shown)
    for stroke in shown.results:
        _plot(right, stroke, line=False)
    if shown.across and shown.across.front:
        right.plot(*shown.across.stairs, color=shown.across.front.style.color, linewidth=1.5)
        _plot(right, shown.across.front, line=False)
    for star in shown.stars:
        far = _far(star, shown)
        right.annotate(
            star.label,
            (star.x, star.label_y),
            xytext=(-11 if far else 11, _RAISED if shown.across else 0),
            textcoords="offset points",
            ha="right" if far else "left",
            va="center",
            color=_INK,
            zorder=6,
        )
    right.set_xlabel(shown.result_label)
    for axes, title in ((left, _CURVES), (right, shown.result_title)):
        axes.set_title(title, fontsize=11, color=_INK, loc="left")
    handles = {label: line for axes in (right, left) for line, label in _legend_of(axes)}
    legend = figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=6, frameon=False
    )
    for line in legend.get_lines():
        line.set_alpha(1.0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic.write(buffer.getvalue(), path)


def _trace(stroke: Stroke, mode: str, results: Sequence[Stroke]) -> go.Scatter:
    """A stroke for plotly; the legend has each state once, so curves leave it to *results*."""
    style = stroke.style
    lines = mode == "lines+markers"
    return go.Scatter(
        x=[None if math.isnan(x) else x for x in stroke.xs],
        y=[None if math.isnan(y) else y for y in stroke.ys],
        text=stroke.notes,
        hoverinfo="text",
        mode=mode,
        name=stroke.label,
        legendgroup=style.label,
        opacity=stroke.opacity,
        cliponaxis=lines,
        showlegend=all(style != result.style for result in results),
        line={"color": style.color, "width": style.width, "dash": style.dash},
        marker={
            "color": style.color,
            "symbol": "circle" if lines else style.marker,
            "size": _dot(style) + 1 if lines else style.size + 2,
            "line": {"color": style.color, "width": 0 if lines else 1.6},
        },
    )


def _lay_out(figure: go.Figure, shown: Picture) -> None:
    figure.update_layout(
        template="plotly_white",
        title={
            "text": shown.title,
            "subtitle": {"text": shown.subtitle},
            **{"x": 0.01, "y": 0.97, "yanchor": "top"},
        },
        font={"color": _INK, "size": 13},
        legend={"orientation": "h", "y": -0.13, "x": 0.5, "xanchor": "center"},
        margin={"l": 80, "r": 20, "t": 110, "b": 80},
        hovermode="closest",
    )
    first, last = shown.epoch_range
    ends = [math.log10(first), math.log10(last)] if shown.logarithmic else [first, last]
    scale = "log" if shown.logarithmic else "linear"
    figure.update_xaxes(title=shown.epoch_label, type=scale, range=ends, row=1, col=1)
    figure.update_xaxes(tickvals=shown.epoch_ticks, row=1, col=1)
    first, last = shown.result_range
    logarithmic = shown.across is not None and shown.across.logarithmic
    ends = [math.log10(first), math.log10(last)] if logarithmic else [first, last]
    scale = "log" if logarithmic else "linear"
    figure.update_xaxes(title=shown.result_label, type=scale, range=ends, row=1, col=2)
    ticks = shown.across.ticks if shown.across else shown.trial_ticks
    figure.update_xaxes(tickvals=ticks, ticktext=[*map(tick_label, ticks)], row=1, col=2)
    figure.update_xaxes(title_font_size=13, showgrid=False, zeroline=False)
    figure.update_yaxes(title=shown.axis, row=1, col=1)
    figure.update_yaxes(range=list(shown.limits), title_font_size=13, zeroline=False)
    for star in shown.stars:
        far = _far(star, shown)
        x = math.log10(star.x) if logarithmic else star.x
        figure.add_annotation(
            {"x": x, "xref": "x2", "y": star.label_y, "yref": "y2"},
            text=star.label,
            xanchor="right" if far else "left",
            xshift=-11 if far else 11,
            yshift=_RAISED if shown.across else 0,
            showarrow=False,
        )
    for level in shown.levels:
        figure.add_annotation(
            {"x": 1, "xref": "x domain", "xanchor": "right", "y": level.value, "yref": "y"},
            yanchor="bottom" if level.above else "top",
            text=level.label,
            showarrow=False,
            bgcolor="rgba(255, 255, 255, 0.75)",
        )
    if shown.empty:
        figure.add_annotation(
            {"x": 0.5, "xref": "x domain", "y": 0.5, "yref": "paper"},
            text=shown.empty,
            font={"size": 17},
            showarrow=False,
            bgcolor="white",
        )


def _far(star: Star, shown: Picture) -> bool:
    """Whether a label to the right of *star* would leave the picture."""
    if shown.across is None:
        return star.x > 0.7 * shown.last_trial
    return shown.across.share(star.x) > (0.6 if "," in star.label else 0.8)


def _prepare(
    axes: Axes, ticks: Sequence[float], span: tuple[float, float], logarithmic: bool
) -> None:
    if logarithmic:
        axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(ticks), [tick_label(tick) for tick in ticks])
    axes.set_xlim(*span)
    axes.grid(axis="y", color="#EEEEEE")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)


def _paint_curves(axes: Axes, shown: Picture) -> None:
    for rung in shown.rungs:
        label = _RUNG if rung == shown.rungs[0] else None
        axes.axvline(rung, color=_FAINT, linewidth=1, linestyle=":", label=label, zorder=0)
    for stroke in shown.curves:
        _plot(axes, stroke, line=True)
    axes.set(xlabel=shown.epoch_label, ylabel=shown.axis)
    axes.set_ylim(*shown.limits)
    for level in shown.levels:
        axes.annotate(
            level.label,
            (1.0, level.value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, 3 if level.above else -3),
            textcoords="offset points",
            ha="right",
            va="bottom" if level.above else "top",
            color=_INK,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
            zorder=5,
        )
    if shown.empty:
        box = {"facecolor": "white", "edgecolor": "none"}
        text = axes.text(0.5, 0.5, shown.empty, transform=axes.transAxes, wrap=True, bbox=box)
        text.set(ha="center", va="center", fontsize=14, color=_INK)


def _plot(axes: Axes, stroke: Stroke, line: bool) -> None:
    style = stroke.style
    axes.plot(
        stroke.xs,
        stroke.ys,
        color=style.color,
        label=stroke.label,
        linewidth=style.width,
        linestyle=_MPL_DASH[style.dash] if line else "none",
        marker="o" if line else _MPL_MARKER[style.marker],
        markersize=_dot(style) if line else style.size,
        alpha=stroke.opacity,
        clip_on=line,
        markerfacecolor="none" if style.marker.endswith("open") and not line else style.color,
        zorder=2 + style.width / 2,
    )


def _dot(style: Style) -> float:
    """The size of a point on a curve; on a bold curve it does not show."""
    return style.width if style.width > 3 else style.width + 1.5


def _legend_of(axes: Axes) -> list[tuple[Any, str]]:
    handles, labels = axes.get_legend_handles_labels()
    return list(zip(handles, labels, strict=True))
