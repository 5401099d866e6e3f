"""The figures of a dataset's page: plain rows in, plotly figures out.

Rows are those of ``cubeopt data check --json``. Colours are those of Okabe and Ito.
"""

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

Row = Mapping[str, Any]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_PALE = "#56B4E9"
_INK, _FAINT = "#333333", "#BBBBBB"
_CUBES = {64: "8x8x8", 225: "15x15x15", 729: "27x27x27"}
_SPLIT_COLORS = {"train": BLUE, "validation": ORANGE, "test": GREEN}
GUESSES = {
    "question": "the question itself",
    "pca": "question through PCA",
    "pca_codes": "PCA codes",
    "ridge": "ridge",
}


def explained(fit: Row) -> go.Figure:
    """Share of the variance that the first axes hold, the widths of faces marked."""
    curve = fit["geometry"]["explained"]
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(curve) + 1)),
            y=curve,
            mode="lines",
            line={"color": BLUE, "width": 3},
            hovertemplate="%{x} numbers hold %{y:.1%}<extra></extra>",
        )
    )
    for width, cube in _CUBES.items():
        if width < len(curve):
            _mark(figure, width, curve[width - 1], f"{cube}: {width} numbers, ")
    figure.update_yaxes(title="share of the variance", tickformat=".0%", range=[0, 1.05])
    _by_width(figure, len(curve))
    return _finish(figure, 380)


def _mark(figure: go.Figure, width: int, share: float, label: str) -> None:
    pen = {"color": _FAINT, "width": 1.5, "dash": "dot"}
    figure.add_shape(type="line", x0=width, x1=width, y0=0, y1=share, line=pen)
    dot = go.Scatter(x=[width], y=[share], mode="markers")
    dot.update(marker={"color": ORANGE, "size": 10}, hoverinfo="skip")
    figure.add_trace(dot)
    # On a logarithmic axis an annotation stands at the exponent.
    figure.add_annotation(
        x=math.log10(width),
        y=share,
        text=f"{label}{share:.0%}",
        xanchor="right",
        xshift=-10,
        showarrow=False,
    )


def _by_width(figure: go.Figure, last: int) -> None:
    ticks = [tick for tick in (1, 4, 16, 64, 256, 1024) if tick <= last]
    figure.update_xaxes(
        title="numbers kept (log)",
        type="log",
        tickvals=ticks,
        ticktext=[str(tick) for tick in ticks],
    )


def reconstruction(fit: Row) -> go.Figure:
    """Cosine and fvu of unseen sentences by the width that they go through."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=("cosine", "variance unexplained"))
    scores = fit["reconstruction"]
    by_pca = [score for score in scores if score["name"] == "pca"]
    networks = [("random axes", GREY, "x", [s for s in scores if s["name"] == "random"])]
    for trained in fit["networks"]:
        noisy = trained["noise"] > 0
        label = f"network, noise {trained['noise']:g}" if noisy else "network"
        networks.append((label, GREEN, "star" if noisy else "diamond", [trained]))
    for column, key in ((1, "cosine"), (2, "fvu")):
        line = go.Scatter(x=[s["width"] for s in by_pca], y=[s[key] for s in by_pca])
        line.update(mode="lines+markers", name="PCA", legendgroup="pca", showlegend=column == 1)
        line.update(line={"color": BLUE, "width": 3}, hovertemplate="%{x}: %{y:.3f}")
        figure.add_trace(line, row=1, col=column)
        for label, color, symbol, rows in networks:
            dots = go.Scatter(x=[row["width"] for row in rows], y=[row[key] for row in rows])
            dots.update(mode="markers", name=label, legendgroup=label, showlegend=column == 1)
            dots.update(marker={"color": color, "symbol": symbol, "size": 12})
            figure.add_trace(dots, row=1, col=column)
        _by_width(figure, fit["width"])
    figure.update_yaxes(range=[0, 1.05])
    return _finish(figure, 420, top=100)


def cosines(fit: Row) -> go.Figure | None:
    """Question and answer against question and another's answer, by task and label."""
    rows = fit["likeness"]
    if not rows:
        return None
    titles = [
        f"{title_of(row)}: true {row['true']:.2f}, shuffled {row['shuffled']:.2f}" for row in rows
    ]
    figure = make_subplots(
        rows=len(rows),
        cols=1,
        shared_xaxes=True,
        subplot_titles=titles,
        vertical_spacing=0.3 / (len(rows) + 1),
    )
    for place, row in enumerate(rows, start=1):
        for key, label, color in (
            ("shuffled_counts", "another's answer", GREY),
            ("true_counts", "its own answer", BLUE),
        ):
            counts = row[key]
            step = 2.0 / len(counts)
            middles = [-1.0 + (index + 0.5) * step for index in range(len(counts))]
            shares = [count / max(1, sum(counts)) for count in counts]
            bars = go.Bar(x=middles, y=shares, name=label, marker_color=color, opacity=0.65)
            bars.update(legendgroup=key, showlegend=place == 1, width=step)
            bars.update(hovertemplate="cosine %{x:.2f}: %{y:.1%}")
            figure.add_trace(bars, row=place, col=1)
        figure.update_yaxes(title="share", tickformat=".0%", row=place, col=1)
    figure.update_xaxes(range=[-0.5, 1.02])
    figure.update_xaxes(title="cosine of question and answer", row=len(rows), col=1)
    figure.update_layout(barmode="overlay", bargap=0)
    return _finish(figure, 130 + 150 * len(rows))


