"""What every page is given: the storage, where files lie, and how HTML and JSON are made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cubeopt.dashboard import assets, headers, wording
from cubeopt.dashboard.door import Door
from cubeopt.dashboard.events import Watches
from cubeopt.db.engine import Engine
from cubeopt.settings import Settings


@dataclass(frozen=True)
class Context:
    """One for the whole server."""

    engine: Engine
    settings: Settings
    door: Door = field(default_factory=Door)
    watches: Watches = field(default_factory=Watches)


@dataclass(frozen=True)
class Chart:
    """What `assets/charts.js` draws: a figure of plotly and the same facts in words."""

    figure: Mapping[str, Any] | None  # as plotly's to_plotly_json; None: there is nothing to draw
    says: str = ""  # one sentence or two, for who cannot see the figure
    columns: Sequence[str] = ()  # of the table below the figure
    rows: Sequence[Sequence[Any]] = ()
    empty: str = ""  # without a figure: why, and what to do


def of(request: Request) -> Context:
    """The context of the server that answers *request*."""
    context: Context = request.app.state.context
    return context


def page(
    request: Request, template: str, status: int = 200, evals: bool = False, **values: Any
) -> HTMLResponse:
    """A page from `templates/`; everything in *values* is escaped.

    One that draws in 3D *evals*: its scripts may compile others.
    """
    values |= {"request": request, "guarded": of(request).door.token is not None}
    policy = headers.POLICY_WITH_EVAL if evals else headers.POLICY
    return HTMLResponse(
        _TEMPLATES.get_template(template).render(values),
        status,
        {"Content-Security-Policy": policy, "Cache-Control": "no-store"},
    )


def fragment(template: str, **values: Any) -> str:
    """A part of a page, that a script puts in its place; everything in *values* is escaped."""
    return _TEMPLATES.get_template(template).render(values)


def data(content: Any, status: int = 200) -> Response:
    """*content* as JSON; NaN and infinity have no place in it."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, {"Cache-Control": "no-store"}, media_type="application/json")


def download(content: str, name: str) -> Response:
    """A file to be saved, and not shown here, where its scripts may not run."""
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Cache-Control": "no-store",
    }
    kind = "text/html" if name.endswith(".html") else "application/yaml"
    return Response(content, headers=headers, media_type=kind)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("cubeopt.dashboard"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["asset"] = assets.address
_TEMPLATES.globals |= {
    each.__name__: each for each in (wording.number, wording.seconds, wording.moment)
}
