"""The page of a study, over a queue in which things happen while it is looked at."""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import yaml
from playwright.sync_api import Page
from sqlalchemy import Engine, text

from cubeopt import trial
from cubeopt.dashboard import reports, studies
from cubeopt.dashboard.analyst import Analyst, Answer
from cubeopt.dashboard.reports import Press
from cubeopt.db import leases, queue, records
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import Claim, NewTrial
from cubeopt.db.records import StudyRecord
from cubeopt.errors import StudyError
from cubeopt.report import study_page
from cubeopt.report.study_page import Cube, Report

from .conftest import Served, Viewer, drawn, run

EVIL = "<script>window.evil=1<\\script>\"'<img src=x onerror=window.evil=1>"
SPEC = {
    "name": "watched",
    "base": {"epochs": 6, "dataset": "sample"},
    "search": {"learning_rate": {"low": 1e-3, "high": 1.0, "log": True}},
    "objective": {"metric": "fvu"},
    "rungs": {"epochs": [1, 2, 3], "reduction_factor": 2.0},
    "promotion": {"top": 1},
    "budget": {"trials": 12},
}
SETTINGS = {"preferred_width": 16, "max_width": 16, "lease_seconds": 600.0}


def _create(engine: Engine, name: str) -> StudyRecord:
    return records.create_study(
        engine,
        name=name,
        spec=SPEC,
        direction="minimize",
        metric="fvu",
        dataset="sample",
        dataset_fingerprint="f00d" * 16,
        dataset_rows={"train": 80, "validation": 10, "test": 10},
        baselines={"mean": 1.0, "identity": None, "pca": 0.4, "pca_width": 16},
        code_version="0.1.0",
    )


class Watched:
    """A study with a worker at it: twelve trials, one of which has a value that is markup."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.study = engine, _create(engine, name)
        trials = []
        for number in range(12):
            params = {"learning_rate": 0.001 * (number + 1)}
            spec = trial.from_flat({**SPEC["base"], **params, "seed": number}).flat()  # type: ignore[dict-item]
            note = {"halting": EVIL} if number == 0 else {}
            trials.append(NewTrial(number, params | note, spec, "a", 3))
        queue.enqueue(engine, self.study.id, trials)
        worker = queue.register(engine, f"lab-{name}", "lab", 1, "cpu", {})
        provenance = {"code_version": "0.1.0", "torch_version": "2.13.0"}
        self.claims: list[Claim] = queue.claim(
            engine, worker, 16, device="cpu", provenance=provenance, **SETTINGS
        )

    def report(self, number: int, epoch: int, value: float, cut: bool = False) -> None:
        claim = next(each for each in self.claims if each.trial_number == number)
        report = EpochReport(
            claim.run_id,
            claim.token,
            epoch,
            value,
            metrics={"validation/fvu": value},
            checkpoint=f"{number}-{epoch}",
        )
        leases.report(self.engine, [report], lambda question: cut)

    def begin(self) -> None:
        """One half is cut at the first rung, three complete, three go on."""
        for number in range(12):
            self.report(number, 1, 0.5 + 0.01 * number, cut=number >= 6)
        for number in range(3):
            self.report(number, 2, 0.4 + 0.01 * number)
            self.report(number, 3, 0.3 + 0.01 * number)


@pytest.fixture(scope="module")
def watched(module_engine: Engine) -> Watched:
    found = Watched(module_engine, "watched")
    found.begin()
    return found


_FETCHED = """
performance.getEntriesByType("resource").filter(({name}) => name.includes("/data/studies/"))
    .map(({initiatorType}) => initiatorType)
"""


def test_the_page_has_the_numbers_of_the_database_and_follows_them(
    dashboard: Served,
    watched: Watched,
    viewer: Viewer,
    axe: Callable[[Page], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(studies, "_SHARE", 0)  # new things are shown at once, at any price
    page = viewer.open(f"{dashboard.url}/studies/watched")
    for name in ("history", "ladder", "timeline"):
        drawn(page, name)
    assert page.locator("h1").inner_text().split() == ["watched", "running"]
    assert page.locator("#verdict").inner_text() == (
        "Best: trial 0 with fvu 0.3000, better than predicting the mean and PCA to 16 numbers"
    )
    assert "3 running, 3 complete, 6 pruned" in page.locator("#facts").inner_text()
    assert "trials: 12 of 12" in page.locator("#budgets").inner_text()
    said = page.locator("#ladder .says").inner_text()
    assert said.startswith(
        "Of 12 trials at the first rung the rungs cut 6; 3 completed the short run."
    )
    points = page.evaluate(
        "document.querySelector('#history .plot').data.filter(t => t.mode === 'markers')"
        ".flatMap(t => t.y).length"
    )
    assert points == 12
    assert "No full run is complete yet" in page.locator("#short-and-full").inner_text()
    axe(page)
    before = page.locator("#study").get_attribute("data-version")
    watched.report(3, 2, 0.2)
    watched.report(3, 3, 0.1)
    page.wait_for_function(
        "before => document.getElementById('study').dataset.version !== before", arg=before
    )
    page.get_by_text("Best: trial 3 with fvu 0.1000").wait_for()
    with watched.engine.connect() as connection:
        counts = connection.execute(_COUNTS, {"id": watched.study.id}).one()
    shown = page.locator("#facts dd:not(.note)").all_inner_texts()
    assert shown[:2] == [str(count) for count in counts]


_COUNTS = text("""
    SELECT (SELECT count(*) FROM cubeopt.trials WHERE study_id = :id),
        (SELECT count(*) FROM cubeopt.epochs epoch JOIN cubeopt.runs run ON run.id = epoch.run_id
         WHERE run.study_id = :id)
