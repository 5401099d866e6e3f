"""Who may come in: whoever sits at this machine, or whoever has the token."""

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic

from cubeopt.errors import ConfigError, InputError

TOKEN = "CUBEOPT_DASHBOARD_TOKEN"
SESSION_SECONDS = 7 * 24 * 3600
_SHORTEST = 16  # characters of a token
_SESSIONS = 1000  # kept; a further one ends the oldest
_GUESSES, _WINDOW_SECONDS = 10, 60.0  # wrong tokens that an address may send in such a time
_ADDRESSES = 10_000  # of which wrong tokens are remembered
_HOW = f"set {TOKEN} or give --token-file FILE; one is made by: openssl rand -hex 32"


@dataclass(frozen=True)
class Door:
    """What a request must show; without a token, only that it means this machine."""

    names: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})  # by which we are asked
    token: str | None = field(default=None, repr=False)
    sessions: "Sessions" = field(default_factory=lambda: Sessions(), repr=False)
    guesses: "Guesses" = field(default_factory=lambda: Guesses(), repr=False)

    def fits(self, token: str) -> bool:
        """Whether *token* is ours; takes as long for one that is nearly right."""
        assert self.token is not None
        ours, theirs = (hashlib.sha256(each.encode()).digest() for each in (self.token, token))
        return hmac.compare_digest(ours, theirs)


def at(host: str, token: str | None) -> Door:
    """The door of a server that listens on *host*; InputError where it would stand open."""
    if not host:
        raise InputError("--host takes an address or a name, got ''; 0.0.0.0 is every address")
    if token is None and not _is_loopback(host):
        raise InputError(
            f"--host {host} lets other machines in, and whoever reaches the dashboard sees all "
            f"studies, so it needs a token: {_HOW}"
        )
    return Door(Door.names | {host.lower()}, token)


def read_token(file: Path | None) -> str | None:
    """The token of *file*, else of the environment; None when there is neither.

    ConfigError when it is too short or holds what cannot be sent.
    """
    if file is not None:
        token, where = _content(file), str(file)
    elif TOKEN in os.environ:
        token, where = os.environ[TOKEN].strip(), TOKEN
    else:
        return None
    if len(token) < _SHORTEST:
        raise ConfigError(
            f"{where}: a token has at least {_SHORTEST} characters, this one has {len(token)}; "
            "one is made by: openssl rand -hex 32"
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{where}: a token is one line of ASCII letters, digits and signs, without spaces"
        )
    return token


def _content(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"cannot read the token in {file}: {reason}") from error


def _is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches *host*; a name that nobody knows counts as one."""
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return True  # listening will fail, and say so
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


class Sessions:
    """Browsers that have shown the token. They end with the server; thread-safe."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def begin(self) -> str:
        """A new session, as its cookie has it."""
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._until[_digest(session)] = monotonic() + SESSION_SECONDS
            while len(self._until) > _SESSIONS:
                self._until.popitem(last=False)
        return session

    def know(self, session: str) -> bool:
        with self._lock:
            return self._until.get(_digest(session), 0.0) > monotonic()

    def end(self, session: str) -> None:
        with self._lock:
            self._until.pop(_digest(session), None)


def _digest(session: str) -> str:
    # Looked up by a digest, so that how long it takes tells nothing about what is there.
    return hashlib.sha256(session.encode()).hexdigest()


class Guesses:
    """Wrong tokens by the address that they came from; thread-safe."""

    def __init__(self) -> None:
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, address: str) -> float:
        """Seconds until a token from *address* is looked at again; 0: now."""
        with self._lock:
            moments = self._moments.get(address)
            if moments is None or len(moments) < _GUESSES:
                return 0.0
            return max(0.0, moments[0] + _WINDOW_SECONDS - monotonic())

    def count(self, address: str) -> None:
        """A wrong token came from *address*."""
        with self._lock:
            self._moments.setdefault(address, deque(maxlen=_GUESSES)).append(monotonic())
            self._moments.move_to_end(address)
            while len(self._moments) > _ADDRESSES:
                self._moments.popitem(last=False)
