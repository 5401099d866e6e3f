"""The picture of a study painted."""

import io
import math
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from cubeopt.db.tables import RunState
from cubeopt.errors import InputError
from cubeopt.report import figures
from cubeopt.report.picture import Picture, picture
from cubeopt.report.summary import Records, curves, summarize, trial_rows

COMPLETE, PRUNED = RunState.COMPLETE, RunState.PRUNED


def _picture(records: Records) -> Picture:
    summary = summarize(records.study, records.trials, records.runs)
    rows = trial_rows(records.trials, records.runs, records.attempts)
    return picture(summary, rows, curves(records.runs, records.epochs))


@pytest.fixture
def shown(story: Any) -> Picture:
    """Two pruned trials, two complete ones, one full run and one that diverged."""
    story.short(0, [1.0], PRUNED).short(1, [0.95, 0.9], PRUNED).short(2, [None], PRUNED)
    for number in (3, 4):
        story.short(number, [0.9 - 0.01 * number - 0.02 * epoch for epoch in range(5)], COMPLETE)
    story.full(4, [0.78 - 0.002 * epoch for epoch in range(45)], COMPLETE, test_value=0.7)
    return _picture(story.records())


def _pixels(path: Path) -> Any:
    return (matplotlib.image.imread(io.BytesIO(path.read_bytes()))[..., :3] * 255).round()


def _has_color(pixels: Any, color: str) -> bool:
    wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((pixels == wanted).all(axis=-1).sum() > 20)


def test_the_page_draws_every_point_of_the_picture(shown: Picture) -> None:
    drawn = {
        (trace.name, trace.mode): [
            (x, y) for x, y in zip(trace.x, trace.y, strict=True) if y is not None
        ]
        for trace in figures.history(shown).data
        if trace.name and "rung" not in trace.name
    }
    for strokes, mode in ((shown.curves, "lines+markers"), (shown.results, "markers")):
        for stroke in strokes:
            points = [
                (x, y) for x, y in zip(stroke.xs, stroke.ys, strict=True) if not math.isnan(y)
            ]
            assert drawn.pop((stroke.label, mode)) == points
    assert drawn == {}


def test_the_legend_of_the_page_names_each_state_once(shown: Picture) -> None:
    names = [trace.name for trace in figures.history(shown).data if trace.showlegend is not False]
    assert sorted(names) == [
        "complete (2)",
        "full run (1)",
        "pruned (3)",
        "rung: trials are compared",
    ]


def test_the_png_has_its_size_and_the_colours_of_what_it_shows(
    shown: Picture, story: Any, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "study.png"
    figures.write_png(shown, path)
    pixels = _pixels(path)
    assert pixels.shape == (700, 1400, 3)
    assert _has_color(pixels, "#0072B2")  # complete
    assert _has_color(pixels, "#D55E00")  # the full run
    figures.write_png(_picture(type(story)().records()), path)
    pixels = _pixels(path)
    assert not _has_color(pixels, "#0072B2")
    assert not _has_color(pixels, "#D55E00")


def test_the_same_picture_gives_the_same_png(shown: Picture, tmp_path: Path) -> None:
    figures.write_png(shown, tmp_path / "a.png")
    figures.write_png(shown, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_the_page_is_seen_in_a_browser_without_a_network(
    shown: Picture, tmp_path: Path, browser: Any
) -> None:
    path = tmp_path / "study.html"
    figures.write_html(shown, path)
    page = browser.new_page()
    requests, troubles = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.goto(path.as_uri())
    page.wait_for_selector(".scatterlayer .trace path.point")
    said = page.text_content("body")
    points = page.locator(".scatterlayer .trace path.point").count()
    title = page.title()
    page.close()
    assert title == shown.title
    assert "predicting the mean: 1" in said
    assert points == sum(
        not math.isnan(y) for stroke in shown.curves + shown.results for y in stroke.ys
    )
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert troubles == []


def test_the_page_loads_nothing_from_elsewhere(shown: Picture, tmp_path: Path) -> None:
    path = tmp_path / "study.html"
    figures.write_html(shown, path)
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*\bsrc=|<link[^>]*href=\"http", text) == []
    assert text.startswith("<!doctype html>")


def test_an_empty_study_is_painted_with_what_to_do(story: Any, tmp_path: Path) -> None:
    empty = _picture(story.records())
    figures.write_png(empty, tmp_path / "study.png")
    figures.write_html(empty, tmp_path / "study.html")
    assert "cubeopt worker --study quickstart" in (tmp_path / "study.html").read_text("utf-8")


def test_a_file_that_cannot_be_written_is_one_clear_line(shown: Picture, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^cannot write .*study\.png: "):
        figures.write_png(shown, tmp_path / "file" / "study.png")
    (tmp_path / "study.png").mkdir()
    with pytest.raises(InputError, match=r"^cannot write .*study\.png: "):
        figures.write_png(shown, tmp_path / "study.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "study.png"]
