"""Pictures of a cube with plotly: in 3D, and layer by layer for who cannot use that.

For a report: ``figure(found)`` is the cube in 3D by its dominant experts at the last step,
``figure(found, "carried", step=2)`` any other colouring and step (keys: `cube.colourings`), and
``layers(found, ...)`` the same cells in flat tiles. *found* is an `Emergence` record, also one read
back with `record.from_json`. For PNG files: `cube_painting`.
"""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from cubeopt.emergence.record import Emergence
from cubeopt.report import cube, cube_paint
from cubeopt.report.cube import Colouring, Frame
from cubeopt.report.palette import FAINT, GREY, PURPLE, QUIET, VERMILION

FACES = {"input face": VERMILION, "output face": PURPLE}  # no expert's colours
_CLEAR = "rgba(0,0,0,0)"
_ACROSS = 74.0  # pixels of all cells of a side together, gaps apart
_CAMERA = {
    "eye": {"x": -1.75, "y": -1.55, "z": 0.75},
    "center": {"x": 0.0, "y": 0.0, "z": -0.06},
    "projection": {"type": "orthographic"},
}
_ZOOM = 1.25  # of the cube in its picture
_HEIGHT = 560  # pixels


def figure(found: Emergence, key: str = "expert", step: int | None = None) -> go.Figure:
    """The cube in 3D, coloured by *key*, at *step* (else the last one)."""
    colouring = cube.colouring(found, key)
    frame = frame_of(colouring, step)
    traces = [_cells(found, colouring, frame), *_faces(found)]
    return go.Figure(traces, _cube_layout(found, f"{colouring.title}, step {frame.step}"))


def layers(found: Emergence, key: str = "expert", step: int | None = None) -> go.Figure:
    """The layers z of the cube side by side, coloured by *key*, at *step* (else the last one)."""
    colouring = cube.colouring(found, key)
    frame = frame_of(colouring, step)
    tiles = Tiles(found)
    rows: list[list[float | None]] = [[None] * tiles.columns for _ in range(tiles.rows)]
    texts = [[""] * tiles.columns for _ in range(tiles.rows)]
    colours = cube_paint.colours(colouring, frame)
    for cell, (row, column) in enumerate(tiles.places):
        rows[row][column] = colours[cell]
        texts[row][column] = _said(found, colouring, frame, cell)
    heat = _heat(colouring)
    heat.update(z=rows, text=texts)
    title = f"{colouring.title} by layer, step {frame.step}"
    return go.Figure(heat, _tile_layout(found, title))


