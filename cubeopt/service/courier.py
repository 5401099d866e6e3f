"""Brings one message to a receiver: one POST, signed, in bounded time.

The signature is made as Stripe makes it: HMAC-SHA256, with the secret, of the time of sending, a
dot and the body. A receiver that refuses what was signed more than five minutes ago cannot be
told an old message again by somebody who has overheard it.
"""

import hashlib
import hmac
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cubeopt import __version__
from cubeopt.errors import CubeoptError
from cubeopt.settings import Receiver

SIGNATURE = "Cubeopt-Signature"  # t=SECONDS,v1=HEX
EVENT = "Cubeopt-Event"  # the message's event id
TIMEOUT_SECONDS = 10.0


class UndeliveredError(CubeoptError):
    """The receiver did not take a message; says why, in a line that holds no secret."""


class Courier:
    """Posts to one receiver; redirects are not followed, for they would carry the message away."""

    def __init__(self, receiver: Receiver, clock: Callable[[], float] = time.time) -> None:
        self._receiver, self._clock = receiver, clock

    def post(self, event: str, body: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Bring *body*; UndeliveredError unless the answer is 2xx within *timeout* seconds."""
        lines = _Lines()
        opener = urllib.request.build_opener(_NoRedirect, lines.http, lines.https)
        # Each read has its timeout; one who answers byte by byte would keep us for ever.
        watchdog = threading.Timer(timeout, lines.cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            opener.open(self._request(event, body.encode()), timeout=timeout).close()
        except urllib.error.HTTPError as error:
            error.close()
            raise UndeliveredError(f"{self._receiver.shown} answered {_named(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UndeliveredError(
                f"{self._receiver.shown} does not answer: {_reason(error)}"
            ) from None
        finally:
            watchdog.cancel()

    def _request(self, event: str, content: bytes) -> urllib.request.Request:
        request = urllib.request.Request(self._receiver.url, content, method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", f"cubeopt/{__version__}")
        request.add_header(EVENT, event)
        if self._receiver.secret is not None:
            signed = signature(self._receiver.secret, int(self._clock()), content)
            request.add_header(SIGNATURE, signed)
        return request


class _Lines:
    """The connections of one post, to be cut from another thread."""

    def __init__(self) -> None:
        self._open: list[http.client.HTTPConnection] = []
        made = self._made

        class Http(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(made(http.client.HTTPConnection), req)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(made(http.client.HTTPSConnection), req)

        self.http, self.https = Http(), Https()

    def cut(self) -> None:
        for each in self._open:
            if (line := each.sock) is not None:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def _made(self, kind: type[http.client.HTTPConnection]) -> Any:
        def make(*arguments: Any, **options: Any) -> http.client.HTTPConnection:
            self._open.append(kind(*arguments, **options))
            return self._open[-1]

        return make


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None  # an error then, with the code


def _named(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        return f"{error.code}; redirects are not followed"
    return str(error.code)


def _reason(error: Exception) -> str:
    """Why, without what a receiver has written."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    said = cause.strerror if isinstance(cause, OSError) else None
    return said or type(cause).__name__


def signature(secret: bytes, seconds: int, content: bytes) -> str:
    """What the header has for *content*, sent at so many *seconds* since 1970."""
    digest = hmac.new(secret, f"{seconds}.".encode() + content, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"
