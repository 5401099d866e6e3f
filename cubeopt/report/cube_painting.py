"""The picture of a cube as a PNG: the same cells and colours as `cube_figures`, with matplotlib.

``write_png(found, path)`` paints what a report shows of a winner: the dominant experts at the last
step, and which cells carry a change half way. *found* is an `Emergence` record.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from cubeopt import atomic
from cubeopt.emergence.record import Emergence
from cubeopt.report import cube, cube_paint
from cubeopt.report.cube_figures import FACES, frame_of
from cubeopt.report.palette import FAINT, GREY, INK, QUIET

_PANEL, _HEIGHT, _DPI = 6.6, 6.4, 100  # inches of a panel's width, of the picture's height
_AREA = 90.0  # points squared of a cell of a cube with 8 cells a side

Panel = tuple[str, int | None]  # key of a colouring, step (None: the last)


def write_png(found: Emergence, path: Path, panels: Sequence[Panel] | None = None) -> None:
    """Write *panels* side by side as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    picture(found, panels).savefig(buffer, format="png")
    atomic.write(buffer.getvalue(), path)


def picture(found: Emergence, panels: Sequence[Panel] | None = None) -> Figure:
    """*panels* side by side: by default dominant experts, and what carries a change half way."""
    chosen = panels or [("expert", None), ("carried", (len(found.steps) - 1) // 2)]
    figure = Figure((_PANEL * len(chosen), _HEIGHT), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (key, step) in enumerate(chosen, start=1):
        axes = figure.add_subplot(1, len(chosen), number, projection="3d")
        _paint(figure, axes, found, key, step)
    return figure


def _paint(figure: Figure, axes: Any, found: Emergence, key: str, step: int | None) -> None:
    colouring = cube.colouring(found, key)
    frame, shown = frame_of(colouring, step), cube_paint.scale(colouring)
    stops = [(min(1.0, max(0.0, share)), colour) for share, colour in shown.stops]
    colours = LinearSegmentedColormap.from_list(key, stops, N=1024)
    limits = Normalize(shown.low, shown.high)
    xs, ys, zs = zip(*(cube.position(found, cell) for cell in range(found.cells)), strict=True)
    area = _AREA * (8.0 / max(found.size)) ** 2
    axes.scatter(
        xs,
        ys,
        zs,
        c=cube_paint.colours(colouring, frame),
        s=[area * size * size for size in cube_paint.sizes(colouring, frame)],
        cmap=colours,
        norm=limits,
        depthshade=False,
        linewidths=0.4,
        edgecolors="white" if colouring.categories else GREY,
    )
    _outline_faces(axes, found)
    for name, title, side in zip(
        "xyz", ("x, cells", "y, cells", "z, layers"), found.size, strict=True
    ):
        getattr(axes, f"set_{name}label")(title, color=QUIET)
        getattr(axes, f"set_{name}lim")(-0.7, side - 0.3)
        getattr(axes, f"set_{name}ticks")(range(0, side, max(1, math.ceil(side / 8))))
        getattr(axes, f"{name}axis").set_pane_color((1.0, 1.0, 1.0, 0.0))
    axes.set_box_aspect(found.size)
    axes.set_proj_type("ortho")
    axes.view_init(elev=18, azim=-138)
    axes.tick_params(colors=QUIET)
    axes.grid(color=FAINT)
    axes.set_title(f"{colouring.title}, step {frame.step}", color=INK, loc="left")
    bar = figure.colorbar(
        ScalarMappable(limits, colours), ax=axes, orientation="horizontal", shrink=0.8, pad=0.02
    )
    bar.set_ticks(list(shown.ticks), labels=list(shown.labels))
    bar.set_label(shown.title, color=QUIET)
    bar.outline.set_visible(False)


def _outline_faces(axes: Any, found: Emergence) -> None:
    width, height, depth = found.size
    if found.placement == "spread":
        return
    levels = {"input face": -0.5, "output face": depth - 0.5}
    if found.placement == "same_face":
        levels = {"input face": -0.5, "output face": -0.6}
    xs = [-0.5, width - 0.5, width - 0.5, -0.5, -0.5]
    ys = [-0.5, -0.5, height - 0.5, height - 0.5, -0.5]
    for name, level in levels.items():
        axes.plot(xs, ys, [level] * 5, color=FACES[name], linewidth=2.5, label=name)
    axes.legend(loc="upper left", frameon=False, labelcolor=INK)