def title_of(row: Row) -> str:
    """A task, or one of its labels."""
    return row["task"] if row["label"] is None else f"{row['task']}, {row['label']}"


def difficulty(fit: Row) -> go.Figure | None:
    """Copy, mean and ridge of each task."""
    tasks = fit["difficulty"]
    if not tasks:
        return None
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("cosine (1 perfect)", "fvu (0 perfect, 1 the mean)")
    )
    names = {"copy": "copy the question", "mean": "mean answer", "ridge": "ridge"}
    colors = {"copy": _PALE, "mean": GREY, "ridge": BLUE}
    for column, key in ((1, "cosine"), (2, "fvu")):
        for name, label in names.items():
            values = [
                next(score[key] for score in task["scores"] if score["name"] == name)
                for task in tasks
            ]
            bars = go.Bar(x=[task["task"] for task in tasks], y=values, name=label)
            bars.update(marker_color=colors[name], legendgroup=name, showlegend=column == 1)
            bars.update(
                texttemplate="%{y:.2f}", textposition="outside", cliponaxis=False, textangle=0
            )
            figure.add_trace(bars, row=1, col=column)
    figure.update_xaxes(title="task")
    return _finish(figure, 380)


def retrieval(fit: Row) -> go.Figure | None:
    """How often the right answer comes first, among few candidates."""
    tasks = [task for task in fit["difficulty"] if task["retrieval"]]
    if not tasks:
        return None
    figure = go.Figure()
    for task, color in zip(tasks, (BLUE, ORANGE, GREEN, GREY), strict=False):
        few = min(row["candidates"] for row in task["retrieval"])
        rows = [row for row in task["retrieval"] if row["candidates"] == few]
        bars = go.Bar(y=[GUESSES[row["name"]] for row in rows], x=[row["top1"] for row in rows])
        bars.update(orientation="h", name=f"{task['task']}, among {few}", marker_color=color)
        bars.update(texttemplate="%{x:.0%}", textposition="outside", cliponaxis=False, textangle=0)
        figure.add_trace(bars)
    figure.update_yaxes(autorange="reversed", title="what is compared with the answers")
    highest = max(row["top1"] for task in tasks for row in task["retrieval"])
    # Room for the numbers beyond the bars.
    figure.update_xaxes(range=[0, max(0.01, 1.25 * highest)])
    figure.update_xaxes(title="right answer first", tickformat=".0%")
    return _finish(figure, 380)


def copies(fit: Row) -> go.Figure:
    """Sentences that have a near copy, by split and cosine."""
    titles = ("in its own split", "in another split")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True)
    rows = [row for row in fit["neighbours"] if row["looked_at"]]
    for column, key in ((1, "within"), (2, "across")):
        for row in rows:
            shares = [count / row["looked_at"] for count in row[key].values()]
            bars = go.Bar(x=[f"≥ {name}" for name in row[key]], y=shares, name=row["split"])
            bars.update(marker_color=_SPLIT_COLORS[row["split"]], legendgroup=row["split"])
            bars.update(showlegend=column == 1, customdata=list(row[key].values()))
            bars.update(hovertemplate="%{customdata} sentences, %{y:.2%}")
            figure.add_trace(bars, row=1, col=column)
    figure.update_xaxes(title="cosine of the nearest")
    figure.update_yaxes(title="share of the sentences", tickformat=".1%", row=1, col=1)
    figure.update_yaxes(rangemode="tozero")
    return _finish(figure, 360)


