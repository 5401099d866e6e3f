"""The form by which a browser shows the token, once; from then on its cookie speaks for it."""

from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context, gate
from cubeopt.dashboard.door import SESSION_SECONDS


def routes() -> list[BaseRoute]:
    return [
        Route("/login", _form),
        Route("/login", _enter, methods=["POST"]),
        Route("/logout", _leave, methods=["POST"]),
    ]


def _form(request: Request) -> Response:
    if context.of(request).door.token is None:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    # A browser keeps a strict cookie to itself when it comes from another site's link.
    arrived = request.headers.get("sec-fetch-site") == "cross-site"
    return _shown(request, _safe(request.query_params.get("next", "/")), arrived=arrived)


async def _enter(request: Request) -> Response:
    form = parse_qs((await request.body()).decode(errors="replace"))
    token, place = (form.get(name, [""])[0].strip() for name in ("token", "next"))
    return await run_in_threadpool(_judged, request, token, _safe(place))


def _judged(request: Request, token: str, place: str) -> Response:
    door, address = context.of(request).door, gate.address(request)
    if door.token is None:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    if wait := door.guesses.wait(address):
        answer = _shown(
            request,
            place,
            HTTPStatus.TOO_MANY_REQUESTS,
            f"Too many wrong tokens; wait {wait:.0f} s.",
        )
        answer.headers["Retry-After"] = str(int(wait) + 1)
        return answer
    if not door.fits(token):
        door.guesses.count(address)
        return _shown(request, place, HTTPStatus.UNAUTHORIZED, "That is not the token.")
    answer = RedirectResponse(place, HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        gate.cookie(request),
        door.sessions.begin(),
        max_age=SESSION_SECONDS,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


def _leave(request: Request) -> Response:
    context.of(request).door.sessions.end(request.cookies.get(gate.cookie(request), ""))
    answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(gate.cookie(request), httponly=True, samesite="strict")
    return answer


def _shown(
    request: Request, place: str, status: int = 200, wrong: str = "", arrived: bool = False
) -> Response:
    return context.page(request, "login.html", status, place=place, wrong=wrong, arrived=arrived)


def _safe(place: str) -> str:
    """*place* when it is one of ours; a link must not send people elsewhere after their login."""
    found = urlsplit(place)
    ours = place.startswith("/") and not place.startswith(("//", "/\\")) and place.isprintable()
    return place if ours and not found.netloc and found.path != "/login" else "/"
