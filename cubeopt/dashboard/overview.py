"""The first page: all studies, how far they are, what is best, who works."""

from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context
from cubeopt.db import showcase
from cubeopt.db.engine import Engine
from cubeopt.report.overview import Overview
from cubeopt.report.summary import Row

_OVERVIEWS: WeakKeyDictionary[Engine, Overview] = WeakKeyDictionary()


def routes() -> list[BaseRoute]:
    return [Route("/", _page), Route("/overview", _now), Route("/data/overview", _data)]


def _page(request: Request) -> Response:
    return context.page(request, "overview.html", cards=_cards(request))


def _now(request: Request) -> Response:
    """What of the page changes, for its script."""
    return context.page(request, "overview_now.html", cards=_cards(request))


def _data(request: Request) -> Response:
    return context.data(_rows(request))


def _rows(request: Request) -> list[Row]:
    engine = context.of(request).engine
    return _OVERVIEWS.setdefault(engine, Overview(engine)).rows()


def _cards(request: Request) -> list[dict[str, Any]]:
    optuna = showcase.ids(context.of(request).engine)
    return [{**row, **_told(row), "optuna": optuna.get(row["name"])} for row in _rows(request)]


def _told(row: Row) -> dict[str, Any]:
    """What a person reads instead of the numbers of *row*."""
    trials = row["trials"]
    ended = trials["complete"] + trials["pruned"] + trials["failed"]
    planned = row["budget"]
    return {
        "ended": ended,
        "asked": planned,
        "states": ", ".join(f"{count:,} {state}" for state, count in trials.items() if count),
        "result": _result(row),
        "spent": [
            (each["name"].replace("_", " "), f"{each['used']:.4g} of {each['limit']:.4g}")
            for each in row["budgets"]
            if each["name"] != "trials"
        ],
    }


def _result(row: Row) -> tuple[str, str]:
    """What is best, and which trial it is."""
    if row["front"]:
        return f"{row['front']} on the front", f"of {row['metric']} and {row['second']}"
    if row["best"] is None:
        return "none yet", f"of {row['metric']}"
    return (
        f"{row['metric']} {row['best']:.4f}",
        f"trial {row['best_trial']}, {row['best_kind']} run",
    )
