"""What every answer says to browsers: run nothing but our own scripts, show us in no other page."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Plotly sets styles of its own. Optuna's pages, which bring their own policy, and figures in 3D
# compile shaders with eval; see `page(..., evals=True)`.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'{evals}",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
POLICY, POLICY_WITH_EVAL = _POLICY.format(evals=""), _POLICY.format(evals=" 'unsafe-eval'")
_FRAMES = "frame-ancestors 'none'"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Headers:
    """Puts them on whatever *app* answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                _dress(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, dressed)


def _dress(headers: MutableHeaders) -> None:
    policy = headers.get("Content-Security-Policy", POLICY)
    if _FRAMES not in policy:
        policy = f"{policy}; {_FRAMES}"
    headers["Content-Security-Policy"] = policy
    headers.update(_ALWAYS)
    if "Access-Control-Allow-Origin" in headers:  # Optuna lets any site read its artifacts
        del headers["Access-Control-Allow-Origin"]
