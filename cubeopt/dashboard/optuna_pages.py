"""Optuna's own dashboard over the same PostgreSQL, for looking and for notes.

A study and its trials belong to the queue. What the dashboard could change in Optuna's tables alone
(rename or delete a study, end a trial) would tear the two apart, so such requests are refused.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from http import HTTPStatus
from io import StringIO
from typing import TYPE_CHECKING, Any

import optuna_dashboard
from optuna.storages import RDBStorage

from cubeopt.dashboard.gallery import PLOTS, Gallery, Shelf
from cubeopt.dashboard.overlay import Overlay
from cubeopt.db.engine import Engine

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

_NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")
_OF_A_STUDY = re.compile(r"/dashboard/studies/(\d+)(/.*)?")
# What such a page asks for once its script runs: fetched beside the script, not after it.
_AHEAD = "</api/studies/{}?after=0>; rel=preload; as=fetch; crossorigin=anonymous"
_STUDY = re.compile(r"/api/studies/\d+")
_LISTED = b'"plotly_graph_objects": '


def app(tables: RDBStorage, engine: Engine) -> "WSGIApplication":
    """The dashboard of the studies in Optuna's *tables*, adorned from ours in *engine*."""
    logging.getLogger(optuna_dashboard.__name__ + "._bottle_util").addFilter(_in_a_line)
    gallery = Gallery(engine)
    dashboard = optuna_dashboard.wsgi(Overlay(tables, gallery), Shelf(gallery))

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _allowed(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            return _refusal(start_response)
        environ["wsgi.errors"] = StringIO()
        if page := _OF_A_STUDY.fullmatch(environ["PATH_INFO"]):
            start_response = _with_header(start_response, "Link", _AHEAD.format(page[1]))
        answer: Iterable[bytes] = dashboard(environ, start_response)
        if said := environ["wsgi.errors"].getvalue().strip():
            logger.error("a request could not be answered: %s", said.splitlines()[-1])
        if environ["REQUEST_METHOD"] == "GET" and _STUDY.fullmatch(environ["PATH_INFO"]):
            answer = [ordered(b"".join(answer))]
        return answer

    return guarded


def _with_header(start_response: "StartResponse", name: str, value: str) -> "StartResponse":
    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        return start_response(status, [*headers, (name, value)], *error)

    return start


def ordered(study: bytes) -> bytes:
    """Optuna's JSON of a *study* with the plots in the order of the gallery, others behind them.

    Optuna lists them as a set of names comes, in another order in each process. The answer stays as
    long as it was: they are written again as Optuna wrote them, and nothing else is.
    """
    head, listed, tail = study.rpartition(_LISTED)
    if not listed:
        return study
    plots, end = json.JSONDecoder().raw_decode(tail.decode())
    known = {name: place for place, name in enumerate(PLOTS)}
    plots.sort(key=lambda plot: (known.get(plot["id"], len(known)), plot["id"]))
    return head + listed + json.dumps(plots).encode() + tail[end:]


def _in_a_line(record: logging.LogRecord) -> bool:
    """What the dashboard logs of a request that failed, without its traceback."""
    error = sys.exc_info()[1]
    cause = error.__cause__ or error if error else None
    said = str(getattr(cause, "orig", None) or cause or record.getMessage())
    record.msg, record.args = "a request could not be answered: %s", (said.strip().split("\n")[0],)
    return True


def _allowed(method: str, path: str) -> bool:
    return method in ("GET", "HEAD") or (method == "PUT" and _NOTE.fullmatch(path) is not None)


def _refusal(start_response: "StartResponse") -> Iterable[bytes]:
    reason = "cubeopt's studies and trials cannot be changed here; see 'cubeopt study --help'."
    status = HTTPStatus.FORBIDDEN
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]
