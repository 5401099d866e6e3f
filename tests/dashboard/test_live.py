"""The pages of a study that a real worker process is training meanwhile."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import Engine

from cubeopt import saved
from cubeopt.dashboard import studies as pages_of_studies
from cubeopt.dashboard import wording
from cubeopt.db import orders, records, showcase
from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.search import study
from cubeopt.service import studies

from .conftest import Served, Viewer, drawn

Start = Callable[[], None]
_EVERY = 5  # epochs between two checkpoints of the full run
_LIMIT = 60_000  # milliseconds until something must have come
_ROW = """() => {
    const row = document.querySelector("tr[data-track]:only-child");
    const fact = name => row?.querySelector(`[data-fact=${name}]`).textContent;
    return [row?.dataset.track, parseInt(fact("epoch")), fact("value")];
}"""
_EPOCHS = """() => {
    const names = [...document.querySelectorAll("dl.facts dt")];
    const name = names.find(each => each.textContent.toLowerCase() === "epochs");
    return parseInt(name?.nextElementSibling.textContent.replaceAll(",", ""));
}"""
_DOTS = """selector => {
    const traces = document.querySelector(selector)?.data ?? [];
    const dots = traces.filter(trace => trace.mode === "markers");
    return dots.flatMap(({ x, y }) => [...x].map((trial, nth) => [trial, y[nth]]));
}"""
_CURVE = """() => {
    const traces = document.querySelector("#curves .plot").data;
    const { x, y } = traces.find(trace => trace.name === "full run (1)");
    return [...x].map((epoch, nth) => [epoch, y[nth]]).filter(([epoch]) => epoch !== null);
}"""
_PLOTS = ("rung-ladder", "short-and-full", "promotions", "workers-over-time")  # ours, in Optuna's


@pytest.fixture
def start(
    module_engine: Engine, dashboard: Served, tiny_dataset: Path, database_address: str
) -> Iterator[Start]:
    """Creates a study of three short runs and a full one without end; called, starts a worker."""
    home = dashboard.context.settings
    shutil.copytree(tiny_dataset, home.dataset_dir("tiny"))
    content = {
        "name": "live",
        "base": {
            "lattice_size": [2, 2, 3],
            "embedding_size": 24,
            "state_size": 4,
            "lattice_steps": 2,
            "functional_radius": 1.5,
            "distant_links": 1,
            "batch_size": 4,
            "dataset": "tiny",
            "epochs": 5000,
            "save_checkpoint_every": _EVERY,
        },
        "search": {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}},
        "sampler": {"name": "random"},
        "rungs": {"epochs": [1, 3], "rule": "none"},
        "budget": {"trials": 3},
    }
    studies.create(module_engine, home, study.parse(content, "live.yaml"))
    started: list[subprocess.Popen[bytes]] = []
    kept = {name: value for name, value in os.environ.items() if "CUBEOPT" not in name}
    environment = {
        **kept,
        "CUBEOPT_STORAGE": database_address,
        "CUBEOPT_HOME": str(home.storage_dir),
        "OMP_NUM_THREADS": "1",
    }

    def begin() -> None:
        command = [
            sys.executable,
            "-m",
            "cubeopt",
            "worker",
            "--cpu",
            "--pack",
            "1",
            "--grace",
            "5",
        ]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, **pipes))

    yield begin
    for process in started:
        process.terminate()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said.decode()


@dataclass(frozen=True)
class Live:
    """What the database says of the study."""

    engine: Engine

    @property
    def id(self) -> int:
        return records.study(self.engine, "live").id

    @property
    def epochs(self) -> int:
        return len(records.epochs(self.engine, self.id))

    @property
    def short(self) -> dict[int, float]:
        """The values of the short runs, by trial."""
        ended = [each for each in self._runs(RunKind.SHORT) if each.state is RunState.COMPLETE]
        return {each.trial_number: each.value for each in ended if each.value is not None}

    @property
    def full(self) -> RunRecord:
        (run,) = self._runs(RunKind.FULL)
        return run

    def curve(self) -> dict[int, records.EpochRecord]:
        """The epochs of the promoted trial's training, from its first on."""
        trial, rows = self.full.trial_number, records.epochs(self.engine, self.id)
        return {each.epoch: each for each in rows if each.trial_number == trial}

    def offered(self) -> list[str]:
        """The epochs of which a cube can be looked at: of the short run its last."""
        last, run = self.full.epoch, self.full
        name = saved.parse(Path(run.checkpoint or "").name)
        whole = {last} if name is not None and not name.batches else set()  # it was paused there
        return [str(each) for each in sorted({3, *range(_EVERY, last + 1, _EVERY), *whole})]

    def pause(self) -> None:
        """Until nothing moves any more; the worker lives on."""
        assert orders.steer(self.engine, "live", orders.Order.PAUSE)
        while self.full.state is RunState.RUNNING:
            time.sleep(0.02)

    def _runs(self, kind: RunKind) -> list[RunRecord]:
        return [each for each in records.runs(self.engine, self.id) if each.kind is kind]