def labels(fit: Row) -> go.Figure | None:
    """Accuracy of linear probes, with standard errors, above the commonest label."""
    rows = fit["readings"]
    if not rows:
        return None
    figure = go.Figure()
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for name, color in (("full", BLUE), ("pca", ORANGE), ("random", GREY)):
        own = [row for row in rows if row["name"] == name]
        title = {"full": "whole embedding", "pca": "PCA", "random": "random axes"}[name]
        bars = go.Bar(x=[row["task"] for row in own], y=[row["accuracy"] for row in own])
        bars.update(name=f"{title} ({own[0]['width']})", marker_color=color)
        bars.update(error_y={"type": "data", "array": [row["error"] for row in own]})
        bars.update(texttemplate="%{y:.0%}", textposition="inside", insidetextanchor="start")
        figure.add_trace(bars)
    majority = {row["task"]: row["majority"] for row in rows}
    line = go.Scatter(x=tasks, y=[majority[task] for task in tasks], mode="markers")
    line.update(name="always the commonest label")
    line.update(marker={"symbol": "line-ew", "size": 60, "line": {"width": 3, "color": _INK}})
    figure.add_trace(line)
    figure.update_yaxes(title="accuracy on validation", tickformat=".0%", range=[0, 1.05])
    figure.update_xaxes(title="task")
    figure.update_layout(bargap=0.5)
    return _finish(figure, 400)


def shares(fit: Row, what: str) -> go.Figure | None:
    """How the rows of each split are made up of tasks, corpora or labels."""
    rows = [row for row in fit["drift"]["shares"] if row["what"] == what]
    rows = [row for row in rows if any(row["rows"].values())]
    if len(rows) < 2:
        return None
    splits = list(rows[0]["rows"])
    totals = {split: sum(row["rows"][split] for row in rows) for split in splits}
    figure = go.Figure()
    for split in splits:
        if not totals[split]:
            continue
        values = [row["rows"][split] / totals[split] for row in rows]
        bars = go.Bar(y=[row["name"] for row in rows], x=values, orientation="h", name=split)
        bars.update(marker_color=_SPLIT_COLORS[split])
        bars.update(customdata=[row["rows"][split] for row in rows])
        bars.update(hovertemplate="%{customdata} rows, %{x:.1%}")
        figure.add_trace(bars)
    figure.update_xaxes(title="share of the split's rows", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", title=what)
    return _finish(figure, 170 + 60 * len(rows))


def drift(fit: Row) -> go.Figure:
    """Variance lost in each split through the same axes."""
    rows = [row for row in fit["drift"]["parts"] if row["unexplained"] is not None]
    colors = [_SPLIT_COLORS.get(row["split"], _PALE) for row in rows]
    bars = go.Bar(y=[row["split"] for row in rows], x=[row["unexplained"] for row in rows])
    bars.update(orientation="h", marker_color=colors, showlegend=False)
    bars.update(texttemplate="%{x:.3f}", textposition="inside")
    figure = go.Figure(bars)
    figure.update_xaxes(title=f"fvu through {fit['drift']['width']} axes", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", title="split")
    return _finish(figure, 280)


def told(fit: Row) -> go.Figure | None:
    """AUC of the classifier that tells the splits, and what chance gives."""
    row = fit["drift"]["told"]
    if row is None:
        return None
    band = go.Scatter(x=[row["low"], row["high"]], y=["AUC", "AUC"], mode="lines")
    band.update(line={"color": _FAINT, "width": 22}, name="by chance")
    dot = go.Scatter(x=[row["auc"]], y=["AUC"], mode="markers", name="training or validation")
    dot.update(marker={"color": ORANGE, "size": 16})
    figure = go.Figure([band, dot])
    figure.update_xaxes(title="AUC (0.5: cannot be told, 1: always told)", range=[0, 1])
    figure.update_yaxes(title="classifier", showticklabels=False)
    return _finish(figure, 230)


def _finish(figure: go.Figure, height: int, top: int = 60) -> go.Figure:
    named = any(trace.showlegend is not False and trace.name for trace in figure.data)
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"color": _INK, "size": 13},
        margin={"l": 10, "r": 16, "t": top if named else 20, "b": 10},
        legend={"orientation": "h", "y": 1.0, "yref": "container", "yanchor": "top", "x": 0},
        showlegend=named,
        dragmode=False,
        hovermode="closest",
    )
    figure.update_annotations(font_size=13)
    figure.update_xaxes(automargin=True, title_standoff=8)
    figure.update_yaxes(automargin=True, title_standoff=8)
    return figure
