"""Pictures of a cube show its rows, whoever paints them."""

import json
import math
import struct

import pytest

from cubeopt.emergence import record
from cubeopt.emergence.findings import Finding
from cubeopt.emergence.record import Emergence, Flow, News, Ring, Step
from cubeopt.report import cube, cube_figures, cube_page, cube_paint, cube_painting
from cubeopt.report.palette import EXPERTS, GREY


@pytest.fixture
def found() -> Emergence:
    """A cube of 2x1x2 cells and one step, cut in the middle."""
    shares = {"local": [0.9, 0.2, 0.5, 0.1], "distant": [0.1, 0.8, 0.5, 0.9]}
    rings = [Ring(0.0, 2, 0, 1.0), Ring(1.0, 2, None, 0.0)]
    news = News("input", [[1.0, 0.0, 1.0, 0.0], [0.1, 0.0, 10.0, 0.0]], None, None, rings)
    return Emergence(
        checkpoint="<there>",
        epoch=3,
        dataset="d",
        dataset_fingerprint="f" * 64,
        rows=5,
        validation_rows=9,
        size=(2, 1, 2),
        placement="opposite_faces",
        gate="learned",
        halting="fixed",
        experts=["local", "distant"],
        written=[0, 2],
        read=[1, 3],
        metrics={"usage/local": 42.5, "gate_entropy": 0.5},
        steps=[
            Step(0, 1.0, None, None, [1.0, 0.0, 1.0, 0.0], [0.0] * 4),
            Step(1, 1.0, shares, [0.4, 0.7, 1.0, 0.4], [2.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, 0.5]),
        ],
        tasks=None,
        flow=Flow(0.01, 2, 0.0, 0.0, [[0.0] * 4] * 2, [news]),
        findings=[Finding("cut", "", True, "nothing <arrives>")],
    )


def test_a_dominant_expert_leads_by_a_point(found):
    shown = cube.colouring(found, "expert")
    assert shown.frames[0].values == [0, 1, 2, 1]
    assert shown.frames[0].caption == (
        "After step 1, of 4 cells: local in 1, distant in 2, no lead in 1."
    )
    assert shown.frames[0].layers == [0.0, 1.0]  # of each layer the commonest, the first of equals


def test_an_expert_has_its_colour_everywhere(found):
    scale = cube_paint.scale(cube.colouring(found, "expert"))
    assert [colour for _, colour in scale.stops[::2]] == [
        *(EXPERTS["local"], EXPERTS["distant"], GREY)
    ]
    assert scale.labels == ["local", "distant", "no lead"]
    (cells, *faces) = cube_figures.figure(found).data
    assert [tuple(stop) for stop in cells.marker.colorscale] == list(scale.stops)
    assert {face.name for face in faces} == {"input face", "output face"}
    assert not {face.line.color for face in faces} & {*EXPERTS.values()}


def test_what_was_not_reached_is_no_small_number(found):
    shown = cube.colouring(found, "response")
    frame = shown.frames[-1]
    assert frame.values == [0.1, None, 10.0, None]
    assert frame.layers == [5.05, None]
    scale, colours = cube_paint.scale(shown), cube_paint.colours(shown, frame)
    assert (colours[0], colours[2]) == (-1.0, 1.0)
    assert scale.low < colours[1] == colours[3] < -1.0
    assert scale.labels == ["none", "0.1", "1", "10"]
    sizes = cube_paint.sizes(shown, frame)
    assert sizes[1] < sizes[2]


def test_both_figures_and_the_played_ones_show_the_same_numbers(found):
    for each in cube.colourings(found):
        player = cube_figures.player(found, [each.key])
        (played,) = player["colourings"]
        json.dumps(player, allow_nan=False)
        for frame, row in zip(each.frames, played["frames"], strict=True):
            solid = cube_figures.figure(found, each.key, frame.step)
            flat = cube_figures.layers(found, each.key, frame.step)
            colours = cube_paint.colours(each, frame)
            assert list(solid.data[0].marker.color) == row["colour"] == colours
            for cell, (line, column) in enumerate(player["places"]):
                assert flat.data[0].z[line][column] == colours[cell]
            drawn = [value for line in flat.data[0].z for value in line if value is not None]
            assert sorted(drawn) == sorted(colours)
            if "size" in row:
                size = [player["size"] * share for share in row["size"]]
                assert list(solid.data[0].marker.size) == pytest.approx(size, abs=0.006)
        x, y, z = player["positions"]
        assert (x, y, z) == ([0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1])
    named = {axis: getattr(solid.layout.scene, f"{axis}axis").title.text for axis in "xyz"}
    assert named == {"x": "x, cells", "y": "y, cells", "z": "z, layers"}
    titles = [each.text for each in flat.layout.annotations]
    assert titles == ["z=0 (in)", "z=1 (out)"]


def test_the_rows_have_means_and_roots(found):
    first, last = cube.step_rows(found)
    assert (first["local"], first["reached"]) == (None, 2)
    assert last["local"] == pytest.approx(0.425)
    assert last["activity"] == pytest.approx(math.sqrt((4 + 1 + 0.25) / 4), rel=1e-3)
    assert cube.cell_rows(found)[2] == {
        **{"cell": 2, "x": 1, "y": 0, "z": 0, "local": 0.5, "distant": 0.5, "entropy": 1.0},
        **{"activity": 1.0, "change": 0.0, "task_bits": None, "response": 10.0},
    }
    assert cube.ring_rows(found)[1]["first_step"] is None


def test_the_page_stands_alone_and_runs_no_name(found, tmp_path):
    path = tmp_path / "new" / "cube.html"
    cube_page.write(found, path)
    text = path.read_text()
    assert "<there>" not in text
    assert "&lt;there&gt;" in text
    assert "nothing &lt;arrives&gt;" in text
    assert 'src="http' not in text.partition("</main>")[2]
    embedded = text.partition('id="player">')[2].partition("</script>")[0]
    assert json.loads(embedded) == json.loads(json.dumps(cube_figures.player(found)))


def test_a_png_has_a_panel_for_each_colouring(found, tmp_path):
    cube_painting.write_png(found, tmp_path / "cube.png")
    content = (tmp_path / "cube.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1320, 640)
    figure = cube_painting.picture(found, [("response", 1)])
    solid, bar = figure.axes
    assert solid.get_title(loc="left") == "Response to a change of the whole input, step 1"
    (cells,) = solid.collections
    assert list(cells.get_array()) == cube_paint.colours(
        cube.colouring(found, "response"), cube.colouring(found, "response").frames[1]
    )
    assert bar.get_xlabel() == "times the change at step 0"
    axes = (solid.get_xlabel(), solid.get_ylabel(), solid.get_zlabel())
    assert axes == ("x, cells", "y, cells", "z, layers")


def test_a_record_comes_back(found):
    assert record.from_json(json.loads(json.dumps(found.as_json()))) == found
