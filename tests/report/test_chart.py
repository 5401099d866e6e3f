"""A chart painted twice: what plotly and matplotlib make of the same value."""

import io
import json
from dataclasses import replace
from typing import Any

import matplotlib.image

from cubeopt.report import chart_image, chart_page, palette
from cubeopt.report.chart import (
    Axis,
    Bars,
    Chart,
    Label,
    Line,
    Mark,
    Points,
    Rule,
    Spans,
    blank,
    significant,
)

MARKS: list[Mark] = [
    Line("course", palette.BLUE, [1, 2, None, 3], [1.0, 2.0, None, 3.0], 4.0, "dash"),
    Points("results", palette.GREEN, [1, 2], [2.5, 1.5], "star", 16, notes=["one", "two\nlines"]),
    Bars("shares", palette.ORANGE, [1, 2], [0.5, 1.5]),
    Spans("attempts", palette.PURPLE, [3], [1.5], [2.5]),
    Rule(2.75, "the mean: 2.75", color=palette.VERMILION, dash="solid"),
    Label(1.5, 3.2, "here"),
]


def _chart(*marks: Mark, **changes: Any) -> Chart:
    given: dict[str, Any] = {"x": Axis("epoch"), "y": Axis("fvu"), "marks": marks or MARKS}
    return Chart("A title", "A sentence.", **given | changes)


def _pixels(chart: Chart) -> Any:
    pixels = matplotlib.image.imread(io.BytesIO(chart_image.png(chart)))
    return (pixels[..., :3] * 255).round()


def _has(pixels: Any, color: str) -> bool:
    wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((pixels == wanted).all(axis=-1).sum() > 20)


def test_both_painters_draw_every_kind_of_mark() -> None:
    chart = _chart()
    figure = chart_page.figure(chart).to_plotly_json()
    line, dots, bars, spans = figure["data"]
    (rule,) = figure["layout"]["shapes"]
    assert (rule["y0"], rule["y1"], rule["line"]["color"]) == (2.75, 2.75, palette.VERMILION)
    said = [each["text"] for each in figure["layout"]["annotations"]]
    assert said == ["the mean: 2.75", "here"]
    assert (line["x"], line["y"]) == ([1, 2, None, 3], [1.0, 2.0, None, 3.0])
    assert (line["mode"], line["connectgaps"]) == ("lines", False)
    assert (dots["x"], dots["y"], dots["mode"]) == ([1, 2], [2.5, 1.5], "markers")
    assert (bars["y"], bars["x"]) == ([1, 2], [0.5, 1.5])
    assert (spans["y"], spans["base"], spans["x"]) == ([3], [1.5], [1.0])
    pixels = _pixels(chart)
    for color in (palette.BLUE, palette.GREEN, palette.ORANGE, palette.PURPLE):
        assert _has(pixels, color), color


def test_an_image_is_the_same_each_time() -> None:
    assert chart_image.png(_chart()) == chart_image.png(_chart())


def test_what_is_not_there_yet_is_said_once_in_an_image() -> None:
    empty = blank("T", Axis("epoch"), Axis("fvu"), "Nothing yet: start a worker.")
    other = replace(empty, sentence="What it would show.")
    assert _pixels(other).shape[0] - _pixels(empty).shape[0] == 17  # a line of text


def test_names_from_people_are_text_in_both_painters() -> None:
    evil = "<script>alert(1)</script> & $x^2$"
    chart = _chart(
        Points(evil, palette.BLUE, [1], [1], notes=[evil]),
        Label(1, 1, evil),
        Rule(1.0, evil),
        x=Axis(evil, ticks={1: evil}),
    )
    said = json.dumps(chart_page.figure(chart).to_plotly_json())
    assert "<script" not in said
    assert "&lt;script&gt;" in said
    assert _pixels(chart).size  # a dollar sign begins no formula


def test_axes_have_titles_ticks_limits_and_a_zero_line() -> None:
    x = Axis("rung", limits=(-0.5, 1.5), ticks={0: "epoch 1\n3 in", 1: "epoch 2"})
    y = Axis("value", log=True, limits=(0.01, 100.0), downwards=True)
    layout = chart_page.figure(_chart(x=x, y=y)).to_plotly_json()["layout"]
    assert layout["xaxis"]["title"]["text"] == "rung"
    assert layout["xaxis"]["ticktext"] == ["epoch 1<br>3 in", "epoch 2"]
    assert list(layout["yaxis"]["range"]) == [2.0, -2.0]
    zeroed = chart_page.figure(_chart(x=Axis("share", zero=True, form=".0%"))).to_plotly_json()
    assert zeroed["layout"]["xaxis"]["zeroline"] is True
    assert zeroed["layout"]["xaxis"]["tickformat"] == ".0%"


def test_what_is_not_there_yet_says_what_to_do() -> None:
    chart = blank("Ladder", Axis("rung"), Axis("fvu"), "Start a worker: cubeopt worker")
    layout = chart_page.figure(chart).to_plotly_json()["layout"]
    assert "Start a worker" in layout["annotations"][0]["text"]
    assert layout["xaxis"]["visible"] is False
    assert not _has(_pixels(chart), palette.BLUE)


def test_no_more_digits_are_sent_than_are_seen() -> None:
    assert significant(0.123456789) == 0.123457
    assert significant(123456789.0, 4) == 123500000.0
