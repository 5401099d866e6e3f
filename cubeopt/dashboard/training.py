"""The page of trainings: some trials of a study, epoch by epoch, as they are trained."""

import gzip
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context, events
from cubeopt.db import records, showcase, trainings
from cubeopt.db.engine import Engine
from cubeopt.db.trainings import Recorded
from cubeopt.errors import ConfigError
from cubeopt.report import multiples, multiples_page, training, training_figures
from cubeopt.report.training import Choice, Track, Trainings

_MOST_OPTIONS = 20  # that a person is shown at once: the others are found by their numbers
_LEVEL = 2  # of compression: half the time of 6, for a tenth more bytes
_KEPT = 32  # drawings that are not made again for the next viewer

_HERE = "/studies/{name}/training"


def routes() -> list[BaseRoute]:
    return [
        Route(_HERE, _page),
        Route(f"/data{_HERE}", _rows),
        Route(f"/data{_HERE}/charts", _charts),
        Route(f"/data{_HERE}/options", _options),
        Route(f"/events{_HERE}", _events),
    ]


def _page(request: Request) -> Response:
    engine = context.of(request).engine
    study = records.study(engine, request.path_params["name"])
    number = showcase.ids(engine).get(study.name)
    return context.page(request, "training.html", study=study, most=training.MOST, optuna_id=number)


def _rows(request: Request) -> Response:
    """Every number of every epoch, for scripts and notebooks."""
    engine, name, chosen = _asked(request)
    return context.data(training.load(engine, name, chosen).as_json())


def _charts(request: Request) -> Response:
    """What the page shows: its text as HTML, its charts as figures."""
    engine, name, chosen = _asked(request)
    weighted = _weighted(request)
    mark = _mark(engine, name, chosen)
    drawings = _drawings(request)
    drawing = drawings.drawing((name, tuple(chosen), weighted))
    with drawing.lock:  # viewers who ask for the same wait for one of them to make it
        if drawing.mark != mark:
            start = time.thread_time()
            shown = training.load(engine, name, chosen, drawings.recorded)
            found = _drawn(shown, weighted)
            cost = time.thread_time() - start
            content = context.data({"mark": mark, "cost": cost, **found}).body
            drawing.packed = gzip.compress(content, _LEVEL, mtime=0)
            drawing.mark = mark
        packed = drawing.packed
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        packed = gzip.decompress(packed)
    return Response(packed, headers=headers, media_type="application/json")


def _options(request: Request) -> Response:
    found = request.query_params.get("find", "").strip()
    name = request.path_params["name"]
    return context.data(training.options(context.of(request).engine, name, found, _MOST_OPTIONS))


async def _events(request: Request) -> Response:
    engine, name, chosen = _asked(request)
    await run_in_threadpool(records.study, engine, name)
    key = ("training", name, tuple(training.watched(chosen) or ()))
    watches = context.of(request).watches
    return watches.answer(request, key, lambda: _mark(engine, name, chosen))


def _asked(request: Request) -> tuple[Engine, str, list[Choice]]:
    chosen = training.parse(request.query_params.get("runs", ""))
    return context.of(request).engine, request.path_params["name"], chosen


def _weighted(request: Request) -> bool:
    losses = request.query_params.get("losses", "plain")
    if losses not in ("plain", "weighted"):
        raise ConfigError(f"losses is {losses!r}; it can be plain or weighted")
    return losses == "weighted"


def _mark(engine: Engine, name: str, chosen: Sequence[Choice]) -> str:
    return events.digest(trainings.mark(engine, name, training.watched(chosen)))


def _drawn(shown: Trainings, weighted: bool) -> dict[str, Any]:
    sections = training_figures.sections(shown, weighted)
    tracks = [_brief(nth, track) for nth, track in enumerate(shown.tracks)]
    panels = [panel for section in sections for panel in section.panels]
    figures = {panel.id: multiples_page.figure(panel) for panel in panels}
    return {
        "tracks": tracks,
        "html": context.fragment(
            "training_now.html",
            shown=shown,
            tracks=tracks,
            sections=sections,
            heights={name: figure["layout"]["height"] for name, figure in figures.items()},
            weighted=weighted,
        ),
        "panels": {
            panel.id: {
                "figure": figures[panel.id] if figures[panel.id]["data"] else None,
                "says": panel.lacks,
                "empty": panel.lacks,
            }
            for panel in panels
        },
    }


def _brief(nth: int, track: Track) -> dict[str, Any]:
    """A track without its epochs, with the colour that it is drawn in."""
    tint, dash = multiples.color(nth)
    found = {key: value for key, value in vars(track).items() if key not in ("metrics", "epochs")}
    signs = [asdict(sign) for sign in track.signs]
    return {**found, "signs": signs, "color": tint, "dash": dash}


class _Drawing:
    """What was drawn of one choice, and of which state of its runs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mark = ""
        self.packed = b""


class _Drawings:
    """The newest drawing of each of the last choices."""

    def __init__(self, engine: Engine) -> None:
        self.recorded = Recorded(engine)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, _Drawing] = OrderedDict()

    def drawing(self, key: Any) -> _Drawing:
        with self._lock:
            found = self._kept.setdefault(key, _Drawing())
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found


_MAKING = threading.Lock()


def _drawings(request: Request) -> _Drawings:
    with _MAKING:
        state = request.app.state
        if not hasattr(state, "drawings"):
            state.drawings = _Drawings(context.of(request).engine)
        drawings: _Drawings = state.drawings
        return drawings
