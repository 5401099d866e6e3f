"""All routes under one roof: our pages, their data, and Optuna's dashboard for the rest."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from a2wsgi import WSGIMiddleware
from optuna.storages import RDBStorage
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from cubeopt.dashboard import (
    assets,
    context,
    cube,
    health,
    login,
    metrics,
    optuna_pages,
    overview,
    reports,
    studies,
    training,
    workers,
)
from cubeopt.dashboard.context import Context
from cubeopt.dashboard.gate import Gate
from cubeopt.dashboard.headers import Headers
from cubeopt.errors import CubeoptError, InputError, StorageError, UnknownNameError

logger = logging.getLogger(__name__)

# Each page is a module with `routes()`: its HTML, and its data below /data or /events.
PAGES: tuple[Callable[[], list[BaseRoute]], ...] = (
    assets.routes,
    health.routes,
    login.routes,
    overview.routes,
    cube.routes,
    metrics.routes,
    reports.routes,
    studies.routes,
    training.routes,
    workers.routes,
)


def build(given: Context, storage: RDBStorage) -> ASGIApp:
    """The whole application over *given*, with Optuna's tables in *storage*."""
    app = Starlette(
        routes=[
            *(route for page in PAGES for route in page()),
            Mount("/", WSGIMiddleware(optuna_pages.app(storage, given.engine))),  # type: ignore[arg-type]
        ],
        middleware=[
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6),
            Middleware(Gate, door=given.door),
        ],
        exception_handlers={HTTPException: _refused, CubeoptError: _failed, Exception: _broken},
    )
    app.state.context = given
    return Headers(app)  # around it all: what has failed is an answer, too


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(request, error.status_code, error.detail)


def _failed(request: Request, error: Exception) -> Response:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, UnknownNameError):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, InputError):
        status = HTTPStatus.BAD_REQUEST
    elif isinstance(error, StorageError):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("%s could not be answered: %s", request.url.path, error)
    return _said(request, status, str(error))


def _broken(request: Request, error: Exception) -> Response:
    logger.error("%s has failed", request.url.path, exc_info=error)
    return _said(request, HTTPStatus.INTERNAL_SERVER_ERROR, "this page has failed; see the log")


def _said(request: Request, status: int, reason: str) -> Response:
    """*reason* as JSON to a script, as a page to a person."""
    if request.url.path.startswith(("/data/", "/events/", "/assets/", "/metrics")):
        return context.data({"reason": reason}, status)
    title = HTTPStatus(status).phrase
    return context.page(request, "error.html", status, title=title, reason=reason)
