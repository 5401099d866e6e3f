"""The long-running commands: worker, coordinator, train, dashboard."""

import logging
import os
import re
import shlex
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli import crew
from cubeopt.cli.options import (
    Cpu,
    Gpu,
    Json,
    Storage,
    check_device,
    connected,
    gpu_numbers,
    stopping,
)
from cubeopt.cli.printing import error_console, print_json, say
from cubeopt.errors import InputError, StorageLostError

if TYPE_CHECKING:
    import torch

    from cubeopt.service.events import Event

    Tell = Callable[[Event], None]

logger = logging.getLogger(__name__)

_STANDBY_SECONDS = 1.0


def add_to(app: typer.Typer) -> None:
    """Put the commands on the top level of *app*."""
    app.command(
        short_help="Train the trials of studies.",
        epilog="\b\nExample: cubeopt worker --gpu 0,1 --study cube8 --until-done",
    )(worker)
    app.command(
        short_help="Ask for trials, promote, take back lost leases.",
        epilog="\b\nExample: cubeopt coordinator --storage postgresql://db.lab/cubeopt",
    )(coordinator)
    app.command(
        short_help="Train one configuration to its last epoch.",
        epilog="\b\nExample: cubeopt train --config best.yaml --experiment-name again --gpu 0",
    )(train)
    app.command(
        short_help="Serve the Optuna dashboard.",
        epilog="\b\nExample: cubeopt dashboard --port 8080",
    )(dashboard)


def worker(
    gpu: Annotated[
        str | None,
        typer.Option(metavar="N[,N...]", help="Train on these NVIDIA GPUs, a process for each."),
    ] = None,
    cpu: Cpu = False,
    jobs: Annotated[
        int,
        typer.Option(min=1, max=1024, metavar="N", help="With --cpu: so many processes."),
    ] = 1,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only trials of this study.")
    ] = None,
    pack: Annotated[
        str, typer.Option(metavar="N|auto", help="Trials trained side by side; auto measures.")
    ] = "auto",
    until_done: Annotated[
        bool, typer.Option("--until-done", help="Leave when no study is running any more.")
    ] = False,
    lease: Annotated[
        float,
        typer.Option(
            min=1.0,
            max=86400.0,
            metavar="SECONDS",
            help="Of silence, after which others take over the trials.",
        ),
    ] = 60.0,
    grace: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=86400.0,
            metavar="SECONDS",
            help="To leave in after SIGTERM or Ctrl-C; a second one leaves at once.",
        ),
    ] = 20.0,
    outage: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="SECONDS",
            help="To wait for a storage that does not answer before leaving; else --lease.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of this worker; else HOST-PID. Of several: NAME-gpu0."),
    ] = None,
    storage: Storage = None,
    hosted: Annotated[
        bool, typer.Option("--hosted", hidden=True, help="End when standard input does.")
    ] = False,
) -> None:
    """Train the trials of studies: claim packs, report each epoch, obey the rungs.

    Several GPUs, or --jobs, make so many worker processes under this one: stopped together, and
    when one dies, the others go on. A worker hosts the coordinator when no other process does.
    Ctrl-C and SIGTERM leave checkpoints at the next step, give the trials back, and end with code
    0 within --grace seconds.
    """
    check_device(gpu, cpu)
    width = _pack(pack)
    if name is not None:
        _check_name(name, "--name")
    numbers = gpu_numbers(gpu) if gpu is not None else []
    if numbers and jobs > 1:
        raise InputError("--jobs goes with --cpu; for several GPUs name them, as in --gpu 0,1")
    if jobs > 1 or len(numbers) > 1:
        words = _words(
            study=study,
            pack=pack,
            until_done=until_done,
            lease=lease,
            grace=grace,
            outage=outage,
        )
        raise typer.Exit(crew.work(numbers, jobs, name, words, study, settings.load(storage)))
    with stopping() as stop:
        if hosted:
            threading.Thread(target=_obey_input, args=(stop,), daemon=True).start()
        from cubeopt.training import device as devices

        chosen = devices.prepare(numbers[0] if numbers else None)
        from cubeopt.cli.progress import WorkerScreen
        from cubeopt.service.worker import Options, Worker

        host, pid = socket.gethostname(), os.getpid()
        options = Options(
            name=name or f"{host}-{pid}",
            host=host,
            pid=pid,
            device=chosen,
            device_name=devices.describe(chosen),
            provenance=_provenance(chosen),
            study=study,
            pack=width,
            until_done=until_done,
            lease_seconds=lease,
            grace_seconds=grace,
            outage_seconds=outage,
        )
        loaded = settings.load(storage)
        with (
            connected(loaded) as engine,
            WorkerScreen(error_console(), engine, study) as screen,
        ):
            tell = _unheard(screen.tell) if hosted else screen.tell
            Worker(engine, loaded, options, stop, tell).run()
    say(screen.farewell())


