"""The page of cubes over real checkpoints, in a real browser: one of a cube that was cut."""

import html
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect

from cubeopt import saved, trial
from cubeopt.data import dataset as datasets
from cubeopt.db import leases, queue, records
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import NewTrial
from cubeopt.lattice.geometry import positions
from cubeopt.report import cube_page
from cubeopt.saved import Saved
from cubeopt.training import checkpoint
from cubeopt.training.checkpoint import Facts
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun

from .conftest import Served, Viewer, drawn

NAME = "cubes <b>&"
SHAPE = {
    "lattice_size": [3, 3, 4],
    "embedding_size": 24,
    "state_size": 4,
    "lattice_steps": 3,
    "functional_radius": 1.5,
    "distant_links": 2,
    "batch_size": 16,
    "dataset": "tiny",
    "task": ["reconstruct", "dialogue"],
    "epochs": 6,
    "save_checkpoint_every": 2,
}
CUT = 1  # the trial whose cube lets nothing through


def _cut(run: PackRun) -> None:
    """No link across the plane in the middle."""
    wiring, views = run.cube.wiring, run.cube.layout.views(run.arena)
    z = positions(run.shape.lattice_size)[:, 2]
    for name, links in (
        ("local", wiring.local),
        ("functional", wiring.functional),
        ("distant", wiring.distant),
    ):
        across = (z[links.listener] < 2) != (z[links.speaker] < 2)
        views[f"{name}.link"][0, across] = 0.0


@pytest.fixture(scope="module")
def cubes(dashboard: Served, tiny_dataset: Path) -> Served:
    """A study of two trials, both carried on to the end; the second one's cube is cut."""
    engine, settings = dashboard.engine, dashboard.context.settings
    shutil.copytree(tiny_dataset, settings.data_dir / "tiny")
    held = datasets.load(settings.data_dir / "tiny")
    record = records.create_study(
        engine,
        name=NAME,
        spec={
            "name": "cubes",
            "base": SHAPE,
            "search": {"learning_rate": {"low": 1e-3, "high": 1e-2}},
            "rungs": {"epochs": [1, 2]},
        },
        direction="minimize",
        metric="fvu",
        dataset="tiny",
        dataset_fingerprint=held.fingerprint,
        dataset_rows=held.counts(held.tasks),
        baselines={"mean": 1.0, "identity": None, "pca": 0.8, "pca_width": 9},
        code_version="0.0.0",
    )
    specs = [trial.from_flat({**SHAPE, "seed": number}) for number in range(2)]
    feed = Feed(held, specs[0].plan.task, torch.device("cpu"))
    trials = [NewTrial(n, {}, spec.flat(), "a", 2) for n, spec in enumerate(specs)]
    queue.enqueue(engine, record.id, trials)
    worker = queue.register(engine, "w", "host", 1, "cpu", {})
    for target in (2, 6):
        if target == 6:
            queue.promote(engine, record.id, [0, 1], target)
        claims = queue.claim(
            engine,
            worker,
            2,
            device="cpu",
            provenance={},
            preferred_width=2,
            max_width=2,
            lease_seconds=600.0,
        )
        for claim in claims:
            run = PackRun(specs[0].shape, 1, feed)
            run.fill(0, run.fresh(specs[claim.trial_number]))
            for _ in range(target * 3):
                run.step()
            if claim.trial_number == CUT:
                _cut(run)
            for epoch in range(2, target + 1, 2) if target == 2 else (4, 6):
                _report(dashboard, run, claim, epoch)
    return dashboard


def _report(served: Served, run: PackRun, claim: Any, epoch: int) -> None:
    home = saved.folder(NAME, claim.trial_number, claim.kind, claim.replicate)
    path = home / Saved(epoch, 0, claim.token).name
    folder = served.context.settings.checkpoints_dir / path
    facts = Facts(epoch, 1, run.feed.dataset.fingerprint, {}, {})
    checkpoint.save(folder, run.state(0), run.cube.layout, run.feed, facts)
    if epoch == 4:
        checkpoint.thin(folder)
    report = EpochReport(
        claim.run_id, claim.token, epoch, 0.9 + claim.trial_number / 10, {}, str(path)
    )
    leases.report(served.engine, [report], lambda question: False)


