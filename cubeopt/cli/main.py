"""The `cubeopt` command and the errors it shows."""

import logging
import os
import sys
from typing import Annotated

import click
import typer

from cubeopt import __version__
from cubeopt.cli import data, database, service, study
from cubeopt.errors import CubeoptError

_INTERRUPTED = 130  # what a shell expects after Ctrl-C

app = typer.Typer(
    name="cubeopt",
    help="Search the hyperparameters of small 3D-lattice networks, many trials to a pack.",
    epilog="Example: cubeopt study create studies/quickstart.yaml && cubeopt worker --cpu",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(study.app, name="study")
app.add_typer(data.app, name="data")
app.add_typer(database.app, name="db")
service.add_to(app)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if version:
        print(f"cubeopt {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; a CubeoptError is one line on stderr and its exit code."""
    # Spinning threads starve their neighbours on a busy machine; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(
        level=os.environ.get("CUBEOPT_LOG_LEVEL", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        code = app(standalone_mode=False)
    except CubeoptError as error:
        print(f"cubeopt: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("cubeopt: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