def player(found: Emergence, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """The colourings called *keys* (else all) with all their steps, as cube_view.js plays them.

    Of each the two figures without what changes from step to step, and of each step just that.
    KeyError when the cube has no colouring of such a name.
    """
    known = {each.key: each for each in cube.colourings(found)}
    positions = zip(*(cube.position(found, cell) for cell in range(found.cells)), strict=True)
    return {
        "steps": len(found.steps) - 1,
        "size": _size(found),
        "positions": [list(axis) for axis in positions],
        "places": [list(place) for place in Tiles(found).places],
        "menu": [
            {"key": each.key, "group": each.group, "title": each.title} for each in known.values()
        ],
        "colourings": [_played(found, known[key]) for key in (known if keys is None else keys)],
    }


def frame_of(colouring: Colouring, step: int | None) -> Frame:
    """The frame of *step*, or the nearest there is; of None the last."""
    if step is None:
        return colouring.frames[-1]
    return min(colouring.frames, key=lambda each: abs(each.step - step))


def _played(found: Emergence, colouring: Colouring) -> dict[str, Any]:
    empty = Frame(0, [], "", [])
    cells = _cells(found, colouring, empty)
    cells.update(x=None, y=None, z=None, customdata=None, overwrite=True)
    return {
        "key": colouring.key,
        "title": colouring.title,
        "unit": colouring.unit,
        "explained": colouring.explained,
        "categories": list(colouring.categories),
        "hover": _hover(colouring),
        "cube": _plain(go.Figure([cells, *_faces(found)], _cube_layout(found, colouring.title))),
        "layers": _plain(go.Figure(_heat(colouring), _tile_layout(found, colouring.title))),
        "frames": [_frame_row(colouring, frame) for frame in colouring.frames],
    }


def _frame_row(colouring: Colouring, frame: Frame) -> dict[str, Any]:
    """What changes; without sizes that are all the same, and numbers that the colours are."""
    row = {
        "step": frame.step,
        "caption": frame.caption,
        "by_layer": list(frame.layers),
        "colour": cube_paint.colours(colouring, frame),
    }
    if colouring.sized:
        row["size"] = cube_paint.sizes(colouring, frame)
    if colouring.scale == "log" or frame.details:
        row["custom"] = _custom(colouring, frame)
    return row


def _plain(made: go.Figure) -> dict[str, Any]:
    shown = made.to_plotly_json()
    return {"data": shown["data"], "layout": shown["layout"]}


def _cells(found: Emergence, colouring: Colouring, frame: Frame) -> go.Scatter3d:
    xs, ys, zs = zip(*(cube.position(found, cell) for cell in range(found.cells)), strict=True)
    shown, size = cube_paint.scale(colouring), _size(found)
    return go.Scatter3d(
        x=xs,
        y=ys,
        z=zs,
        mode="markers",
        name="cells",
        showlegend=False,
        customdata=_custom(colouring, frame),
        hovertemplate=f"cell (%{{x}}, %{{y}}, %{{z}})<br>{_hover(colouring)}<extra></extra>",
        marker={
            "size": [round(size * each, 2) for each in cube_paint.sizes(colouring, frame)],
            "color": cube_paint.colours(colouring, frame),
            "cmin": shown.low,
            "cmax": shown.high,
            "colorscale": [list(stop) for stop in shown.stops],
            "colorbar": _bar(shown),
            "opacity": 0.95,
            # Seen on any ground, whichever end of the scale a cell is at.
            "line": {"width": 0 if colouring.categories else 1, "color": GREY},
        },
    )


def _heat(colouring: Colouring) -> go.Heatmap:
    shown = cube_paint.scale(colouring)
    return go.Heatmap(
        hoverinfo="text",
        hoverongaps=False,
        zmin=shown.low,
        zmax=shown.high,
        colorscale=[list(stop) for stop in shown.stops],
        colorbar=_bar(shown),
        xgap=1,
        ygap=1,
    )


def _cube_layout(found: Emergence, title: str) -> dict[str, Any]:
    return _layout(title) | {"scene": _scene(found)}


def _tile_layout(found: Emergence, title: str) -> dict[str, Any]:
    axis = {"visible": False, "fixedrange": True}
    return _layout(title) | {
        "xaxis": axis,
        "yaxis": axis | {"autorange": "reversed", "scaleanchor": "x"},
        "annotations": [
            {"x": x, "y": y, "text": text, "showarrow": False, "xanchor": "left"}
            for x, y, text in Tiles(found).titles
        ],
    }


def _custom(colouring: Colouring, frame: Frame) -> list[Any]:
    """By cell what its hover text says beside its place."""
    if frame.details:
        return [list(row) for row in frame.details]
    return [each or 0.0 for each in frame.values]


def _hover(colouring: Colouring) -> str:
    if colouring.detailed:
        return "<br>".join(
            f"{name}: %{{customdata[{place}]}}" for place, name in enumerate(colouring.detailed)
        )
    return f"%{{customdata:.3g}} {colouring.unit}"


def _said(found: Emergence, colouring: Colouring, frame: Frame, cell: int) -> str:
    place = "cell ({}, {}, {})".format(*cube.position(found, cell))
    if frame.details:
        pairs = zip(colouring.detailed, frame.details[cell], strict=True)
        return "<br>".join([place, *(f"{name}: {value:g}" for name, value in pairs)])
    return f"{place}<br>{frame.values[cell] or 0.0:.3g} {colouring.unit}"


def _faces(found: Emergence) -> list[go.Scatter3d]:
    """The outlines of the two faces, where the cells written and read are such."""
    width, height, depth = found.size
    if found.placement == "spread":
        return []
    levels = {"input face": -0.5, "output face": depth - 0.5}
    if found.placement == "same_face":
        levels = {"input face": -0.5, "output face": -0.6}
    corners = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
    return [
        go.Scatter3d(
            x=[(width - 1) * x + (0.5 if x else -0.5) for x, _ in corners],
            y=[(height - 1) * y + (0.5 if y else -0.5) for _, y in corners],
            z=[level] * len(corners),
            mode="lines",
            name=name,
            hoverinfo="name",
            line={"color": FACES[name], "width": 7},
        )
        for name, level in levels.items()
    ]


def _scene(found: Emergence) -> dict[str, Any]:
    axes = {
        f"{name}axis": {
            "title": {"text": title},
            "range": [-0.8, side - 0.2],
            "tickvals": _ticks(side),
            "backgroundcolor": _CLEAR,
            "gridcolor": FAINT,
            "zerolinecolor": FAINT,
            "showspikes": False,
        }
        for name, title, side in zip(
            "xyz", ("x, cells", "y, cells", "z, layers"), found.size, strict=True
        )
    }
    longest = max(found.size)
    aspect = dict(zip("xyz", (_ZOOM * side / longest for side in found.size), strict=True))
    return {
        **axes,
        "aspectmode": "manual",
        "aspectratio": aspect,
        "camera": _CAMERA,
        "dragmode": "orbit",
    }


def _ticks(side: int) -> list[int]:
    every = max(1, math.ceil(side / 8))
    return list(range(0, side, every))


def _bar(shown: cube_paint.Scale) -> dict[str, Any]:
    return {
        "title": {"text": shown.title, "side": "top"},
        "tickvals": list(shown.ticks),
        "ticktext": list(shown.labels),
        "tickangle": 0,
        "orientation": "h",
        "x": 0.5,
        "y": 0.0,
        "yanchor": "top",
        "thickness": 14,
        "len": 0.9,
        "outlinewidth": 0,
    }


def _layout(title: str) -> dict[str, Any]:
    return {
        "template": "none",
        "title": {"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        "font": {"color": QUIET, "size": 13},
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "height": _HEIGHT,
        "margin": {"l": 8, "r": 8, "t": 40, "b": 76},
        "legend": {"orientation": "h", "x": 0.0, "y": 1.0, "yanchor": "top"},
        "uirevision": "cube",
    }


def _size(found: Emergence) -> float:
    """Pixels of a cell."""
    return round(max(2.5, min(16.0, _ACROSS / max(found.size))), 1)


class Tiles:
    """The layers of a cube in rows of tiles, with a gap between."""

    def __init__(self, found: Emergence) -> None:
        width, height, depth = found.size
        across = math.ceil(math.sqrt(depth * (height + 2) / (width + 1)))
        self.columns = across * (width + 1) - 1
        self.rows = math.ceil(depth / across) * (height + 2)
        corners = [
            (1 + (z // across) * (height + 2), (z % across) * (width + 1)) for z in range(depth)
        ]
        self.places = []
        for cell in range(found.cells):
            x, y, z = cube.position(found, cell)
            row, column = corners[z]
            self.places.append((row + y, column + x))
        self.titles: Sequence[tuple[float, float, str]] = [
            (column - 0.5, row - 1, f"z={z}{_role(found, z)}")
            for z, (row, column) in enumerate(corners)
        ]


def _role(found: Emergence, z: int) -> str:
    if found.placement == "spread":
        return ""
    roles = [
        word
        for word, cells in (("in", found.written), ("out", found.read))
        if z in {cell % found.size[2] for cell in cells}
    ]
    return f" ({', '.join(roles)})" if roles else ""
