"""Pictures of a cube show its rows, whoever paints them."""

import json
import math
import struct

import pytest

from cubeopt.emergence import record
from cubeopt.report import cube, cube_figures, cube_page, cube_paint, cube_painting
from cubeopt.report.palette import EXPERTS, GREY


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


def test_a_png_has_a_panel_for_each_colouring(found):
    content = cube_painting.png(found)
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height > 610) == (1320, True)
    figure = cube_painting.picture(found, [("response", 1)], "<There>")
    title, said = (" ".join(each.get_text().split()) for each in figure.texts)
    assert title == "<There>: 2x1x2 cells after epoch 3"
    assert "After step 1, the change has reached 2 of 4 cells" in said
    assert said.endswith("cut: nothing <arrives>.")
    solid, bar = figure.axes
    assert solid.get_title(loc="left") == "Response to a change of the whole input, step 1"
    (cells,) = solid.collections
    assert list(cells.get_array()) == cube_paint.colours(
        cube.colouring(found, "response"), cube.colouring(found, "response").frames[1]
    )
    assert bar.get_xlabel() == "times the change at step 0"
    axes = (solid.get_xlabel(), solid.get_ylabel(), solid.get_zlabel())
    assert axes == ("x, cells", "y, cells", "z, layers")


def test_layers_are_painted_where_the_page_has_them(found):
    flat, bar = cube_painting.layers(found, [("expert", None)]).axes
    (grid,) = flat.collections
    page = cube_figures.layers(found, "expert")
    painted = grid.get_array().filled(math.nan).tolist()
    drawn = [[math.nan if each is None else float(each) for each in row] for row in page.data[0].z]
    assert repr(painted) == repr(drawn)
    said = [(text.get_text(), *text.get_position()) for text in flat.texts]
    assert said == [(each.text, each.x + 0.5, each.y + 0.5) for each in page.layout.annotations]
    assert flat.yaxis_inverted()
    assert [each.get_text() for each in bar.get_xticklabels()] == ["local", "distant", "no lead"]
    assert cube_painting.layers_png(found).startswith(b"\x89PNG")


def test_a_record_comes_back(found):
    assert record.from_json(json.loads(json.dumps(found.as_json()))) == found
