"""Who decides what where: against the metrics of training, and in planted cases."""

import math

import pytest
import torch

from cubeopt.emergence import analysis, model
from cubeopt.report import cube as cubes
from cubeopt.training import checkpoint
from cubeopt.training.checkpoint import Facts
from cubeopt.training.feed import Feed
from cubeopt.trial import Task

from ..training.conftest import CPU, spec, start, train
from .conftest import Planted, sentences

TWO = {"experts": ["local", "functional"], "task": ["reconstruct", "dialogue"]}


@pytest.mark.parametrize(
    "values", [{}, {"halting": "threshold", "halting_threshold": 0.4}, {"ema_decay": 0.5}]
)
def test_overall_numbers_are_those_of_the_training(dataset, tmp_path, values):
    feed = Feed(dataset, [Task.RECONSTRUCT, Task.DIALOGUE], CPU)
    given = spec(task=["reconstruct", "dialogue"], **values)
    run = train(start(feed, 1, {0: given}), 9)
    expected = run.evaluate("validation")[0]
    facts = Facts(2, 1, dataset.fingerprint, {}, {})
    folder = tmp_path / "saved"
    checkpoint.save(folder, run.state(0), run.cube.layout, feed, facts)
    found = analysis.looked_at(model.model(checkpoint.evaluated(folder), dataset, folder), "saved")
    assert (found.rows, found.validation_rows, found.epoch) == (24, 24, 2)
    assert set(found.metrics) <= set(expected)
    assert {"specialisation", "specialisation/cell", "specialisation/task"} <= set(found.metrics)
    for name, value in found.metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-9), name
    taken = math.fsum(step.taken for step in found.steps[1:])
    assert taken == pytest.approx(expected["steps"], rel=1e-3)
    # Cell by cell and step by step they add up to the same.
    for expert in found.experts:
        shares = [
            step.taken * math.fsum(step.shares[expert]) / found.cells
            for step in found.steps
            if step.shares
        ]
        mean = 100.0 * math.fsum(shares) / taken
        assert mean == pytest.approx(expected[f"usage/{expert}"], rel=1e-3)
    # A thinned checkpoint has all that is looked at.
    checkpoint.thin(folder)
    again = analysis.looked_at(model.model(checkpoint.evaluated(folder), dataset, folder), "saved")
    assert again == found


def test_rows_are_spread_evenly_over_the_split():
    assert model.spread(10, 4).tolist() == [0, 2, 5, 7]
    assert model.spread(3, 256).tolist() == [0, 1, 2]


def decided_by_task():
    """The gate looks at the number that was written: 1 for one task, -1 for the other."""
    planted = Planted(torch.tensor([[1.0] * 4, [-1.0] * 4] * 6), **TWO)
    planted.weights["gate.weight"].copy_(torch.tensor([[60.0, -60.0]]))
    planted.tasks = [Task.RECONSTRUCT, Task.DIALOGUE] * 6
    return planted


def test_a_cube_that_is_specialised_by_task_has_a_bit_in_the_cells_that_know_it():
    found = decided_by_task().look()
    assert found.tasks is not None
    # Nothing is passed on: the cells above know nothing, and mix both experts alike.
    assert found.tasks.bits == [1.0, 0.0, 0.0] * 4
    assert found.tasks.shares["reconstruct"]["local"] == [1.0, 0.5, 0.5] * 4
    assert found.tasks.shares["dialogue"]["local"] == [0.0, 0.5, 0.5] * 4
    assert 0.0 < found.tasks.by_chance < 1 / 3
    assert sentences(found)["specialised by task"].endswith("1 in cell (0, 0, 0)")
    # Over the mean of all cells: half of what is left is a third of it.
    share = 0.5 + 0.5 / 3
    bits = 1.0 + share * math.log2(share) + (1 - share) * math.log2(1 - share)
    assert found.metrics["specialisation/task"] == pytest.approx(bits, abs=1e-5)
    (shown,) = [each for each in cubes.colourings(found) if each.key == "task"]
    assert shown.frames[0].layers == [1.0, 0.0, 0.0]
    (gap,) = [each for each in cubes.colourings(found) if each.key == "task:local"]
    assert (gap.scale, gap.title) == ("diverging", "local: dialogue minus reconstruct")
    assert gap.frames[0].values[:3] == [-100.0, 0.0, 0.0]


