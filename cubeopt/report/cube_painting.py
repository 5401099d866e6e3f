"""The pictures of a cube as PNG: the same cells and colours as `cube_figures`, with matplotlib.

``png(found)`` is what a report shows of a winner: the dominant experts at the last step, and which
cells carry a change half way. ``layers_png(found)`` has the same, layer by layer. *found* is an
`Emergence` record.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from cubeopt.emergence.record import Emergence
from cubeopt.report import chart_image, cube, cube_paint
from cubeopt.report.cube import Colouring, Frame
from cubeopt.report.cube_figures import FACES, Tiles, frame_of
from cubeopt.report.palette import FAINT, GREY, INK, QUIET

_PANEL, _HEIGHT = 660, 610  # pixels of a panel
_BESIDE, _BELOW = 60, 110  # pixels beside and below all tiles
_CELL = 7  # pixels of a cell in a tile, at least
_AREA = 90.0  # points squared of a cell of a cube with 8 cells a side
_TILES = "Each tile is a layer z of the cube; in it x runs to the right and y downwards."

Panel = tuple[str, int | None]  # key of a colouring, step (None: the last)
_Paint = Callable[[Figure, Any, Emergence, Colouring, Frame], None]


def png(found: Emergence, panels: Sequence[Panel] | None = None, title: str = "") -> bytes:
    """*panels* in 3D side by side, under *title* and what there is to see in words."""
    return chart_image.content(picture(found, panels, title))


def layers_png(found: Emergence, panels: Sequence[Panel] | None = None, title: str = "") -> bytes:
    """The same with the layers z of the cube as flat tiles."""
    return chart_image.content(layers(found, panels, title))


def picture(found: Emergence, panels: Sequence[Panel] | None = None, title: str = "") -> Figure:
    """*panels* side by side: by default dominant experts, and what carries a change half way."""
    return _picture(found, panels, title, _paint, (_PANEL, _HEIGHT), "3d")


def layers(found: Emergence, panels: Sequence[Panel] | None = None, title: str = "") -> Figure:
    """`layers_png` before it is a PNG; large cubes have larger ones."""
    tiles, side = Tiles(found), _side(found)
    size = _BESIDE + tiles.columns * side, _BELOW + tiles.rows * side
    size = max(_PANEL, math.ceil(size[0])), max(_HEIGHT, math.ceil(size[1]))
    return _picture(found, panels, title, _paint_layers, size, explained=_TILES)


def _picture(
    found: Emergence,
    panels: Sequence[Panel] | None,
    title: str,
    paint: _Paint,
    size: tuple[int, int],
    projection: str | None = None,
    explained: str = "",
) -> Figure:
    chosen = panels or [("expert", None), ("carried", (len(found.steps) - 1) // 2)]
    colourings = [cube.colouring(found, key) for key, _ in chosen]
    frames = [frame_of(each, step) for each, (_, step) in zip(colourings, chosen, strict=True)]
    said = [
        f"{each.title}: {each.explained} {frame.caption}"
        for each, frame in zip(colourings, frames, strict=True)
    ]
    said += [explained] if explained else []
    said += [
        f"{each.kind} {each.subject}".strip() + f": {each.sentence}."
        for each in found.findings
        if each.trouble
    ]
    sides = "x".join(map(str, found.size))
    heading = f"{title or 'Cube'}: {sides} cells after epoch {found.epoch}"
    figure = chart_image.sheet(heading, said, size[1], size[0] * len(chosen))
    for number, (colouring, frame) in enumerate(zip(colourings, frames, strict=True), start=1):
        axes = figure.add_subplot(1, len(chosen), number, projection=projection)
        axes.set_title(f"{colouring.title}, step {frame.step}", color=INK, loc="left")
        paint(figure, axes, found, colouring, frame)
    return figure


def _paint(figure: Figure, axes: Any, found: Emergence, colouring: Colouring, frame: Frame) -> None:
    scale = _scale(colouring)
    xs, ys, zs = zip(*(cube.position(found, cell) for cell in range(found.cells)), strict=True)
    area = _AREA * (8.0 / max(found.size)) ** 2
    axes.scatter(
        xs,
        ys,
        zs,
        c=cube_paint.colours(colouring, frame),
        s=[area * size * size for size in cube_paint.sizes(colouring, frame)],
        cmap=scale.cmap,
        norm=scale.norm,
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
    _add_bar(figure, axes, colouring, scale)


def _paint_layers(
    figure: Figure, axes: Any, found: Emergence, colouring: Colouring, frame: Frame
) -> None:
    scale, tiles, side = _scale(colouring), Tiles(found), _side(found)
    grid = [[math.nan] * tiles.columns for _ in range(tiles.rows)]
    for (row, column), value in zip(
        tiles.places, cube_paint.colours(colouring, frame), strict=True
    ):
        grid[row][column] = value
    gap, letters = min(1.0, side / 14), min(10.0, max(5.0, side))
    axes.pcolormesh(grid, cmap=scale.cmap, norm=scale.norm, edgecolors="white", linewidth=gap)
    for x, y, text in tiles.titles:
        axes.text(x + 0.5, y + 0.5, text, color=QUIET, va="center", fontsize=letters)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    _add_bar(figure, axes, colouring, scale)


def _side(found: Emergence) -> float:
    """Pixels of a cell in a tile."""
    tiles = Tiles(found)
    fits = min((_PANEL - _BESIDE) / tiles.columns, (_HEIGHT - _BELOW) / tiles.rows)
    return max(_CELL, fits)


def _scale(colouring: Colouring) -> ScalarMappable:
    """What the numbers look like."""
    shown = cube_paint.scale(colouring)
    stops = [(min(1.0, max(0.0, share)), colour) for share, colour in shown.stops]
    colours = LinearSegmentedColormap.from_list(colouring.key, stops, N=1024)
    return ScalarMappable(Normalize(shown.low, shown.high), colours)


def _add_bar(figure: Figure, axes: Any, colouring: Colouring, scale: ScalarMappable) -> None:
    shown = cube_paint.scale(colouring)
    bar = figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02)
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
