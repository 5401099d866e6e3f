"""The figures have the form that they say; the times themselves are nobody's promise."""

import json
import math

import pytest
import torch

from cubeopt.bench import floor, measuring, packing, stepping
from cubeopt.bench.operations import Operations
from cubeopt.lattice.cube import Cube
from cubeopt.training.optim import PackAdamW
from cubeopt.trial import CubeShape

from ..training.pretended import GPU, PretendedGpu

CPU = torch.device("cpu")
SMALL = CubeShape(
    lattice_size=(4, 4, 4),
    embedding_size=16,
    state_size=16,
    lattice_steps=3,
    batch_size=8,
    distant_links=2,
)


def test_a_report_has_every_section_and_is_one_json_document(monkeypatch):
    monkeypatch.setattr(stepping, "SHAPE", SMALL)
    monkeypatch.setattr(packing, "_TOGETHER_SECONDS", 0.2)
    monkeypatch.setattr(packing.throughput, "_SECONDS", 0.05)
    told = []
    report = stepping.measure(CPU, 2, {"small": SMALL}, told.append)
    assert told == ["beside the plain code", "operations", "sizes", "side by side"]
    assert list(dict.fromkeys(each.section for each in report.figures)) == told
    for each in report.figures:
        assert 0.0 < each.low <= each.value <= each.high < math.inf
        assert (each.goal is None) == (each.met is None)
    goals = {each.what: each.goal for each in report.figures if each.goal}
    assert goals == {
        "pack of one / dense": "at most 0.48",
        "pack of one / sparse": "at most 1.1",
        "a step of a pack of 1": "at most 600",
        "a step of a pack of 4": "at most 600",
        "a step of a pack of 8": "at most 600",
        "small: step / floor": "at most 4.2",
        "small: peak memory": "at most 6",
        **{what: goal for what, goal in goals.items() if "processes" in what},
    }
    content = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert content["machine"]["threads"] == torch.get_num_threads()


def test_what_one_process_measures_of_a_gpu_has_its_tensors_on_it(monkeypatch):
    monkeypatch.setenv("CUBEOPT_CUDA_GRAPHS", "off")
    monkeypatch.setattr(stepping, "SHAPE", SMALL)
    monkeypatch.setattr(stepping, "_WIDTHS", (3,))
    monkeypatch.setattr(stepping, "_LAUNCHES", 10)
    monkeypatch.setattr(measuring, "_WARM_UP", 0)
    with PretendedGpu(monkeypatch):
        figures = [*stepping._beside(GPU, 1), *stepping._operations(GPU, 1)]
    assert [each.what for each in figures if "graphs" in each.what] == [
        "a step of a pack of 3: with CUDA graphs / without"
    ]


@pytest.mark.parametrize(("most", "found"), [(5, 0), (8, 8), (13, 12), (1000, 16)])
def test_the_largest_is_the_last_that_fits_and_none_is_tried_after_it(most, found):
    tried = []

    def fits(edge):
        tried.append(edge)
        return edge <= most

    assert packing.last(range(8, 17, 4), fits) == found
    assert tried == [edge for edge in (8, 12, 16) if edge - 4 <= most]


def test_a_cube_that_can_be_trained_fits():
    assert packing._fits(SMALL, CPU)


def test_operations_are_counted_whatever_their_size_and_views_are_not():
    for size in (2, 200):
        x = torch.randn(size, size)
        with Operations() as operations:
            (x.T @ x).view(-1)[1:].add_(1.0).unsqueeze(0)
        assert operations.count == 2


def test_the_operations_of_a_step_do_not_grow_with_the_pack(monkeypatch):
    # A CPU updates one trial after the other; launches count on a GPU.
    monkeypatch.setattr(PackAdamW, "one_by_one", PackAdamW.together)
    counts = []
    for width in (2, 6):
        run = packing.packed(SMALL, width, CPU)
        with Operations() as operations:
            run.step()
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_the_floor_counts_products_links_and_traffic():
    shape = CubeShape(lattice_size=(4, 4, 4), state_size=16, batch_size=2, distant_links=3)
    cube = Cube(shape, CPU)
    links = sum(map(len, (cube.wiring.local, cube.wiring.functional, cube.wiring.distant)))
    rows = 64 * 2
    exchange = rows * 16 * (9 * 16 + 3) + links * 2 * 16
    edges = 2 * 768 * (16 + 16 * 16)
    work = floor.work(cube)
    assert work.flops == pytest.approx(3 * 2 * (5 * exchange + edges))
    assert work.bytes == 4 * (65 * rows * 16 * 5 + 7 * cube.layout.size)
    assert work.seconds(floor.Rates(work.flops, work.bytes / 3)) == pytest.approx(4.0)


def test_rates_are_those_of_a_machine():
    rates = floor.rates(CPU)
    assert 1e8 < rates.flops < 1e14
    assert 1e8 < rates.bytes < 1e13
