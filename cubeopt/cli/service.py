"""The long-running commands: worker, coordinator, train, dashboard."""

import logging
import os
import re
import shlex
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Cpu, Gpu, Json, Storage, check_device, connected, stopping
from cubeopt.cli.printing import error_console, print_json, say
from cubeopt.errors import InputError, StorageLostError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_STANDBY_SECONDS = 1.0


def add_to(app: typer.Typer) -> None:
    """Put the commands on the top level of *app*."""
    app.command(
        short_help="Train the trials of studies.",
        epilog="\b\nExample: cubeopt worker --gpu 0 --study cube8 --until-done",
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
    gpu: Gpu = None,
    cpu: Cpu = False,
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
    ] = 45.0,
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
        str | None, typer.Option(metavar="NAME", help="Of this worker; else HOST-PID.")
    ] = None,
    storage: Storage = None,
) -> None:
    """Train the trials of studies: claim packs, report each epoch, obey the rungs.

    Hosts the coordinator when no other process does. Ctrl-C and SIGTERM leave checkpoints at the
    next step, give the trials back, and end with code 0 within --grace seconds.
    """
    check_device(gpu, cpu)
    width = _pack(pack)
    with stopping() as stop:
        from cubeopt.training import device as devices

        chosen = devices.prepare(gpu)
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
            Worker(engine, loaded, options, stop, screen.tell).run()
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
                        raise typer.Exit(error.exit_code) from error
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
    _check_name(name)
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
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="To listen on.")] = 8080,
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
    from cubeopt.db.engine import optuna_url
    from cubeopt.report import dashboard as served

    with connected(settings.load(storage)) as engine:
        url = optuna_url(engine)
    served.serve(url, host, port, lambda at: say(f"dashboard at {at} (Ctrl-C to stop)"))


def _pack(text: str) -> int | None:
    """The number of slots; None for auto."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 4096:
        raise InputError(f"--pack takes a number from 1 to 4096, or auto; got {text!r}")
    return int(text)


def _check_name(name: str) -> None:
    """An experiment's name is that of a folder."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is None:
        raise InputError(
            "--experiment-name takes up to 100 letters, digits, dots, dashes and underscores, "
            f"beginning with a letter or digit; got {name!r}"
        )


def _stop_at_end_of_input(stop: threading.Event) -> None:
    # Not through sys.stdin: its lock, held by a daemon thread, is fatal when Python ends first.
    while os.read(0, 1024):
        pass
    stop.set()


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
