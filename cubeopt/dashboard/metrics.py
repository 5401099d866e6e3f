"""`/metrics` for Prometheus, and the same numbers as JSON."""

import threading

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context
from cubeopt.dashboard.exposition import Exposition


def routes() -> list[BaseRoute]:
    desk = _Desk()
    return [Route("/metrics", desk.text), Route("/data/metrics", desk.rows)]


class _Desk:
    """Answers all scrapes of one server from one exposition."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._exposition: Exposition | None = None

    def text(self, request: Request) -> Response:
        accept = request.headers.get("accept", "")
        content, content_type = self._of(request).text(accept)
        return Response(
            content, headers={"Content-Type": content_type, "Cache-Control": "no-store"}
        )

    def rows(self, request: Request) -> Response:
        return context.data([each.as_json() for each in self._of(request).families()])

    def _of(self, request: Request) -> Exposition:
        with self._guard:
            if self._exposition is None:
                self._exposition = Exposition(context.of(request).engine)
            return self._exposition
