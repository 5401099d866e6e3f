"""The `cubeopt` command and the errors it shows."""

import io
import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from cubeopt import __version__, logs, settings
from cubeopt.cli import (
    ablation,
    analysis,
    bench,
    comparison,
    data,
    database,
    monitoring,
    planning,
    service,
    study,
    trial,
    watching,
    workers,
)
from cubeopt.errors import CubeoptError, InputError

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="cubeopt",
    help="Search the hyperparameters of small 3D-lattice networks, many trials to a pack.",
    epilog="\b\nExample: cubeopt study create studies/quickstart.yaml && cubeopt worker --cpu",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: quick, and the same on a terminal, in a pipe, in a log
)
app.add_typer(study.app, name="study")
app.add_typer(trial.app, name="trial")
app.add_typer(workers.app, name="workers")
app.add_typer(data.app, name="data")
app.add_typer(database.app, name="db")
app.add_typer(bench.app, name="bench")
service.add_to(app)
ablation.add_to(app)
planning.add_to(study.app)
watching.add_to(study.app)
comparison.add_to(app)
analysis.add_to(app)
monitoring.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cubeopt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and leave.",
        ),
    ] = False,
) -> None:
    """Options before any command."""


def main() -> None:
    """Run a command; what a person can do something about is one line on stderr and a code."""
    # Spinning threads starve their neighbours on a busy machine; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold any bytes
            stream.reconfigure(errors="backslashreplace")
    try:
        logs.configure(settings.log_level(), settings.log_format())
        code = app(prog_name="cubeopt", standalone_mode=False)
        sys.stdout.flush()
    except CubeoptError as error:
        _leave(str(error), error)
    except typer.TyperException as error:
        _leave_usage(error)
    except UnicodeEncodeError as error:
        _leave(f"{error.object!r} is not UTF-8 text", InputError())
    except BrokenPipeError:  # who read our output has gone, and needs no message
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"{where}{error.strerror or error}", error)
    finally:
        _drop_unwritten()
    sys.exit(code if isinstance(code, int) else 0)


def _drop_unwritten() -> None:
    """Output that could not be written is not tried again, with a traceback, as Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(text: str, error: Exception) -> NoReturn:
    logger.debug("the error in full", exc_info=error)
    line = " ".join(logs.masked(text).splitlines())
    if logs.as_json():
        logs.say(line, logging.ERROR)
    else:
        print(f"cubeopt: {line}", file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 1))


def _leave_usage(error: typer.TyperException) -> NoReturn:
    """What is wrong with the command line, and where to read how it is right."""
    text = error.format_message().replace("Value error, ", "")  # pydantic's word
    if text.startswith("Usage: "):  # a group of commands without a command
        print(text, file=sys.stderr)
        sys.exit(error.exit_code)
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else app.info.name
    _leave(f"{text.rstrip('.')}; see '{command} --help'", error)