def test_tasks_that_do_not_matter_are_said_not_to():
    planted = decided_by_task()
    planted.tasks = [Task.RECONSTRUCT, Task.RECONSTRUCT, Task.DIALOGUE, Task.DIALOGUE] * 3
    found = planted.look()
    assert (
        "no cell's choice of an expert depends on the task"
        in sentences(found)["not specialised by task"]
    )


def test_experts_that_are_chosen_by_place_are_seen_in_their_cells():
    planted = Planted(torch.zeros(3, 4), experts=["local", "functional"], lattice_size=[2, 2, 4])
    planted.weights["gate.weight"].copy_(torch.tensor([[60.0, -60.0]]))
    planted.weights["place.vector"].copy_(torch.tensor([1.0, 1.0, -1.0, -1.0] * 4)[:, None])
    found = planted.look()
    assert found.metrics["specialisation/cell"] == pytest.approx(1.0, abs=1e-6)
    assert "1 bits, 100 % of all" in sentences(found)["specialised by cell"]
    assert "nearly every choice is for one expert" in sentences(found)["decided gate"]
    shown = cubes.colouring(found, "expert")
    assert shown.categories == ["local", "functional", "no lead"]
    assert shown.frames[-1].values == [0, 0, 1, 1] * 4
    assert shown.frames[-1].details[2] == [0.0, 100.0]
    assert shown.frames[-1].caption == "After step 3, of 16 cells: local in 8, functional in 8."


def test_a_dead_expert_is_named():
    planted = Planted(torch.zeros(3, 4), experts=["local", "functional", "distant"])
    planted.weights["gate.bias"].copy_(torch.tensor([0.0, 0.0, -40.0]))
    found = planted.look()
    (dead,) = [each for each in found.findings if each.kind == "dead expert"]
    assert (dead.subject, dead.trouble) == ("distant", True)
    assert "no cell at any step more than 0 %" in dead.sentence
    assert found.metrics["usage/distant"] == pytest.approx(0.0, abs=1e-6)
    assert found.metrics["usage/local"] == pytest.approx(50.0)
    assert {*cubes.colouring(found, "expert").frames[-1].values} == {3}  # neither of two leads


@pytest.mark.parametrize(
    ("gate", "kind"), [("learned", "undecided gate"), ("frozen", "frozen gate")]
)
def test_a_gate_that_decides_nothing_is_told_from_one_that_may_not(gate, kind):
    found = Planted(torch.zeros(3, 4), experts=["local", "functional"], gate=gate).look()
    assert {"undecided gate", "frozen gate"} & set(sentences(found)) == {kind}
    assert found.steps[1].entropy == [1.0] * 12
    assert found.steps[0].shares is None
    (finding,) = [each for each in found.findings if each.kind == kind]
    assert finding.trouble == (gate == "learned")


def test_activity_and_change_are_root_mean_squares():
    planted = Planted(torch.full((2, 4), 3.0))
    planted.weights["local.bias"].fill_(0.5)  # every exchange adds one half everywhere
    found = planted.look()
    assert [step.activity[:3] for step in found.steps] == [
        [3.0, 0.0, 0.0],
        [3.5, 0.5, 0.5],
        [4.0, 1.0, 1.0],
        [4.5, 1.5, 1.5],
    ]
    assert [step.change[0] for step in found.steps] == [0.0, 0.5, 0.5, 0.5]
    row = cubes.step_rows(found)[-1]
    assert row["activity"] == pytest.approx(math.sqrt((4.5**2 + 2 * 1.5**2) / 3), rel=1e-3)
    assert cubes.cell_rows(found)[1]["activity"] == 1.5


def test_steps_that_no_sample_takes_have_no_choices():
    found = Planted(torch.ones(2, 4), halting="threshold", experts=["local", "functional"]).look()
    # Nothing moves, so all stop after the first exchange.
    assert [step.taken for step in found.steps] == [1.0, 1.0, 0.0, 0.0]
    assert [step.shares is None for step in found.steps] == [True, False, True, True]
    assert [each.step for each in cubes.colouring(found, "expert").frames] == [1]
    assert found.steps[3].activity[:3] == [1.0, 0.0, 0.0]
