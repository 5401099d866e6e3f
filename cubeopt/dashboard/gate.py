"""What stands before every route: is the request meant for us, may it come in, may it write?"""

from http import HTTPStatus
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cubeopt.dashboard.door import Door

_OPEN = ("/healthz", "/login")  # to who has no token
_READS = ("GET", "HEAD")
_LONGEST = 1_000_000  # bytes of what is sent to us: a note, a login
_BEARER = "Bearer "


class Gate:
    """Lets through to *app* what *door* allows."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no page opens a websocket
        request = Request(scope)
        refusal = _misled(request, self._door) or _forged(request) or _barred(request, self._door)
        await (refusal or self._app)(scope, receive, send)


def cookie(request: Request) -> str:
    """The name of a session's cookie; a browser sends those of one port to all of a machine."""
    return f"cubeopt_{(request.scope.get('server') or ('', 0))[1]}"


def address(request: Request) -> str:
    """Where *request* comes from."""
    return request.client.host if request.client else ""


def _misled(request: Request, door: Door) -> Response | None:
    """A page elsewhere may give its own name our address, and so read us from a browser here.

    Who needs a token is safe from that: such a page has none.
    """
    name = _name(request.headers.get("host", ""))
    if door.token is not None or name in door.names:
        return None
    return _no(
        HTTPStatus.MISDIRECTED_REQUEST,
        f"this dashboard answers to {', '.join(sorted(door.names))}, not to {name!r}",
    )


def _forged(request: Request) -> Response | None:
    """What writes comes from our own pages, or from no page at all, and is short."""
    if request.method in _READS:
        return None
    headers = request.headers
    origin = headers.get("origin")
    elsewhere = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if elsewhere or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return _no(HTTPStatus.FORBIDDEN, "another site's page may not write here")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _no(HTTPStatus.LENGTH_REQUIRED, "say how long the content is")
    if int(headers.get("content-length", 0)) > _LONGEST:
        return _no(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"no more than {_LONGEST:,} bytes")
    return None


def _barred(request: Request, door: Door) -> Response | None:
    if door.token is None or request.url.path in _OPEN:
        return None
    given = request.headers.get("authorization", "")
    if given.startswith(_BEARER):
        return _weighed(request, door, given.removeprefix(_BEARER).strip())
    if door.sessions.know(request.cookies.get(cookie(request), "")):
        return None
    if request.method in _READS and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"/login?next={quote(_place(request))}", HTTPStatus.SEE_OTHER)
    return _no(HTTPStatus.UNAUTHORIZED, "this needs the dashboard's token", _challenge())


def _weighed(request: Request, door: Door, token: str) -> Response | None:
    if wait := door.guesses.wait(address(request)):
        return too_many(wait)
    if door.fits(token):
        return None
    door.guesses.count(address(request))
    return _no(HTTPStatus.UNAUTHORIZED, "that is not the dashboard's token", _challenge())


def too_many(wait: float) -> Response:
    """What who has guessed too often is told."""
    headers = {"Retry-After": str(int(wait) + 1)}
    return _no(HTTPStatus.TOO_MANY_REQUESTS, f"too many wrong tokens; wait {wait:.0f} s", headers)


def _place(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _challenge() -> dict[str, str]:
    return {"WWW-Authenticate": 'Bearer realm="cubeopt"'}


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _no(status: HTTPStatus, reason: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"reason": reason}, status, headers)
