"""Every figure of a study's report as a PNG, under names that stay.

Each chart is called as its part of the page (history.png, ladder.png, ...), each part of the
winner's training training-losses.png and so on, its cube cube.png and cube-layers.png.
"""

from collections.abc import Iterator
from pathlib import Path

from cubeopt import atomic
from cubeopt.report import chart_image, cube_painting, multiples_image, study_page
from cubeopt.report.study_page import Cube, Report


def write(whole: Report, folder: Path, cube: Cube) -> list[Path]:
    """Write each figure below *folder*, whole or not at all; those of what is not there are not."""
    paths = []
    for name, content in _images(whole, cube):
        paths.append(folder / f"{name}.png")
        atomic.write(content, paths[-1])
    return paths


def _images(whole: Report, cube: Cube) -> Iterator[tuple[str, bytes]]:
    for name, chart in whole.charts.items():
        yield name, chart_image.png(chart)
    if whole.training is not None:
        for section in study_page.sections(whole.training):
            if any(panel.curves for panel in section.panels):
                title = f"How the training of the winner went: {section.title.lower()}"
                yield (
                    f"training-{section.id}",
                    multiples_image.png(section, whole.training, title),
                )
    if cube.found is not None:
        title = f"The winner's cube, trial {whole.protocol.winners[0].trial}"
        yield "cube", cube_painting.png(cube.found, title=title)
        yield "cube-layers", cube_painting.layers_png(cube.found, title=title)
