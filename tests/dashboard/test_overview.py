"""The first page: what it says equals the tables, and it says it anew when they change."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page
from sqlalchemy import text

from cubeopt.report import material

from .conftest import Served, Viewer, train

HOSTILE = "<script>alert(1)</script>\"'"


def test_it_begins_empty_and_shows_a_study_by_itself(
    dashboard: Served, tiny_dataset: Path, viewer: Viewer, axe: Callable[[Page], None]
) -> None:
    page = viewer.open(f"{dashboard.url}/", width=390)
    page.get_by_text("cubeopt study create studies/quickstart.yaml").wait_for()
    axe(page)
    record = train(dashboard, tiny_dataset, budget={"trials": 6, "epochs": 500})
    card = page.get_by_role("article", name="tiny")
    card.get_by_text("complete", exact=True).wait_for()
    found = material.load(dashboard.engine, "tiny")
    best = found.summary().best
    assert best is not None
    with dashboard.engine.connect() as connection:
        epochs = connection.execute(text("SELECT count(*) FROM cubeopt.epochs")).scalar_one()
    for said in (
        "6 of 6",
        f"fvu {best.value:.4f}",
        f"trial {best.trial}, full run",
        f"{record.baselines['pca']:.4f}",
        f"{epochs} of 500",
        "1 of 1 full runs ended",
        "just now",
    ):
        card.get_by_text(said).first.wait_for()
    (row,) = dashboard.ask("/data/overview").json
    assert (row["epochs"], row["best"], row["workers"]) == (epochs, best.value, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    axe(page)
    for name in ("Training", "Cube"):
        link = card.get_by_role("link", name=name).get_attribute("href")
        assert link == f"/studies/tiny/{name.lower()}"
    place = card.get_by_role("link", name="Optuna").get_attribute("href")
    assert place is not None
    study_id = place.rpartition("/")[2]
    assert dashboard.ask(f"/api/studies/{study_id}?after=0").json["name"] == "tiny"
    dark = viewer.open(f"{dashboard.url}/", color_scheme="dark")
    dark.get_by_role("article").first.wait_for()
    axe(dark)


def test_a_name_and_a_reason_with_markup_are_text(dashboard: Served, viewer: Viewer) -> None:
    with dashboard.engine.begin() as connection:
        connection.execute(
            text("UPDATE cubeopt.studies SET name = :bad, state_reason = :bad"), {"bad": HOSTILE}
        )
    page = viewer.open(f"{dashboard.url}/")
    assert page.get_by_role("heading", name=HOSTILE).inner_text() == HOSTILE
    with dashboard.engine.begin() as connection:
        connection.execute(text("UPDATE cubeopt.studies SET state_reason = 'and now this'"))
    page.get_by_text("and now this").wait_for()
    assert page.get_by_role("heading", name=HOSTILE).inner_text() == HOSTILE
    assert page.locator("main script").count() == 0
