"""Optuna's own dashboard over the same PostgreSQL, for looking and for notes.

A study and its trials belong to the queue. What the dashboard could change in Optuna's tables alone
(rename or delete a study, end a trial) would tear the two apart, so such requests are refused.
"""

import json
import logging
import sys
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

import optuna_dashboard
from optuna.storages import RDBStorage

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def app(storage: RDBStorage) -> "WSGIApplication":
    """The dashboard of the studies in *storage*."""
    logging.getLogger(optuna_dashboard.__name__ + "._bottle_util").addFilter(_in_a_line)
    dashboard = optuna_dashboard.wsgi(storage)

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if _allowed(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            answer: Iterable[bytes] = dashboard(environ, start_response)
            return answer
        return _refusal(start_response)

    return guarded


def _in_a_line(record: logging.LogRecord) -> bool:
    """What the dashboard logs of a request that failed, without its traceback."""
    error = sys.exc_info()[1]
    cause = error.__cause__ or error if error else None
    said = str(getattr(cause, "orig", None) or cause or record.getMessage())
    record.msg, record.args = "a request could not be answered: %s", (said.strip().split("\n")[0],)
    return True


def _allowed(method: str, path: str) -> bool:
    return method in ("GET", "HEAD") or (method == "PUT" and path.rstrip("/").endswith("/note"))


def _refusal(start_response: "StartResponse") -> Iterable[bytes]:
    reason = "cubeopt's studies and trials cannot be changed here; see 'cubeopt study --help'."
    status = HTTPStatus.FORBIDDEN
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]
