"""How a change travels, in cubes where it can be worked out by hand."""

import gzip
import json
import math

import pytest
import torch

from cubeopt.emergence import flow, record
from cubeopt.report import cube as cubes

from .conftest import Planted, chain, sentences

FIRST = 0.01  # relative: of the nonlinearity at a change of 1 %


def by_layer(row, depth=3):
    """Root mean square of each layer."""
    return [
        math.sqrt(sum(each * each for each in row[z::depth]) / len(row[z::depth]))
        for z in range(depth)
    ]


def test_a_chain_passes_on_what_binomials_say():
    # After t exchanges the layers hold 1, 2 t and 4 t (t - 1) / 2 of what was written.
    found = chain().look()
    response = [by_layer(row) for row in found.flow.news[0].response]
    assert response == [
        pytest.approx([1, 0, 0], rel=FIRST),
        pytest.approx([1, 2, 0], rel=FIRST),
        pytest.approx([1, 4, 4], rel=FIRST),
        pytest.approx([1, 6, 12], rel=FIRST),
    ]
    whole = found.flow.news[0]
    assert (whole.first_step, whole.all_read) == (2, 2)
    assert [(ring.distance, ring.cells, ring.first_step) for ring in whole.rings] == [
        (0, 4, 0),
        (1, 4, 1),
        (2, 4, 2),
    ]
    assert [ring.response for ring in whole.rings] == pytest.approx([1, 6, 12], rel=FIRST)
    assert found.flow.gain == pytest.approx(12, rel=FIRST)
    assert found.flow.at_read == pytest.approx(144 / 181, rel=FIRST)
    assert (
        "reaches the output face at step 2 of 3, all of it at once" in sentences(found)["arrival"]
    )


def test_what_carries_it_counts_the_ways_that_are_left():
    # Of the 12, 4 wait a step below and 8 do not; after two steps, 8 have one layer left to go.
    carried = chain().look().flow.carried
    shares = [[math.fsum(row[z::3]) for z in range(3)] for row in carried]
    assert shares == [
        pytest.approx([1, 0, 0], abs=FIRST),
        pytest.approx([1 / 3, 2 / 3, 0], abs=FIRST),
        pytest.approx([0, 2 / 3, 1 / 3], abs=FIRST),
        pytest.approx([0, 0, 1], abs=FIRST),
    ]


def test_a_cell_that_is_changed_alone_is_heard_in_its_own_column_only():
    found = chain().look()
    assert [news.name for news in found.flow.news[1:]] == ["0,0,0", "0,1,0", "1,0,0", "1,1,0"]
    last = found.flow.news[3].response[-1]
    column = (1 * 2 + 0) * 3
    assert last[column : column + 3] == pytest.approx([1, 6, 12], rel=FIRST)
    assert sum(each > 0.0 for each in last) == 3
    # Of the cells read, one hears of it, and no step brings it to all of them.
    assert (found.flow.news[3].first_step, found.flow.news[3].all_read) == (2, None)


def test_a_chain_that_is_cut_is_said_to_be_cut():
    planted = chain()
    planted.cut(2)
    found = planted.look()
    whole = found.flow.news[0]
    assert whole.first_step is None
    assert by_layer(whole.response[-1]) == pytest.approx([1, 6, 0], rel=FIRST)
    assert whole.rings[2].first_step is None
    assert found.flow.gain == found.flow.at_read == 0.0
    assert found.flow.carried == [[0.0] * 12] * 4
    (cut,) = [each for each in found.findings if each.kind == "cut"]
    assert cut.trouble
    assert cut.sentence == (
        "nothing that changes at the input face reaches the output face in 3 steps: the last layer "
        "reached is z=1 of 2; the output does not depend on the input"
    )
    shown = {each.key: each for each in cubes.colourings(found)}
    assert shown["response"].frames[-1].layers[2] is None
    assert "the change has reached 8 of 12 cells" in shown["response"].frames[-1].caption
    assert shown["carried"].frames[1].caption == "After step 1, nothing will reach the output."


def wild(**values):
    """A cube of random weights with all experts, shown random rows."""
    values = {"lattice_size": [3, 3, 4], "state_size": 6, "embedding_size": 16, **values}
    source = torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    experts = ["local", "functional", "distant"]
    return Planted(source, seed=5, experts=experts, readout="state", **values)


@pytest.mark.parametrize("halting", ["fixed", "threshold", "learned"])
def test_a_cut_through_all_experts_lets_exactly_nothing_pass(halting):
    whole, cut = wild(halting=halting), wild(halting=halting)
    cut.cut(2)
    assert whole.look().flow.news[0].first_step == 1
    found = cut.look()
    for row in found.flow.news[0].response:
        assert {size for cell, size in enumerate(row) if cell % 4 >= 2} == {0.0}
    assert all(size > 0.0 for c, size in enumerate(found.flow.news[0].response[-1]) if c % 4 < 2)
    assert "the last layer reached is z=1 of 3" in sentences(found)["cut"]
    assert found.findings[0].kind == "cut"


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_the_share_of_a_cell_is_what_holding_it_back_takes_away(step):
    """Activation patching, cell by cell, beside its gradient."""
    planted = wild()
    model, found = planted.model(), planted.look()
    walk = flow._Walk(model)
    push = flow._directions(walk.source) * flow.SIZE * 4.0
    clean, output = walk.states(walk.source)
    _, other = walk.states(walk.source + push)
    way = (other - output) / (other - output).square().sum()

    def held_back(cell):
        def hold(at, state):
            state = state.clone()
            if at == step:
                state[0, cell] = clean[step, cell]
            return state

        return walk._forward(walk.source + push, hold)

    with torch.no_grad():
        taken = [float(((other - held_back(cell)) * way).sum()) for cell in range(36)]
    assert found.flow.carried[step] == pytest.approx(taken, abs=3e-3)
    assert math.fsum(found.flow.carried[step]) == pytest.approx(1.0, abs=2e-3)


def test_written_and_read_on_one_face_it_arrives_at_once():
    found = wild(placement="same_face").look()
    assert found.flow.news[0].first_step == 0
    assert not {"cut", "arrival"} & set(sentences(found))
    assert "the output changes by" in sentences(found)["gain"]


def test_the_record_keeps_what_it_is_worth_and_comes_back_from_json():
    values = {"lattice_size": [8, 8, 8], "lattice_steps": 5, "functional_radius": 2.0}
    found = wild(**values, distant_links=8).look()
    text = json.dumps(found.as_json(), allow_nan=False)
    assert len(gzip.compress(text.encode())) < 200_000
    again = record.from_json(json.loads(text))
    assert json.dumps(again.as_json()) == text
    assert cubes.step_rows(again) == cubes.step_rows(found)
