"""The files that pages are made of: scripts, styles, plotly.js. Each is read once."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_PLOTLY = "plotly.min.js"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class _Asset:
    plain: bytes
    packed: bytes
    kind: str
    digest: str


def routes() -> list[BaseRoute]:
    return [Route("/assets/{name}", _send)]


def address(name: str) -> str:
    """Where a page finds the asset *name*; another address when its content changes."""
    return f"/assets/{name}?v={_read(name).digest}"


def _send(request: Request) -> Response:
    """One of the names that there are; none of them is ever joined to a path."""
    name = request.path_params["name"]
    if name not in _names():
        raise HTTPException(404, f"there is no asset {name!r}")
    asset = _read(name)
    # A script that is imported by another has an address without a version: it is asked for again.
    lasting = request.query_params.get("v") == asset.digest
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable" if lasting else "private, no-cache",
        "ETag": f'"{asset.digest}"',
        "Vary": "Accept-Encoding",
    }
    if asset.digest in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.packed, headers=headers, media_type=asset.kind)
    return Response(asset.plain, headers=headers, media_type=asset.kind)


@cache
def _names() -> frozenset[str]:
    ours = resources.files("cubeopt.dashboard") / "assets"
    return frozenset(each.name for each in ours.iterdir() if each.is_file()) | {_PLOTLY}


@cache
def _read(name: str) -> _Asset:
    if name == _PLOTLY:
        plain = (resources.files("plotly") / "package_data" / name).read_bytes()
    else:
        plain = (resources.files("cubeopt.dashboard") / "assets" / name).read_bytes()
    kind = _TYPES.get(name[name.rfind(".") :]) or mimetypes.guess_type(name)[0]
    digest = hashlib.sha256(plain).hexdigest()[:16]
    return _Asset(plain, gzip.compress(plain, mtime=0), kind or "application/octet-stream", digest)