def _shown(page: Page, epoch: int) -> None:
    """Wait until the cube of *epoch* is there, and drawn."""
    expect(page.locator("#status")).to_contain_text(f"The cube after epoch {epoch}", timeout=60_000)
    drawn(page, "layers")


def _address(served: Served) -> str:
    return f"{served.url}/studies/cubes%20%3Cb%3E%26/cube"


def _downloaded(served: Served) -> str:
    """The report of the study, as a browser is given it."""
    answer = served.ask("/studies/cubes%20%3Cb%3E%26/report.html")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return answer.text


def _played(page: str) -> Any:
    """What the cube's script in *page* is given."""
    return json.loads(page.partition('id="player">')[2].partition("</script>")[0])


def _ready(served: Served, query: str) -> dict[str, Any]:
    """The data of the page, once they are there."""
    while True:
        row = served.ask(f"/data/studies/cubes%20%3Cb%3E%26/cube?{query}").json
        if row["state"] != "working":
            return dict(row)
        time.sleep(0.05)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_cube_is_shown_by_step_epoch_and_colour(
    cubes: Served, viewer: Viewer, axe: Callable[[Page], None], width: int
) -> None:
    page = viewer.open(_address(cubes), width=width)
    _shown(page, 6)
    assert page.locator("#run").input_value() == "0-full"
    assert page.locator("#epoch option").all_inner_texts() == ["2", "4", "6"]
    said = page.locator("#cube .says")
    row = _ready(cubes, "run=0-full&epoch=6")
    (frames,) = [each["frames"] for each in row["player"]["colourings"]]
    expect(said).to_have_text(frames[-1]["caption"])
    # By keyboard: a step back, an epoch back, another colouring.
    page.locator("#step").focus()
    page.keyboard.press("ArrowLeft")
    expect(said).to_have_text(frames[-2]["caption"])
    page.locator("#epochs").focus()
    page.keyboard.press("ArrowLeft")
    _shown(page, 4)
    page.locator("#colour").select_option("response")
    responses = _ready(cubes, "run=0-full&epoch=4&colour=response")["player"]["colourings"][0]
    expect(said).to_have_text(responses["frames"][2]["caption"])
    assert "run=0-full" in page.url
    assert "colour=response" in page.url
    page.locator("#play").click()
    expect(said).to_have_text(responses["frames"][0]["caption"])
    page.get_by_role("button", name="Stop").click()
    colours = page.evaluate("document.querySelector('#layers .plot').data[0].z.flat()")
    assert sorted(each for each in colours if each is not None) == pytest.approx(
        sorted(responses["frames"][0]["colour"])
    )
    for tables in page.locator("details summary").all():
        if tables.is_visible():
            tables.click()
    axe(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_cube_that_is_cut_is_shown_and_said_to_be_cut(cubes: Served, viewer: Viewer) -> None:
    page = viewer.open(f"{_address(cubes)}?run=1-full&colour=response")
    _shown(page, 6)
    worst = page.locator("#findings li").first
    expect(worst).to_have_class("warning")
    expect(worst).to_contain_text("nothing that changes at the input face reaches the output face")
    expect(worst).to_contain_text("the last layer reached is z=1 of 3")
    expect(page.locator("#cube .says")).to_contain_text("has reached 18 of 36 cells")
    page.locator("#cube summary").click()
    cells = page.locator("#cube tbody tr").all_inner_texts()
    assert [each.split("\t")[1] == "not reached" for each in cells] == [False, False, True, True]


def test_what_the_page_shows_is_what_analysis_finds(cubes: Served) -> None:
    from cubeopt.emergence import analysis

    settings = cubes.context.settings
    run = saved.folder(NAME, 1, "full", 0)
    (folder,) = (settings.checkpoints_dir / run).glob("epoch_00006.*")
    found = analysis.analyse(folder, settings)
    row = _ready(cubes, "run=1-full&epoch=6&record")["record"]
    assert row["findings"] == [{**vars(each), "kind": str(each.kind)} for each in found.findings]
    assert row["metrics"] == found.metrics
    assert row["flow"]["news"][0]["response"] == found.flow.news[0].response
    # The winner is trial 0, and its cube is in the report to download as the command has it.
    (best,) = (settings.checkpoints_dir / saved.folder(NAME, 0, "full", 0)).glob("epoch_00006.*")
    ours = cube_page.fragment(analysis.analyse(best, settings))
    assert _played(_downloaded(cubes)) == _played(ours)
    listed = cubes.ask("/data/studies/cubes%20%3Cb%3E%26/cube").json
    assert [(each["key"], each["value"]) for each in listed["runs"]] == [
        *(("0-full", 0.9), ("1-full", 1.0), ("0-short", 0.9), ("1-short", 1.0)),
    ]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("run=9-full", 404, "has no run '9-full' with a checkpoint"),
        ("run=0-full&epoch=5", 404, "no checkpoint of epoch 5 of this run is here, only 2, 4, 6"),
        ("run=0-full&epoch=x", 400, "epoch must be a whole number, got 'x'"),
        ("run=0-full&epoch=6&colour=blue", 404, "no colouring 'blue' of this cube; there are"),
    ],
)
def test_a_wrong_question_is_one_clear_answer(
    cubes: Served, query: str, status: int, said: str
) -> None:
    _ready(cubes, "run=0-full&epoch=6")
    answer = cubes.ask(f"/data/studies/cubes%20%3Cb%3E%26/cube?{query}")
    assert answer.status == status
    assert said in answer.json["reason"]


