"""Every figure of a report as an image: the same curves, marks and colours as on the page."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import matplotlib.colors
import pytest
from matplotlib.figure import Figure

from cubeopt.db.tables import RunState
from cubeopt.errors import InputError
from cubeopt.report import material, multiples_image, multiples_page, study_images, study_page
from cubeopt.report import training_figures as figures
from cubeopt.report.chart_image import log_ticks
from cubeopt.report.study_page import Cube, Report
from cubeopt.report.training import Sign, Track, Trainings
from cubeopt.report.training_figures import Section

from .conftest import MOMENT

EPOCHS = 40
SIGNS = [
    Sign(1, "0", "trial 0", "overfitting", "", 30, 40, "validation rises"),
    Sign(2, "0", "trial 0", "dead gradient", "gate", 9, 9, "gate learns nothing"),
    Sign(3, "0", "trial 0", "dead expert", "local", 25, 40, "nobody asks local"),
]


def _track(key: str, label: str, **changes: Any) -> Track:
    falling = [1.0 / epoch for epoch in range(1, EPOCHS + 1)]
    metrics: dict[str, list[float | None]] = {
        "train/loss/total": [2 * each for each in falling],
        "train/loss/reconstruction": [*falling],
        "validation/loss/reconstruction": [None if nth % 2 else v for nth, v in enumerate(falling)],
        "validation/fvu": [*falling],
        "validation/cosine": [1 - each for each in falling],
        "validation/usage/local": [30.0] * EPOCHS,
        "validation/usage/distant": [70.0] * EPOCHS,
        "train/gradient_norm/all": [*falling],
        "train/gradient_norm/gate": [0.0] * EPOCHS,
        "learning_rate": [1e-3] * EPOCHS,
        **changes,
    }
    return Track(
        **{"key": key, "label": label, "trial": 0, "seed": 0, "state": "complete"},
        **{"epoch": EPOCHS, "target_epochs": EPOCHS, "worker": "w", "width": 1},
        **{"promoted_after": 5, "value": 0.1, "best": 0.1, "best_epoch": 40},
        epochs=list(range(1, EPOCHS + 1)),
        metrics=metrics,
        signs=SIGNS if key == "0" else [],
    )


@pytest.fixture
def shown() -> Trainings:
    """A trial, and another seed of it that measured no cosine."""
    tracks = [_track("0", "trial 0"), _track("0f1", "trial 0, seed 1", **{"validation/cosine": []})]
    return Trainings(
        *("study", "complete", "fvu", "minimize", {"predict the mean": 1.0}, [1, 2, 5], "you"),
        tracks=tracks,
        missing=[],
    )


@pytest.fixture
def whole(story: Any, shown: Trainings) -> Report:
    story.short(0, [0.9, 0.8], RunState.COMPLETE)
    searched = {"learning_rate": {"low": 1e-3, "high": 1.0, "log": True}}
    records = story.records(spec={"name": "s", "search": searched})
    return replace(
        study_page.report(material.of(records, [], MOMENT + timedelta(1))), training=shown
    )


def _section(shown: Trainings, name: str) -> Section:
    return next(each for each in figures.sections(shown) if each.id == name)


def _picture(shown: Trainings, name: str) -> Figure:
    return multiples_image.picture(_section(shown, name), shown, "Winner")


def test_every_figure_of_the_page_is_an_image_by_its_name(
    whole: Report, found: Any, tmp_path: Path
) -> None:
    less = replace(whole, charts={"history": whole.charts["history"]})
    paths = study_images.write(less, tmp_path / "new", Cube(found))
    training = [f"training-{name}" for name in ("losses", "validation", "usage")]
    training += ["training-gradient-norm", "training-knobs"]
    named = ["history", *training, "cube", "cube-layers"]
    assert [path.name for path in paths] == [f"{name}.png" for name in named]
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    page = study_page.page(whole, Cube(found))
    panels = [p for each in study_page.sections(whole.training) for p in each.panels]  # type: ignore[arg-type]
    assert page.count('class="figure" role="img"') == len(whole.charts) + len(panels)
    (only,) = study_images.write(replace(less, training=None), tmp_path / "less", Cube())
    assert only.name == "history.png"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        study_images.write(less, tmp_path / "file", Cube())


@pytest.mark.parametrize("name", ["losses", "validation", "usage", "gradient-norm", "knobs"])
def test_an_image_has_the_curves_and_the_marks_of_the_page(shown: Trainings, name: str) -> None:
    panels = _section(shown, name).panels
    painted = [axes for axes in _picture(shown, name).axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in painted] == [panel.title for panel in panels]
    for panel, axes in zip(panels, painted, strict=True):
        page = multiples_page.figure(panel)
        curves = [
            (*(list(map(float, each)) for each in line.get_data()), line.get_color())
            for line in axes.lines
        ]
        for trace in page["data"]:
            assert (trace["x"], trace["y"], trace["line"]["color"]) in curves
            assert name != "knobs" or trace["line"]["width"] == 4.0 - 2.0 * (
                "seed" in trace["name"]
            )
        flags = [each["text"] for each in page["layout"]["annotations"]]
        assert [each.get_text() for each in axes.texts] == flags
        assert axes.get_ylabel() == page["layout"]["yaxis"]["title"]["text"]
        assert axes.get_xlabel().split("\n") == ["epoch", *filter(None, [panel.lacks])]
        limits = page["layout"]["yaxis"].get("range")
        assert limits is None or list(axes.get_ylim()) == limits
        assert axes.get_xlim()[0] == 0
        assert axes.get_yscale() == page["layout"]["yaxis"]["type"]
        uprights = {float(line.get_xdata()[0]) for line in axes.lines if _upright(line)}  # type: ignore[index, arg-type]
        assert uprights == {s["x0"] for s in page["layout"]["shapes"] if s["type"] == "line"}


def _upright(line: Any) -> bool:
    return bool(len(line.get_xdata()) == 2 and line.get_xdata()[0] == line.get_xdata()[1])


def test_what_the_marks_and_the_colours_are_is_said_in_the_image(shown: Trainings) -> None:
    losses, usage = _picture(shown, "losses"), _picture(shown, "usage")
    said = " ".join(text.get_text() for text in losses.texts)
    assert said.startswith("Winner Means over an epoch")
    assert "1 overfitting (trial 0): validation rises" in said
    assert "nobody asks local" not in said
    (legend,) = losses.legends
    assert [each.get_text() for each in legend.get_texts()] == [
        *("trial 0", "trial 0, seed 1", "dotted: the same on validation"),
        "promoted to a full run",
    ]
    (legend,) = usage.legends
    colors = [matplotlib.colors.to_hex(line.get_color()) for line in legend.get_lines()]
    assert [each.get_text() for each in legend.get_texts()] == ["local", "distant"]
    assert [each.upper() for each in colors] == ["#0072B2", "#009E73"]
    assert "3 dead expert local (trial 0): nobody asks local" in usage.texts[1].get_text()


def test_nothing_of_an_image_lies_outside_it_or_over_another(shown: Trainings) -> None:
    for name in ("losses", "validation", "usage", "gradient-norm", "knobs"):
        picture = _picture(shown, name)
        picture.draw_without_rendering()
        width, height = picture.get_size_inches() * picture.dpi
        boxes = [each.get_tightbbox() for each in picture.axes if each.axison]
        boxes += [each.get_window_extent() for each in (*picture.texts, *picture.legends)]
        for nth, box in enumerate(boxes):
            assert box is not None
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height
            for other in boxes[:nth]:
                assert other is not None
                across = min(box.x1, other.x1) - max(box.x0, other.x0)
                assert across < 1 or min(box.y1, other.y1) - max(box.y0, other.y0) < 1


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.29, 0.92, [0.3, 0.5, 0.7]),
        (0.13, 0.58, [0.2, 0.3, 0.4, 0.5]),
        (0.009, 2.0, [0.01, 0.1, 1.0]),
        (1e-12, 1.0, [1e-12, 1e-9, 1e-6, 1e-3, 1.0]),
        (0.101, 0.119, [0.104, 0.108, 0.112, 0.116]),
    ],
)
def test_a_logarithmic_axis_has_few_round_ticks(
    low: float, high: float, ticks: list[float]
) -> None:
    assert log_ticks(low, high, 5) == pytest.approx(ticks)
    assert all(math.isfinite(tick) for tick in log_ticks(low * 1e-5, high, 5))