""")


def test_it_is_used_on_a_phone_and_by_keyboard_and_shows_markup_as_text(
    dashboard: Served, module_engine: Engine, viewer: Viewer, axe: Callable[[Page], None]
) -> None:
    name = f"evil {EVIL}"
    Watched(module_engine, name).begin()
    page = viewer.open(f"{dashboard.url}/studies/{quote(name, safe='')}", 390, color_scheme="dark")
    drawn(page, "timeline")
    assert page.evaluate(_FETCHED) == ["link"]  # beside the scripts, and by them not again
    assert page.locator("h1").inner_text().startswith(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#values summary").focus()
    page.keyboard.press("Enter")
    page.get_by_text(EVIL, exact=True).wait_for()
    assert page.evaluate("window.evil") is None
    axe(page)


def test_what_is_downloaded_is_a_file_and_trains_again(dashboard: Served, watched: Watched) -> None:
    found = dashboard.ask("/studies/watched/best.yaml?trial=1")
    assert found.headers["content-disposition"] == "attachment; filename*=UTF-8''watched-best.yaml"
    content = yaml.safe_load(found.text)
    assert (content["provenance"]["trial"], content["provenance"]["value"]) == (1, 0.31)
    report = dashboard.ask("/studies/watched/report.html")
    assert report.headers["content-disposition"].startswith("attachment;")
    assert "<h1>Study watched</h1>" in report.text
    assert dashboard.ask("/studies/watched/best.yaml?trial=x").status == 400
    assert dashboard.ask("/studies/nobody").status == 404
    assert "no study named" in dashboard.ask("/data/studies/nobody").json["reason"]


def test_what_the_page_has_is_not_sent_again_nor_made_again(
    dashboard: Served, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dashboard.ask("/data/studies/watched").json
    monkeypatch.setattr(studies.material, "load", None)
    again = dashboard.ask(f"/data/studies/watched?since={quote(first['version'])}").json
    assert again == {"version": first["version"], "again": first["again"]}
    assert dashboard.ask("/data/studies/watched").json == first
    packed = gzip.compress(json.dumps(first).encode())
    assert len(packed) < 100_000


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The studies that were read for a report, from now on."""
    begun, read = list[str](), study_page.read

    def counted(engine: Any, name: str) -> Report:
        begun.append(name)
        return read(engine, name)

    monkeypatch.setattr(study_page, "read", counted)
    return begun


def test_two_who_click_get_one_report_and_a_later_one_its_own(
    dashboard: Served, watched: Watched, readings: list[str]
) -> None:
    async def asked() -> tuple[str, ...]:
        press = Press(dashboard.context, Analyst(dashboard.context.settings))
        left = asyncio.create_task(press.page("watched", "1"))
        await asyncio.sleep(0)
        left.cancel()  # closes the page; the other waits on
        pages = await asyncio.gather(
            press.page("watched", "1"), press.page("watched", "1"), press.page("watched", "2")
        )
        assert left.cancelled()
        assert press.making == []
        return (*pages, await press.page("watched", "2"))

    one, same, later, last = run(asked)
    assert one is same
    assert readings == ["watched"] * 3
    for page in (one, later, last):
        assert "<h1>Study watched</h1>" in page


def test_a_report_that_fails_does_so_for_all_who_wait_and_is_tried_again(
    dashboard: Served, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(engine: Any, name: str) -> Report:
        raise StudyError(f"{name} fails")

    async def asked(press: Press) -> list[Any]:
        both = (press.page("watched", "1"), press.page("watched", "1"))
        return await asyncio.gather(*both, return_exceptions=True)

    async def twice() -> None:
        press = Press(dashboard.context, Analyst(dashboard.context.settings))
        with monkeypatch.context() as patched:
            patched.setattr(study_page, "read", fail)
            assert [str(each) for each in await asked(press)] == ["watched fails"] * 2
        assert all("<h1>Study watched</h1>" in page for page in await asked(press))

    run(twice)


def test_all_else_is_answered_while_a_report_is_made(
    dashboard: Served, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, read = threading.Event(), threading.Event(), study_page.read

    def held(engine: Any, name: str) -> Report:
        begun.set()
        assert may_end.wait(60)
        return read(engine, name)

    monkeypatch.setattr(study_page, "read", held)
    with ThreadPoolExecutor(1) as apart:
        report = apart.submit(dashboard.ask, "/studies/watched/report.html")
        try:
            assert begun.wait(60)
            assert dashboard.ask("/healthz").status == 200
            assert dashboard.ask("/data/studies/watched").json["name"] == "watched"
            assert not report.done()
        finally:
            may_end.set()
        assert report.result().status == 200
    assert dashboard.ask("/studies/nobody/report.html").status == 404


class _Slow:
    """An analyst that says how far it is, and then what it came to."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def ask(self, folder: Path) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_who_waits_too_long_is_told_so_and_a_failure_is_said(
    dashboard: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_LOOKS", 0.0)
    monkeypatch.setattr(study_page, "winners_checkpoint", lambda *given: Path("there"))

    def looked(*answers: Answer) -> Cube:
        press = Press(dashboard.context, cast(Analyst, _Slow(*answers)))
        return run(lambda: press._cube(cast(Report, None)))

    works = Answer(says="flow", share=0.404)
    failed = looked(works, works, Answer(error="the checkpoint there is damaged"))
    assert failed.reason == "It cannot be looked into here: the checkpoint there is damaged."
    found = cast(Any, object())
    assert looked(works, Answer(found=found)).found is found
    monkeypatch.setattr(reports, "_PATIENCE", 0.0)
    late = looked(works)
    assert late.found is None
    assert late.reason == (
        "It is being looked into (flow, 40%), which takes longer than a download may wait. "
        "Download the report again in a minute: the work goes on meanwhile."
    )