def test_an_analysis_that_is_killed_is_said_and_the_next_one_begins_anew(cubes: Served) -> None:
    _ready(cubes, "run=0-full&epoch=6")
    for each in multiprocessing.active_children():
        each.kill()
        each.join()
    row = _ready(cubes, "run=1-full&epoch=4")
    assert (row["state"], row["says"]) == (
        "failed",
        "the analysis ended with exit code -9: too little memory?",
    )
    assert _ready(cubes, "run=1-full&epoch=4")["state"] == "ready"


def test_what_is_not_here_is_said_with_what_to_do(cubes: Served, viewer: Viewer) -> None:
    assert cubes.ask("/studies/nobody/cube").status == 404
    kept = cubes.context.settings.checkpoints_dir
    (other,) = (kept / saved.folder(NAME, 0, "short", 0)).iterdir()
    facts = json.loads((other / "state.json").read_text())
    facts["dataset_fingerprint"] = "0" * 64
    (other / "state.json").write_text(json.dumps(facts))
    row = _ready(cubes, "run=0-short&epoch=2")
    assert row["state"] == "failed"
    assert row["says"].startswith(
        "the cube was trained on a dataset with fingerprint 000000000000, but "
    )
    shutil.move(kept, kept.with_name("elsewhere"))
    try:
        page = viewer.open(f"{_address(cubes)}?run=1-short")
        empty = page.locator(".empty")
        expect(empty).to_contain_text("The checkpoints of this run are not on this machine")
        expect(empty).to_contain_text(str(kept))
        row = cubes.ask("/data/studies/cubes%20%3Cb%3E%26/cube?run=1-short").json
        assert row["state"] == "missing"
        said = html.unescape(_downloaded(cubes))
        assert (
            f"It cannot be looked into here: the checkpoints of trial 0 of study {NAME!r}" in said
        )
        assert 'id="player">' not in said
    finally:
        shutil.move(kept.with_name("elsewhere"), kept)


def test_a_checkpoint_that_a_run_leaves_meanwhile_can_be_chosen(
    cubes: Served, viewer: Viewer
) -> None:
    kept = cubes.context.settings.checkpoints_dir / saved.folder(NAME, 0, "full", 0)
    (path,) = kept.glob("epoch_00004.*")
    away = kept / "later"
    path.rename(away)
    page = viewer.open(_address(cubes))
    _shown(page, 6)
    assert page.locator("#epoch option").all_inner_texts() == ["2", "6"]
    away.rename(path)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as if looked at again
    expect(page.locator("#epoch option")).to_have_text(["2", "4", "6"], timeout=30_000)
    assert page.locator("#epoch").input_value() == "6"
    assert page.locator("#epochs").get_attribute("max") == "2"
    page.locator("#epoch").select_option("4")
    _shown(page, 4)
    assert page.locator("#epochs").input_value() == "1"
