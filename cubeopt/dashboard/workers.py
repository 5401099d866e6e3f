"""The page of the workers: who works on what, how fast, and what went wrong."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context, events
from cubeopt.report import crew
from cubeopt.report.crew import Crew

_SECONDS = 2.0  # between two looks: workers beat less often
_STEP = 5.0  # seconds: silence is told anew when it has grown by so much


def routes() -> list[BaseRoute]:
    return [
        Route("/workers", _page),
        Route("/data/workers", _rows),
        Route("/data/workers/now", _now),
        Route("/events/workers", _events),
    ]


def _page(request: Request) -> Response:
    return context.page(request, "workers.html", crew=crew.load(context.of(request).engine))


def _rows(request: Request) -> Response:
    return context.data(crew.load(context.of(request).engine).as_json())


def _now(request: Request) -> Response:
    """The page's changing part."""
    found = crew.load(context.of(request).engine)
    return context.data(
        {"mark": _mark(found), "html": context.fragment("workers_now.html", crew=found)}
    )


async def _events(request: Request) -> Response:
    given = context.of(request)
    return given.watches.answer(
        request, "workers", lambda: _mark(crew.load(given.engine)), _SECONDS
    )


def _mark(found: Crew) -> str:
    """Changes with everything but the seconds that pass."""
    content = found.as_json()
    for row in [*content["live"], *content["gone"]]:
        row["silent_seconds"] = row["silent_seconds"] // _STEP if row["state"] == "silent" else 0
        for pack in row["packs"]:
            for run in pack["runs"]:
                run["lease_seconds"] = 0
    return events.digest(json.dumps(content))