def coordinator(
    storage: Storage = None,
    hosted: Annotated[
        bool, typer.Option("--hosted", hidden=True, help="End when standard input does.")
    ] = False,
) -> None:
    """Ask for trials, mirror results to the dashboard, promote, take back the leases of the dead.

    One leads a database; another one stands by and takes over when it dies.
    """
    with stopping() as stop:
        if hosted:
            threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
        from cubeopt.service import coordinator as service

        with connected(settings.load(storage)) as engine:
            while not stop.is_set():
                try:
                    if service.coordinate(engine, stop) or hosted:
                        break
                except StorageLostError as error:
                    if hosted:  # by a worker, which will start another
                        logger.warning("the coordinator ends: %s", error)
                        raise typer.Exit(os.EX_TEMPFAIL) from error
                    logger.warning("trying again: %s", error)
                stop.wait(_STANDBY_SECONDS)


def train(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="YAML with a real_training section.")
    ],
    name: Annotated[
        str,
        typer.Option(
            "--experiment-name",
            "--experiment_name",
            metavar="NAME",
            help="Its folder in experiments/ of the storage.",
        ),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Although the dataset is not the config's.")
    ] = False,
    gpu: Gpu = None,
    cpu: Cpu = False,
    as_json: Json = False,
) -> None:
    """Train one configuration to its last epoch. Without --gpu it trains on the CPU.

    It ends with the result beside the baselines on the same rows, and with what was found in the
    course of the training: whether it converged, overfitted, or left an expert unused.
    Stopped by Ctrl-C or SIGTERM it leaves a checkpoint and exit code 130; --resume goes on from
    there to the same numbers.
    """
    check_device(gpu, cpu or gpu is None)
    _check_name(name, "--experiment-name")
    from cubeopt.search import configuration

    configuration.read_training(config)  # so that a mistake in it shows before torch is loaded
    from cubeopt.training import device as devices

    chosen = devices.prepare(gpu)
    from cubeopt.cli.training import TrainScreen, print_report
    from cubeopt.service import experiment

    request = experiment.Request(config, name, chosen, resume, force)
    loaded = settings.load()
    with stopping() as stop, TrainScreen(error_console(), name) as screen:
        result = experiment.train(request, loaded, _provenance(chosen), stop, screen.tell)
    if result is None:
        folder = loaded.experiments_dir / name / "checkpoints"
        print(f"cubeopt: stopped; the newest checkpoint is in {folder}", file=sys.stderr)
        print(f"cubeopt: continue with: {_again(config, name, gpu, force)}", file=sys.stderr)
        raise typer.Exit(130)
    if as_json:
        print_json(result.as_json())
    else:
        print_report(name, result)


def dashboard(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="To listen on; 0: any.")
    ] = 8080,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="To listen on; whoever reaches it sees all studies, without a password.",
        ),
    ] = "127.0.0.1",
    storage: Storage = None,
) -> None:
    """Serve the Optuna dashboard over the storage, on this machine only, until Ctrl-C."""
    from cubeopt.dashboard import server
    from cubeopt.dashboard.context import Context

    loaded = settings.load(storage)
    with connected(loaded) as engine:
        given = Context(engine, loaded)
        server.serve(given, host, port, lambda at: say(f"dashboard at {at} (Ctrl-C to stop)"))


def _pack(text: str) -> int | None:
    """The number of slots; None for auto."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 4096:
        raise InputError(f"--pack takes a number from 1 to 4096, or auto; got {text!r}")
    return int(text)


def _check_name(name: str, option: str) -> None:
    """An experiment's name is that of a folder, a worker's stands in tables and log lines."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is None:
        raise InputError(
            f"{option} takes up to 100 letters, digits, dots, dashes and underscores, "
            f"beginning with a letter or digit; got {name!r}"
        )


def _stop_at_end_of_input(stop: threading.Event) -> None:
    # Not through sys.stdin: its lock, held by a daemon thread, is fatal when Python ends first.
    while os.read(0, 1024):
        pass
    stop.set()


def _obey_input(stop: threading.Event) -> None:
    """Stop at a line of the parent's, and when it is gone; then nobody reads what we say."""
    while os.read(0, 1024):
        stop.set()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for said in (1, 2):
        os.dup2(nowhere, said)
    stop.set()


def _unheard(tell: "Tell") -> "Tell":
    """*tell*, for who goes on to give back what he holds when nobody listens any more."""

    def told(event: "Event") -> None:
        with suppress(OSError, SystemExit):  # the latter is what rich makes of a broken pipe
            tell(event)

    return told


def _words(**options: Any) -> tuple[str, ...]:
    """*options* as words of a command line, without those that are not set."""
    words: list[str] = []
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return tuple(words)


def _provenance(device: "torch.device") -> dict[str, Any]:
    """What made the numbers, beside the configuration."""
    import torch

    from cubeopt import provenance
    from cubeopt.training import device as devices

    return {
        "code_version": provenance.code_version(),
        "torch_version": torch.__version__,
        "hardware": provenance.hardware(),
        "device": devices.describe(device),
        "threads": torch.get_num_threads(),
    }


def _again(config: Path, name: str, gpu: int | None, force: bool) -> str:
    """The command that continues a training."""
    words = ["cubeopt", "train", "--config", str(config), "--experiment-name", name, "--resume"]
    words += [] if gpu is None else ["--gpu", str(gpu)]
    return shlex.join([*words, *(["--force"] if force else [])])
