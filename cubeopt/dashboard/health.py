"""For machines that watch machines: does the process live, can it answer?"""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context
from cubeopt.db import engine
from cubeopt.errors import StorageError


def routes() -> list[BaseRoute]:
    return [Route("/healthz", _lives), Route("/readyz", _ready)]


async def _lives(request: Request) -> Response:
    """Not in a thread: it answers also when all of them wait for the database."""
    return PlainTextResponse("ok\n")


def _ready(request: Request) -> Response:
    try:
        engine.check(context.of(request).engine)
    except StorageError as error:
        return PlainTextResponse(f"{error}\n", HTTPStatus.SERVICE_UNAVAILABLE)
    return PlainTextResponse("ok\n")
