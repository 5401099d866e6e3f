"""The first page."""

from collections.abc import Callable

from playwright.sync_api import Page

from .conftest import Served, Viewer


def test_without_a_study_it_says_how_to_make_one(
    dashboard: Served, viewer: Viewer, axe: Callable[[Page], None]
) -> None:
    page = viewer.open(f"{dashboard.url}/")
    page.get_by_text("cubeopt study create studies/quickstart.yaml").wait_for()
    axe(page)
