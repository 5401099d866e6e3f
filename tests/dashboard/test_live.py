"""The pages of a study that a real worker process is training meanwhile."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine

from cubeopt.dashboard import wording
from cubeopt.db import records
from cubeopt.search import study
from cubeopt.service import studies

from .conftest import Served, Viewer

Start = Callable[[], None]
_TABLE = """() => {
    const row = document.querySelector("tr[data-track='0']");
    if (!row) return null;
    const fact = name => row.querySelector(`[data-fact=${name}]`).textContent;
    return [parseInt(fact("epoch")), fact("value")];
}"""


@pytest.fixture
def start(
    module_engine: Engine, dashboard: Served, tiny_dataset: Path, database_address: str
) -> Iterator[Start]:
    """Creates a study of one long trial; called, starts a worker on it."""
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
        },
        "search": {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}},
        "sampler": {"name": "random"},
        "rungs": {"epochs": [4000], "rule": "none"},
        "budget": {"trials": 1},
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


def test_what_a_worker_does_is_on_the_pages_without_a_reload(
    start: Start,
    module_engine: Engine,
    dashboard: Served,
    viewer: Viewer,
    axe: Callable[[Page], None],
) -> None:
    training = viewer.open(f"{dashboard.url}/studies/live/training")
    workers = viewer.open(f"{dashboard.url}/workers", width=390, height=844)
    training.get_by_text("Start a worker with").wait_for()
    workers.get_by_text("No worker lives").wait_for()
    for page in (training, workers):
        page.evaluate("window.same = true")
    start()
    training.wait_for_selector("#objective-validation-fvu .js-plotly-plot", timeout=60_000)
    training.wait_for_function(f"() => ({_TABLE})()?.[0] >= 1")
    _check_training(training, module_engine)
    first = training.evaluate(_TABLE)[0]
    training.wait_for_function(f"() => ({_TABLE})()[0] >= {first + 3}")
    _check_training(training, module_engine)
    _check_workers(workers, module_engine, dashboard)
    for page in (training, workers):
        assert page.evaluate("window.same")  # it was never loaded again
        axe(page)
    assert workers.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _check_training(page: Page, engine: Engine) -> None:
    """The numbers of the table and of the charts are those of the database."""
    epoch, value = page.evaluate(_TABLE)
    found = records.study(engine, "live")
    stored = {each.epoch: each for each in records.epochs(engine, found.id)}
    assert epoch in stored
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
        stored = {each.epoch: each for each in records.epochs(engine, found.id)}
        assert epochs[0] == 1
        assert values == [float(f"{stored[each].metrics[name]:.6g}") for each in epochs]


def _check_workers(page: Page, engine: Engine, dashboard: Served) -> None:
    (row,) = dashboard.ask("/data/workers").json["live"]
    (worker,) = (each for each in records.workers(engine) if each.state == "live")
    assert (row["name"], row["device"], row["runs"], row["slots"]) == (
        *(worker.name, worker.device, 1, 1),
    )
    card = page.locator(f"[data-worker='{worker.name}']")
    card.wait_for()
    card.locator("li", has_text="live, trial 0").wait_for()
    assert card.locator("[data-fact=slots]").inner_text() == "1 of 1"
    (run,) = row["packs"][0]["runs"]
    assert (run["study"], run["trial"], run["target_epochs"]) == ("live", 0, 4000)
    page.wait_for_function(
        "() => parseFloat(document.querySelector('[data-fact=epochs]').textContent) > 0"
    )
