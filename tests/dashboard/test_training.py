"""The page of trainings: planted cases shown as what they are, found by keyboard, in any width."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine, text

from cubeopt.dashboard import training as pages
from cubeopt.db import queue, records
from cubeopt.training.diagnosis import Kind

from ..db.conftest import DEVICE, Hands
from ..report.test_training import EPOCHS, PLANTED, healthy
from .conftest import Served, Viewer

ODD = '<script>alert("x")</script>'
NUMBERS = {kind: number for number, kind in enumerate(PLANTED, 1)}  # trial 0 is healthy
WIDE = {"preferred_width": 16, "max_width": 16}
Axe = Callable[[Page], None]


def hands_of(engine: Engine, name: str) -> Hands:
    return Hands(engine, queue.register(engine, name, "lab", 1, DEVICE, {"torch": "0"}))


@pytest.fixture(scope="module")
def planted(module_engine: Engine, dashboard: Served) -> str:
    """The address of the page of a study: trial 0 is healthy and promoted, each other has one
    finding planted, and one more trains.
    """
    hands = hands_of(module_engine, ODD)
    study = hands.study("planted", rungs=(1, 2, 5))
    series = [healthy(), *(healthy(**changes) for changes, *_ in PLANTED.values()), healthy()]
    hands.enqueue(study, range(len(series)), target=EPOCHS)
    claims = hands.claim(len(series), **WIDE)
    for nth, (claim, each) in enumerate(zip(claims, series, strict=True)):
        for epoch in range(EPOCHS if nth < len(series) - 1 else 3):
            metrics = {name: values[epoch] for name, values in each.items()}
            hands.report(claim, epoch + 1, metrics["validation/fvu"], metrics=metrics)
    queue.promote(module_engine, study.id, [0], 50)
    (full,) = hands.claim(1, **WIDE)
    for epoch in (13, 14):
        hands.report(full, epoch, 0.2, metrics={"validation/fvu": 0.2})
    return f"{dashboard.url}/studies/planted/training"


def ready(page: Page, chart: str = "objective-validation-fvu") -> None:
    page.wait_for_selector(f"#{chart} .js-plotly-plot")
    page.wait_for_function("() => document.getElementById('live').textContent === 'live'")


def chart(page: Page, id: str) -> Any:
    """The traces of a chart, as plotly has them."""
    page.locator(f"#{id}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#{id} .js-plotly-plot")
    script = """id => document.querySelector(`#${id} .plot`).data
        .map(each => [each.name, [...each.x], [...each.y]])"""
    return page.evaluate(script, id)


def test_every_finding_is_marked_and_said(planted: str, viewer: Viewer, axe: Axe) -> None:
    page = viewer.open(f"{planted}?runs={','.join(map(str, NUMBERS.values()))}")
    ready(page)
    for kind, number in NUMBERS.items():
        _, panel, subject, (first, last) = PLANTED[kind]
        if kind is Kind.DEAD_EXPERT:
            panel = f"usage-{number - 1}"
        epochs = f"epochs {first} to {last}"
        where = f" ({subject})" if subject else ""
        said = page.locator(f"li[data-kind='{kind}']", has_text=f"trial {number}: ")
        assert f"trial {number}: {kind}{where}, {epochs}." in said.inner_text()
        mark = said.locator(".mark").inner_text()
        page.locator(f"#{panel}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{panel} .js-plotly-plot")
        flags = page.locator(f"#{panel} .annotation-text").all_text_contents()
        assert any(flag == mark or flag.startswith(f"{mark} ") for flag in flags), (kind, flags)
    axe(page)


def test_a_healthy_training_is_called_so_and_its_promotion_is_marked(
    planted: str, viewer: Viewer
) -> None:
    page = viewer.open(f"{planted}?runs=0")
    ready(page)
    assert page.locator(".findings li").count() == 0
    page.get_by_text("No sign of divergence").wait_for()
    (objective, *baselines) = chart(page, "objective-validation-fvu")
    assert objective[1] == list(range(1, EPOCHS + 3))
    assert objective[2][-2:] == [0.2, 0.2]
    assert [name for name, *_ in baselines] == ["predict the mean", "PCA with 16 components"]
    assert page.locator("#objective-validation-fvu .annotation-text").all_text_contents() == [
        "promoted",
        "predict the mean",
        "PCA with 16 components",
    ]
    usage = chart(page, "usage-0")
    assert [(name, ys[0]) for name, _, ys in usage] == [("local", 30), ("distant", 70)]


def test_trials_are_chosen_by_keyboard_in_a_narrow_window(
    planted: str, viewer: Viewer, axe: Axe
) -> None:
    page = viewer.open(planted, width=390, height=844)
    ready(page)
    # Nobody has chosen: those that train now.
    names = page.locator("#chips li").all_inner_texts()
    assert names == ["trial 0", "trial 9"]
    assert ODD in page.locator("tr[data-track='9']").inner_text()  # shown, and not run
    page.locator("#choose").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'find'")
    page.wait_for_function("() => document.querySelectorAll('#options li').length === 10")
    page.keyboard.type("4")
    page.wait_for_function("() => document.querySelectorAll('#options li').length === 1")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search === '?runs=4'")
    page.wait_for_selector("#chips li[data-key='4'] button")
    page.keyboard.press("Backspace")
    page.wait_for_function("() => document.querySelectorAll('#options li').length === 10")
    assert page.locator("#found").inner_text() == (
        "10: those that are trained now first, then the best by fvu"
    )
    axe(page)
    page.locator("#options input[value='0']").focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => location.search === '?runs=4,0'")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.id === 'choose'")
    page.wait_for_selector("#chips li[data-key='0'] button")
    page.locator("#chips li[data-key='4'] button").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search === '?runs=0'")
    page.wait_for_function("() => document.querySelectorAll('#chips li').length === 1")
    page.locator("#follow").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search === ''")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_losses_turn_weighted_and_stay_so(planted: str, viewer: Viewer) -> None:
    page = viewer.open(f"{planted}?runs=1,2")
    ready(page)
    page.get_by_role("button", name="weighted").click()
    page.wait_for_selector("#losses-train-weighted-reconstruction")
    assert page.url.endswith("?runs=1,2&losses=weighted")
    names = [name for name, *_ in chart(page, "losses-train-weighted-reconstruction")]
    assert names == ["trial 1", "trial 2"]
    page.reload()
    ready(page)
    assert page.locator("#losses-train-weighted-reconstruction").count() == 1
    assert page.locator("#losses-train-weighted-ponder").count() == 0


def test_what_is_not_there_is_said_and_bad_input_is_one_line(
    planted: str, dashboard: Served, viewer: Viewer
) -> None:
    page = viewer.open(f"{planted}?runs=0,77,2f")
    ready(page)
    warnings = page.locator(".warning").all_inner_texts()
    assert warnings[0] == "there is no trial 77 in this study."
    assert warnings[1].startswith("trial 2, full run: there is no such run")
    for query, reason in (
        ("runs=x", "runs names 'x'; a run is a trial's number"),
        (f"runs={','.join(map(str, range(13)))}", "runs names 13 of them; at most 12"),
        ("losses=heavy", "losses is 'heavy'; it can be plain or weighted"),
    ):
        answer = dashboard.ask(f"/data/studies/planted/training/charts?{query}")
        assert (answer.status, answer.json["reason"][: len(reason)]) == (400, reason)
    assert dashboard.ask("/studies/none/training").status == 404


def test_a_page_without_a_training_says_what_to_do(
    module_engine: Engine, dashboard: Served, viewer: Viewer, axe: Axe
) -> None:
    hands_of(module_engine, "idle").study("idle")
    page = viewer.open(f"{dashboard.url}/studies/idle/training")
    page.get_by_text("Start a worker with").wait_for()
    axe(page)


def test_data_are_every_number_of_every_epoch(
    planted: str, module_engine: Engine, dashboard: Served
) -> None:
    answer = dashboard.ask("/data/studies/planted/training?runs=0,5")
    tracks = {track["key"]: track for track in answer.json["tracks"]}
    study = records.study(module_engine, "planted")
    stored = records.epochs(module_engine, study.id)
    for key, track in tracks.items():
        own = {each.epoch: each.metrics for each in stored if each.trial_number == int(key)}
        assert track["epochs"] == sorted(own)
        for name, values in track["metrics"].items():
            assert values == [own[epoch].get(name) for epoch in track["epochs"]]
    assert answer.headers["cache-control"] == "no-store"


def test_one_drawing_serves_all_who_ask_for_the_same(
    module_engine: Engine, dashboard: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = hands_of(module_engine, "shared")
    hands.enqueue(hands.study("shared"), [0])
    (claim,) = hands.claim(1, study="shared")
    hands.report(claim, 1, 0.5, metrics={"validation/fvu": 0.5})
    drawn: list[str] = []
    load = pages.training.load

    def counted(engine: Engine, name: str, *given: Any) -> Any:
        drawn.append(name)
        return load(engine, name, *given)

    monkeypatch.setattr(pages.training, "load", counted)
    for asked in (1, 2):
        answers = [dashboard.ask("/data/studies/shared/training/charts") for _ in range(3)]
        assert len({answer.json["mark"] for answer in answers}) == 1
        assert drawn == ["shared"] * asked
        hands.report(claim, 1 + asked, 0.5, metrics={"validation/fvu": 0.5})


@pytest.fixture(scope="module")
def crowd(module_engine: Engine) -> None:
    """A study of 5,000 trials of ten epochs, each with as many numbers as a real one has."""
    study = hands_of(module_engine, "many").study("crowd")
    each = {f"train/gradient_norm/module{n}": 0.123456789 for n in range(20)} | healthy_numbers()
    with module_engine.begin() as connection:
        for statement in _CROWD:
            connection.execute(text(statement), {"study": study.id, "metrics": json.dumps(each)})


def healthy_numbers() -> dict[str, float | None]:
    return {name: values[0] for name, values in healthy().items()}


_CROWD = (
    """INSERT INTO cubeopt.trials (study_id, number, params)
    SELECT :study, number, '{"learning_rate": 0.001}' FROM generate_series(0, 4999) AS number""",
    """INSERT INTO cubeopt.runs (trial_id, study_id, kind, spec, pack_key, target_epochs, state,
        epoch, value, finished_at)
    SELECT id, :study, 'short', '{"seed": 0}', 'a', 10, 'complete', 10, 1 - number / 10000.0, now()
    FROM cubeopt.trials WHERE study_id = :study""",
    """INSERT INTO cubeopt.epochs (run_id, epoch, token, value, metrics)
    SELECT id, nth, 0, value, CAST(:metrics AS jsonb)
    FROM cubeopt.runs, generate_series(1, 10) AS nth WHERE study_id = :study""",
)


def test_a_study_of_5000_trials_is_as_quick_to_choose_from(
    crowd: None, dashboard: Served, viewer: Viewer
) -> None:
    page = viewer.open(f"{dashboard.url}/studies/crowd/training")
    sizes: list[int] = []
    page.on(
        "response",
        lambda answer: sizes.append(len(answer.body())) if "/data/" in answer.url else None,
    )
    ready(page)
    assert page.locator("#chips li").all_inner_texts() == ["trial 4999"]  # the best
    page.locator("#choose").click()
    page.get_by_text("the first 20 of 5,000").wait_for()
    page.locator("#find").fill("123")
    page.get_by_text("11: those that are trained now").wait_for()
    page.locator("#find").press("Enter")
    page.wait_for_selector("#chips li[data-key='123']")
    every = ",".join(map(str, range(0, 4800, 400)))
    page.goto(f"{dashboard.url}/studies/crowd/training?runs={every}")
    ready(page)
    assert page.locator("#chips li").count() == 12
    assert len(sizes) > 3
    assert max(sizes) < 1_000_000