def test_what_a_worker_does_is_on_every_page_without_a_reload(
    start: Start,
    module_engine: Engine,
    dashboard: Served,
    viewer: Viewer,
    axe: Callable[[Page], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages_of_studies, "_SHARE", 0)  # new things are shown at once
    at, live = f"{dashboard.url}/studies/live", Live(module_engine)
    overview, study = viewer.open(f"{dashboard.url}/"), viewer.open(at)
    training, cube = viewer.open(f"{at}/training"), viewer.open(f"{at}/cube")
    workers = viewer.open(f"{dashboard.url}/workers", width=390, height=844)
    following = overview, study, training, workers
    card = overview.get_by_role("article", name="live")
    expect(card).to_contain_text("0 of 3")
    study.get_by_text("No result yet").wait_for()
    training.get_by_text("Start a worker with").wait_for()
    workers.get_by_text("No worker lives").wait_for()
    cube.get_by_text("cubeopt worker --cpu --study live").wait_for()
    for page in following:
        page.evaluate("window.same = true")
    start()
    expect(card).to_contain_text("0 of 1 full runs ended", timeout=_LIMIT)
    cube.reload()
    number = showcase.ids(module_engine)["live"]
    optuna = viewer.open(f"{dashboard.url}/dashboard/studies/{number}", height=1600)
    _check_overview(card, live, "running", workers=1)
    _check_study(study, live)
    _check_training(training, live)
    _check_workers(workers, dashboard, live)
    _check_optuna(optuna, live)
    optuna.close()
    for page in (overview, study):
        arg, grown = live.epochs, f"stored => ({_EPOCHS})() > stored"
        page.wait_for_function(grown, arg=arg, timeout=_LIMIT)
        assert page.evaluate(_EPOCHS) <= live.epochs
    newest = _check_cube(cube, live)
    while live.full.epoch < newest + _EVERY:
        time.sleep(0.02)
    live.pause()
    _check_overview(card, live, "paused", workers=0)
    _check_study(study, live)
    _check_training(training, live)
    for page in (overview, study):
        arg, equal = live.epochs, f"stored => ({_EPOCHS})() === stored"
        page.wait_for_function(equal, arg=arg, timeout=_LIMIT)
    _check_curve(study, live)
    workers.get_by_text("Holds nothing").wait_for()
    cube.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as if looked at again
    expect(cube.locator("#epoch option")).to_have_text(live.offered(), timeout=_LIMIT)
    for page in (*following, cube):
        axe(page)
    assert all(page.evaluate("window.same") for page in following)  # none was loaded again
    assert workers.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _check_overview(card: Locator, live: Live, state: str, workers: int) -> None:
    trial, value = min(live.short.items(), key=lambda each: each[1])
    expect(card.locator("[data-state]")).to_have_text(state, timeout=_LIMIT)
    fact = {
        name: card.locator("div", has=card.page.get_by_text(name, exact=True))
        for name in ("Trials ended", "Best", "Workers at it")
    }
    expect(fact["Trials ended"]).to_contain_text(f"{len(live.short)} of 3")
    expect(fact["Trials ended"]).to_contain_text(f"{len(live.short)} complete")
    expect(fact["Best"]).to_contain_text(f"fvu {value:.4f}")
    expect(fact["Best"]).to_contain_text(f"trial {trial}, short run")
    expect(fact["Workers at it"].locator("dd")).to_have_text(str(workers), timeout=_LIMIT)


def _check_study(page: Page, live: Live) -> None:
    trial, value = min(live.short.items(), key=lambda each: each[1])
    expect(page.locator("#verdict")).to_contain_text(
        f"Best: trial {trial} with fvu {value:.4f}", timeout=_LIMIT
    )
    complete = page.locator("#facts dd.note", has_text=f"{len(live.short)} complete")
    complete.wait_for(timeout=_LIMIT)
    expect(page.locator("#facts dd").first).to_have_text(str(len(live.short)))
    expect(page.locator("#ladder .says")).to_contain_text("3 completed the short run")
    count = f"count => ({_DOTS})('#history .plot').length === count"
    page.wait_for_function(count, arg=len(live.short), timeout=_LIMIT)
    shown = dict(page.evaluate(_DOTS, "#history .plot"))
    assert shown == {number: float(f"{value:.5g}") for number, value in live.short.items()}


def _check_curve(page: Page, live: Live) -> None:
    """The running full run's curve is there to its newest epoch."""
    newest = f"last => Math.max(...({_CURVE})().map(([epoch]) => epoch)) === last"
    page.wait_for_function(newest, arg=live.full.epoch, timeout=_LIMIT)  # drawn after the facts
    shown = dict(page.evaluate(_CURVE))
    stored = {epoch: float(f"{each.value:.6g}") for epoch, each in live.curve().items()}
    assert shown == {epoch: stored[epoch] for epoch in shown}


def _check_training(page: Page, live: Live) -> None:
    """The numbers of the table and of the charts are those of the database."""
    wanted = live.full.epoch
    page.wait_for_function(f"wanted => ({_ROW})()[1] >= wanted", arg=wanted, timeout=_LIMIT)
    trial, epoch, value = page.evaluate(_ROW)
    stored = live.curve()
    assert trial == str(live.full.trial_number)
    assert value == wording.number(stored[epoch].value)
    for chart, name in (
        ("objective-validation-fvu", "validation/fvu"),
        ("losses-train-loss-total", "train/loss/total"),
        ("speed-samples_per_second", "samples_per_second"),
        ("gradient-norm-train-gradient_norm-gate", "train/gradient_norm/gate"),
    ):
        page.locator(f"#{chart}").scroll_into_view_if_needed()
        page.wait_for_function(
            f"() => document.querySelector('#{chart} .plot')?.data?.[0]?.x?.length > 0"
        )
        script = (
            f"(({{x, y}}) => [[...x], [...y]])(document.querySelector('#{chart} .plot').data[0])"
        )
        epochs, values = page.evaluate(script)
        stored = live.curve()
        assert epochs[0] == 1
        assert values == [float(f"{stored[each].metrics[name]:.6g}") for each in epochs]


def _check_workers(page: Page, dashboard: Served, live: Live) -> None:
    (row,) = dashboard.ask("/data/workers").json["live"]
    (worker,) = (each for each in records.workers(live.engine) if each.state == "live")
    assert (row["name"], row["device"], row["runs"], row["slots"]) == (
        *(worker.name, worker.device, 1, 1),
    )
    trial = live.full.trial_number
    card = page.locator(f"[data-worker='{worker.name}']")
    card.locator("li", has_text=f"live, trial {trial}, full run").wait_for(timeout=_LIMIT)
    assert card.locator("[data-fact=slots]").inner_text() == "1 of 1"
    (run,) = row["packs"][0]["runs"]
    assert (run["study"], run["trial"], run["target_epochs"]) == ("live", trial, 5000)
    page.wait_for_function(
        "() => parseFloat(document.querySelector('[data-fact=epochs]').textContent) > 0"
    )


def _check_optuna(page: Page, live: Live) -> None:
    """Optuna's own page has every trial with its value, and draws what is ours."""
    for plot in _PLOTS:
        page.locator(f"[id='user-defined-plot:{plot}'] .main-svg").first.wait_for(timeout=_LIMIT)
    script = f"count => ({_DOTS})('#plot-history').length === count"
    page.wait_for_function(script, arg=len(live.short), timeout=_LIMIT)
    assert dict(page.evaluate(_DOTS, "#plot-history")) == live.short


def _check_cube(page: Page, live: Live) -> int:
    """The cube of the full run is drawn after one of its epochs; the newest that can be chosen."""
    expect(page.locator("#status")).to_contain_text("The cube after epoch", timeout=_LIMIT)
    drawn(page, "layers")
    assert page.locator("#run").input_value() == f"{live.full.trial_number}-full"
    epoch = page.locator("#epoch").input_value()
    expect(page.locator("#status")).to_contain_text(f"The cube after epoch {epoch}:")
    offered = page.locator("#epoch option").all_inner_texts()
    assert offered == live.offered()[: len(offered)]
    return int(offered[-1])
