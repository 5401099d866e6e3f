"""Optuna's dashboard over the same PostgreSQL, for looking and for notes.

A study and its trials belong to the queue. What the dashboard could change in Optuna's tables alone
(rename or delete a study, end a trial) would tear the two apart, so such requests are refused.
"""

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from types import FrameType
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.storages import RDBStorage

from cubeopt.db import engine
from cubeopt.errors import CubeoptError
from cubeopt.search import mirror

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)


def app(storage: RDBStorage) -> "WSGIApplication":
    """The dashboard of the studies in *storage*."""
    dashboard = optuna_dashboard.wsgi(storage)

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if _allowed(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            answer: Iterable[bytes] = dashboard(environ, start_response)
            return answer
        return _refusal(start_response)

    return guarded


def serve(optuna_url: str, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM; *ready* is given its address.

    Optuna's tables are made if they are not there. Belongs to the main thread, which alone receives
    signals. Port 0 is any free port.
    """
    with engine.translated("Optuna's tables"), mirror.translated():
        storage = mirror.open_storage(optuna_url)
    logging.getLogger(optuna_dashboard.__name__ + "._bottle_util").addFilter(_in_a_line)
    try:
        _serve(_listening(app(storage), host, port), host, ready)
    finally:
        storage.engine.dispose()


def _listening(served: "WSGIApplication", host: str, port: int) -> "_Server":
    try:
        return make_server(host, port, served, server_class=_Server, handler_class=_Handler)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CubeoptError(
            f"cannot serve the dashboard on {host}:{port}: {reason}; choose another with --port"
        ) from error


def _serve(server: "_Server", host: str, ready: Callable[[str], None]) -> None:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with server:
            ready(f"http://{host}:{server.server_port}/")
            server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        logger.info("the dashboard stops")
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_a_line(record: logging.LogRecord) -> bool:
    """What the dashboard logs of a request that failed, without its traceback."""
    error = sys.exc_info()[1]
    cause = error.__cause__ or error if error else None
    said = str(getattr(cause, "orig", None) or cause or record.getMessage())
    record.msg, record.args = "a request could not be answered: %s", (said.strip().split("\n")[0],)
    return True


def _allowed(method: str, path: str) -> bool:
    return method in ("GET", "HEAD") or path.rstrip("/").endswith("/note")


def _refusal(start_response: "StartResponse") -> Iterable[bytes]:
    reason = "cubeopt's studies and trials cannot be changed here; see 'cubeopt study --help'."
    status = HTTPStatus.FORBIDDEN
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request, since a browser asks for many things at once."""

    daemon_threads = True
    request_queue_size = 64


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
