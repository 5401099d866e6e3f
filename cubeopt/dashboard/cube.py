"""The page of a study's cubes: the cells in 3D and in layers, by step and by epoch."""

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context
from cubeopt.dashboard.analyst import Analyst
from cubeopt.db import showcase
from cubeopt.emergence.record import Emergence
from cubeopt.errors import InputError, UnknownNameError
from cubeopt.report import cube, cube_figures, cube_runs

_STARTING = threading.Lock()
_DOMINANT = "expert"


def routes() -> list[BaseRoute]:
    return [
        Route("/studies/{name}/cube", _page),
        Route("/data/studies/{name}/cube", _data),
    ]


def _page(request: Request) -> Response:
    given, name = context.of(request), request.path_params["name"]
    found = cube_runs.runs(given.engine, name)
    key = request.query_params.get("run") or (found.runs[0].key if found.runs else None)
    epochs: dict[int, Path] = {}
    if key is not None:
        epochs = cube_runs.epochs(given.engine, given.settings.checkpoints_dir, name, key)
    chosen = _epoch(request, epochs) if epochs else None
    if chosen is not None:
        analyst(request).ask(epochs[chosen])  # which begins while the browser reads its scripts
    return context.page(
        request,
        "cube.html",
        evals=True,
        found=found,
        key=key,
        epochs=list(epochs),
        chosen=chosen,
        optuna_id=showcase.ids(given.engine).get(name),
        folder=str(given.settings.checkpoints_dir / name),
    )


def _data(request: Request) -> Response:
    """The runs of the study; of a ``run`` its epochs; of an ``epoch`` of it the cube.

    While the cube is looked at the answer says how far that is: ask again. ``colour`` names one of
    the colourings of the cube, ``record`` asks for all that was found instead of figures, ``list``
    for the epochs alone.
    """
    given, name = context.of(request), request.path_params["name"]
    asked = request.query_params
    if "run" not in asked:
        return context.data(asdict(cube_runs.runs(given.engine, name)))
    epochs = cube_runs.epochs(given.engine, given.settings.checkpoints_dir, name, asked["run"])
    row: dict[str, Any] = {"run": asked["run"], "epochs": list(epochs)}
    if not epochs:
        where = given.settings.checkpoints_dir / name
        return context.data({**row, "state": "missing", "says": missing(str(where))})
    if "list" in asked:
        return context.data({**row, "state": "listed"})
    epoch = _epoch(request, epochs)
    answer = analyst(request).ask(epochs[epoch])
    row["epoch"] = epoch
    if answer.error is not None:
        return context.data({**row, "state": "failed", "says": answer.error})
    if answer.found is None:
        said = {"state": "working", "says": answer.says, "share": round(answer.share, 3)}
        return context.data(row | said)
    if "record" in asked:
        return context.data({**row, "state": "ready", "record": answer.found.as_json()})
    colour = asked.get("colour", _DOMINANT)
    return context.data({**row, "state": "ready", **_shown(answer.found, colour)})


def missing(folder: str) -> str:
    """That no checkpoint is here, and what to do."""
    return (
        f"The checkpoints of this run are not on this machine: they should be in {folder}. Start "
        "the dashboard with CUBEOPT_HOME set to the storage folder of the workers."
    )


def _shown(found: Emergence, colour: str) -> dict[str, Any]:
    try:
        player = cube_figures.player(found, [colour])
    except KeyError:
        known = ", ".join(each.key for each in cube.colourings(found))
        raise UnknownNameError(f"no colouring {colour!r} of this cube; there are {known}") from None
    return {
        "player": player,
        "facts": cube.facts(found),
        "steps": cube.step_rows(found),
        "findings": [asdict(each) for each in found.findings],
    }


def _epoch(request: Request, epochs: dict[int, Path]) -> int:
    """The epoch asked for, else the newest that is here."""
    asked = request.query_params.get("epoch")
    if asked is None:
        return max(epochs)
    if not (asked.isascii() and asked.isdigit()):
        raise InputError(f"epoch must be a whole number, got {asked!r}")
    if int(asked) not in epochs:
        there = ", ".join(map(str, epochs))
        raise UnknownNameError(f"no checkpoint of epoch {asked} of this run is here, only {there}")
    return int(asked)


def analyst(request: Request) -> Analyst:
    """The server's own, made when the first asks."""
    state = request.app.state
    with _STARTING:
        if not hasattr(state, "analyst"):
            state.analyst = Analyst(context.of(request).settings)
    found: Analyst = state.analyst
    return found
