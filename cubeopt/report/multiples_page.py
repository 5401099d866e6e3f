"""Panels painted by plotly, for pages; as plain data and layout, as `chart_page` does it."""

from typing import Any

from cubeopt.report import palette
from cubeopt.report.multiples import Curve, Flag, Panel

_HEIGHT, _TALLER = 220, 120  # pixels, without flags; and more for the chief panel
_FLAG, _FLAGS = 18, 4  # pixels of a row of flags, and how many rows there are
_GOOD, _BAD = (palette.GREEN, palette.DEEP_GREEN), (palette.VERMILION, palette.DEEP_VERMILION)
_FEW = 30  # points: each is seen


def figure(panel: Panel) -> dict[str, Any]:
    """*panel* as plotly takes it; what stands around it belongs to the page."""
    flags = _FLAG * min(len(panel.flags), _FLAGS)
    layout: dict[str, Any] = {
        "height": _HEIGHT + _TALLER * panel.chief + flags,
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", "zeroline": False},
        "yaxis": _values(panel),
        "showlegend": False,
        "margin": {"l": 62, "r": 12, "t": 10 + flags, "b": 44},
        "shapes": [],
        "annotations": [],
    }
    drawn = {"data": [_trace(each) for each in panel.curves], "layout": layout}
    _draw_flags(drawn, panel)
    _draw_promotions(drawn, panel)
    if panel.baselines:
        _draw_baselines(drawn, panel)
    for epoch in panel.rungs:
        _draw_upright(drawn, epoch, {"color": palette.FAINT, "width": 1, "dash": "dot"})
    return drawn


def _values(panel: Panel) -> dict[str, Any]:
    """The axis of the values."""
    axis: dict[str, Any] = {
        "title": {"text": panel.unit, "standoff": 8},
        "automargin": True,
        "type": "log" if panel.log else "linear",
        "zeroline": not panel.log,
    }
    if panel.log:
        axis["exponentformat"] = "power"
    if panel.limits is not None:
        axis |= {"range": list(panel.limits), "autorange": False}
    if panel.zero:
        axis["rangemode"] = "tozero"
    return axis


def _trace(curve: Curve) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": curve.label,
        "x": list(curve.epochs),
        "y": list(curve.values),
        "mode": "lines+markers" if len(curve.epochs) <= _FEW else "lines",
        "line": {"color": curve.color, "width": curve.width, "dash": curve.dash},
        "marker": {"color": curve.color, "size": 5},
        "hovertemplate": f"%{{y:.4g}} in epoch %{{x}}<extra>{_plain(curve.label)}</extra>",
    }


def _draw_flags(figure: dict[str, Any], panel: Panel) -> None:
    """A line at the first epoch of each, a band to its last, and above the plot a flag: its number
    and its name.
    """
    last = max((x for curve in panel.curves for x in curve.epochs), default=1)
    for nth, flag in enumerate(panel.flags):
        tint, dark = _GOOD if flag.good else _BAD
        pen = {"color": tint, "width": 1.5, "dash": "dot"}
        ends = {"x0": flag.first, "yref": "paper", "y0": 0, "y1": 1}
        figure["layout"]["shapes"].append({"type": "line", **ends, "x1": flag.first, "line": pen})
        if flag.last > flag.first:
            band = {"fillcolor": tint, "opacity": 0.07, "line": {"width": 0}}
            figure["layout"]["shapes"].append({"type": "rect", **ends, "x1": flag.last, **band})
        where = {"x": flag.first, "xanchor": "right" if flag.first > last / 2 else "left"}
        figure["layout"]["annotations"].append(where | _flag(flag, dark, nth))


def _flag(flag: Flag, ground: str, nth: int) -> dict[str, Any]:
    return {
        **{"yref": "paper", "y": 1, "yshift": _FLAG * (nth % _FLAGS), "yanchor": "bottom"},
        "text": f"{flag.number} {flag.words}".strip(),
        "name": "sign",
        "showarrow": False,
        "bgcolor": ground,
        "font": {"color": "#FFFFFF", "size": 11},
        "borderpad": 1,
    }


def _draw_promotions(figure: dict[str, Any], panel: Panel) -> None:
    """Where a short run became a full one."""
    for x in panel.promotions:
        _draw_upright(figure, x, {"color": palette.GREY, "width": 1, "dash": "longdash"})
        if panel.chief:
            note = {"x": x, "yref": "paper", "y": 1, "yanchor": "top", "xanchor": "left"}
            note |= {"text": "promoted", "name": "promotion", "showarrow": False, "xshift": 3}
            figure["layout"]["annotations"].append(note | {"font": {"size": 11}})


def _draw_upright(figure: dict[str, Any], x: float, pen: dict[str, Any]) -> None:
    ends = {"x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
    figure["layout"]["shapes"].append({"type": "line", **ends, "line": pen, "layer": "below"})


def _draw_baselines(figure: dict[str, Any], panel: Panel) -> None:
    """What a training has to be better than."""
    for name, value in panel.baselines.items():
        figure["data"].append(
            {
                "type": "scatter",
                "name": name,
                "x": [0, panel.last],
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


def _plain(text: str) -> str:
    """*text* without what plotly reads as markup or as a place for a number."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "% {")):
        text = text.replace(sign, written)
    return text
