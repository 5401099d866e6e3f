"""What `cubeopt worker` does when it is to be several: start them, show what they say, wait."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from cubeopt.cli.options import connected, stopping
from cubeopt.cli.printing import error_console
from cubeopt.errors import StorageError
from cubeopt.settings import Settings


def work(
    gpus: Sequence[int],
    jobs: int,
    name: str | None,
    words: tuple[str, ...],
    study: str | None,
    loaded: Settings,
) -> int:
    """Run a worker for each of *gpus*, or *jobs* on the CPU, with more *words*; the exit code.

    What is wrong with the devices, the storage or the study is an error before any is started.
    """
    from cubeopt.cli.progress import WorkerScreen
    from cubeopt.db import records
    from cubeopt.service.crew import Crew, Post

    if gpus:
        from cubeopt.training import device

        for gpu in gpus:
            device.check(gpu)
    title = name or f"{socket.gethostname()}-{os.getpid()}"
    devices = [(f"gpu{gpu}", ["--gpu", str(gpu)]) for gpu in gpus]
    posts = [
        Post(label, (*device_words, "--name", f"{title}-{label}", *words))
        for label, device_words in devices or [(f"cpu{n}", ["--cpu"]) for n in range(jobs)]
    ]
    with connected(loaded) as engine:
        if study is not None:
            records.study(engine, study)
        with WorkerScreen(error_console(), engine, study) as screen:

            def look() -> None:
                with suppress(StorageError):  # the workers say it, and may get over it
                    screen.look()

            crew = Crew(posts, loaded.database_url, screen.pass_on)
            with stopping(at_once=crew.kill) as stop, crew:
                return crew.work(stop, look)
