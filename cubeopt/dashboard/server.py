"""The server of the dashboard: one process, one address, until Ctrl-C or SIGTERM."""

import gc
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from optuna.storages import RDBStorage

from cubeopt.dashboard import app
from cubeopt.dashboard.context import Context
from cubeopt.db import engine as engines
from cubeopt.errors import CubeoptError
from cubeopt.search import mirror

logger = logging.getLogger(__name__)

Ready = Callable[[str], None]

_LEAVE_SECONDS = 3  # for answers that are under way when the server is told to stop


def serve(context: Context, host: str, port: int, ready: Ready) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM; *ready* is given its address.

    Optuna's tables are made if they are not there. Belongs to the main thread, which alone
    receives signals. Port 0 is any free port.
    """
    with engines.translated("Optuna's tables"), mirror.translated():
        storage = mirror.open_storage(engines.optuna_url(context.engine))
    try:
        server = Server(context, storage)
        gc.freeze()  # what was imported stays: to look through it at the end takes half a second
        _serve(server, listening(host, port), host, ready)
    finally:
        storage.engine.dispose()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; CubeoptError in one line when it cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.socket(family)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((host, port))
            opened.listen(128)
        except BaseException:
            opened.close()
            raise
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CubeoptError(
            f"cannot serve the dashboard on {host}:{port}: {reason}; choose another with --port"
        ) from error
    return opened


def _serve(server: uvicorn.Server, opened: socket.socket, host: str, ready: Ready) -> None:
    def stopped(number: int, frame: FrameType | None) -> None:
        """Hears a signal that comes before uvicorn does, and then the one that it hands on."""
        server.should_exit = True
        logger.info("the dashboard stops")

    before = {each: signal.signal(each, stopped) for each in (signal.SIGTERM, signal.SIGINT)}
    shown = f"[{host}]" if ":" in host else host
    try:
        with opened:
            ready(f"http://{shown}:{opened.getsockname()[1]}/")
            server.run(sockets=[opened])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Server(uvicorn.Server):
    """The dashboard over a socket that listens already."""

    def __init__(self, context: Context, storage: RDBStorage) -> None:
        self._watches = context.watches
        config = uvicorn.Config(
            app.build(context, storage),
            log_config=None,
            log_level=logging.CRITICAL,  # what a person can do something about, we say ourselves
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_LEAVE_SECONDS,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._watches.end()  # their streams would last as long as somebody looks
        await super().shutdown(sockets)
