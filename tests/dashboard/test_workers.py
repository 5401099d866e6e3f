"""The page of workers: who works on what, and what went wrong."""

from collections.abc import Callable

from playwright.sync_api import Page
from sqlalchemy import Engine, text

from cubeopt.db import attempts, queue
from cubeopt.db.tables import EndClass

from ..db.conftest import DEVICE, Hands, lease
from .conftest import Served, Viewer

ODD = '<script>alert("x")</script>'


def test_workers_have_what_they_hold_and_how_it_went(
    module_engine: Engine, dashboard: Served, viewer: Viewer, axe: Callable[[Page], None]
) -> None:
    page = viewer.open(f"{dashboard.url}/workers")
    page.get_by_text("No worker lives").wait_for()
    page.wait_for_function("() => document.getElementById('live').textContent === 'live'")
    axe(page)
    hands = Hands(module_engine, queue.register(module_engine, ODD, "lab", 7, DEVICE, {}))
    old = queue.register(module_engine, "old", "lab", 8, DEVICE, {})
    silent = queue.register(module_engine, "silent", "lab", 9, DEVICE, {})
    queue.retire(module_engine, old)
    with module_engine.begin() as connection:
        past = "UPDATE cubeopt.workers SET heartbeat_at = now() - interval '95 s' WHERE id = :id"
        connection.execute(text(past), {"id": silent})
    hands.enqueue(hands.study("one"), range(6))
    first, second, third, fourth = hands.claim(4)
    hands.report([first, second], 3, metrics={"samples_per_second": 21.25})
    hands.complete(third)
    attempts.fail(module_engine, lease(fourth), EndClass.OUT_OF_MEMORY, "full", 0)
    card = page.locator("article", has=page.get_by_role("heading", name=ODD))
    card.get_by_text("Pack of 8, 2 used").wait_for()
    assert card.locator("li").count() == 2
    assert card.locator("li").first.inner_text().startswith("one, trial 0: epoch 3/5")
    assert card.locator("[data-fact=slots]").inner_text() == "2 of 8"
    facts = {
        fact: page.locator(f"#now > .facts [data-fact={fact}]").inner_text()
        for fact in ("workers", "runs", "slots", "samples")
    }
    assert facts == {"workers": "2", "runs": "2", "slots": "2 of 8", "samples": "42.5"}
    row = page.locator("tr[data-study='one']").inner_text().split()
    assert row == ["one", "2", "0", "1", "0", "0"]  # ended; error, out of memory, diverged, lost
    page.get_by_text("has been silent for 1 min").wait_for()
    page.get_by_role("heading", name="Gone: 1 worker").wait_for()
    link = card.get_by_role("link", name="one, trial 0")
    link.focus()
    hands.report(first, 4, metrics={"samples_per_second": 21.25})
    card.get_by_text("epoch 4/5").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "one, trial 0"
    axe(page)
