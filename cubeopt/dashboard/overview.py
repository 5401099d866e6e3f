"""The first page: all studies, how far they are, who works."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context
from cubeopt.report import overview


def routes() -> list[BaseRoute]:
    return [Route("/", _page), Route("/data/overview", _data)]


def _page(request: Request) -> Response:
    return context.page(request, "overview.html", rows=overview.rows(context.of(request).engine))


def _data(request: Request) -> Response:
    return context.data(overview.rows(context.of(request).engine))
