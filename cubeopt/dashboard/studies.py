"""The page of one study: what it found so far, kept current while it runs."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context
from cubeopt.dashboard.context import Chart
from cubeopt.db import records, showcase, stamps
from cubeopt.db.engine import Engine
from cubeopt.errors import InputError
from cubeopt.report import chart_page, headlines, material, study_page, winner
from cubeopt.report.study_page import Report
from cubeopt.search import configuration, objective

# Of a study that moves, no more than one part in so many of the time goes into its page.
_SHARE = 50
_KEPT = 8  # studies
_SOON, _LATER = 3.0, 30.0  # seconds between looks at one that runs, and at one that has ended
CHARTS = {  # name, which is its id on the page: title
    "history": "Results, trial by trial",
    "tradeoff": "Both objectives, and the front",
    "promotions": "Promoted trials and baselines",
    "ladder": "Rung ladder: who stayed, who was cut",
    "short-and-full": "Short against full runs",
    "importances": "Which searched values decide",
    "coordinates": "Parallel coordinates",
    "curves": "Learning curves",
    "timeline": "What ran where, over time",
}


def routes() -> list[BaseRoute]:
    return [
        Route("/studies/{name}", _page),
        Route("/studies/{name}/best.yaml", _best),
        Route("/data/studies/{name}", _data),
    ]


def _page(request: Request) -> Response:
    engine = context.of(request).engine
    study = records.study(engine, request.path_params["name"])
    number = showcase.ids(engine).get(study.name)
    charts = dict(CHARTS)
    if objective.goal_of(study.spec).objective.second is None:
        del charts["tradeoff"]
    return context.page(request, "study.html", study=study, charts=charts, optuna_id=number)


def _data(request: Request) -> Response:
    """Everything on the page; only the version where the page has that one already."""
    kept = _current(context.of(request).engine, request.path_params["name"])
    if request.query_params.get("since") == kept.version:
        return context.data({"version": kept.version, "again": kept.again})
    return context.data(kept.content)


def _best(request: Request) -> Response:
    """The winner's configuration, or with ?trial=N that trial's, as a file."""
    name = request.path_params["name"]
    found = material.load(context.of(request).engine, name)
    asked = request.query_params.get("trial")
    if asked is not None and not (asked.isascii() and asked.isdigit()):
        raise InputError(f"trial={asked!r}: expected the number of a trial")
    number, file = None if asked is None else int(asked), f"{name}-best.yaml"
    heading = winner.heading(name, number, file)
    return context.download(configuration.text(winner.exported(found, number), heading), file)


@dataclass(frozen=True)
class _Kept:
    """What was last found out of a study, and what that cost."""

    version: str
    content: dict[str, Any]
    again: float  # seconds after which a page may ask again
    fresh_until: float  # by the clock that only rises


_lock = threading.Lock()
_kept: WeakKeyDictionary[Engine, OrderedDict[str, _Kept]] = WeakKeyDictionary()


def _current(engine: Engine, name: str) -> _Kept:
    """What there is to show; made again only for a new version, and then not too often.

    One thread at a time makes any: many viewers of a large study cost no more than one.
    """
    version = stamps.stamp(engine, name) or records.study(engine, name).name  # or there is none
    with _lock:
        own = _kept.setdefault(engine, OrderedDict())
        last = own.get(name)
        if last is not None and (last.version == version or time.monotonic() < last.fresh_until):
            return last
        begun = time.thread_time()
        found = material.load(engine, name)
        whole = study_page.report(found)
        rest = _SHARE * (time.thread_time() - begun)
        again = max(_LATER if found.ended else _SOON, rest)
        content = {"version": version, "again": again, **_shown(whole)}
        own[name] = _Kept(version, content, again, time.monotonic() + rest)
        own.move_to_end(name)
        while len(own) > _KEPT:
            own.popitem(last=False)
        return own[name]


def _shown(whole: Report) -> dict[str, Any]:
    told = whole.protocol
    mood, verdict = headlines.verdict(told)
    tiles = headlines.tiles(told, whole.findings.short_and_full)
    return {
        "name": told.name,
        "state": told.state,
        "reason": told.state_reason,
        "written": told.written,
        "verdict": {"mood": mood, "sentence": verdict},
        "facts": [{"name": name, "value": value, "note": note} for name, value, note in tiles],
        "budgets": [vars(each) for each in told.budgets],
        "warnings": told.warnings,
        "trials": told.tried.trials,
        "metric": told.metric,
        "second": told.second,
        "winners": [vars(each) for each in told.winners],
        "no_winner": told.no_winner,
        "baselines": [vars(each) for each in told.baselines],
        "charts": {name: vars(_chart(whole, name)) for name in CHARTS if name in whole.charts},
    }


def _chart(whole: Report, name: str) -> Chart:
    """The chart as the page's scripts draw it."""
    chart = whole.charts[name]
    said = " ".join([chart.sentence, *(f"{note[:1].upper()}{note[1:]}." for note in chart.notes)])
    if chart.empty:
        return Chart(None, empty=chart.empty)
    return Chart(
        chart_page.drawing(chart), said, list(chart.columns), [list(row) for row in chart.rows]
    )
