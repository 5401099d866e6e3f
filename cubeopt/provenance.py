"""Which code ran, and on what: the facts that every result carries."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from cubeopt import __version__
from cubeopt.settings import PACKAGE_DIR

_GIT_SECONDS = 5


@cache
def code_version() -> str:
    """The version of the package; in a git clone also the commit and a mark of changed code.

    For example 0.1.0, 0.1.0+1f2e3d4c5b6a or 0.1.0+1f2e3d4c5b6a+dirty.9a8b7c6d.
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return __version__
    changes = _changes()
    dirty = f"+dirty.{hashlib.sha256(changes).hexdigest()[:8]}" if changes else ""
    return f"{__version__}+{commit.decode().strip()}{dirty}"


def hardware() -> dict[str, str | int]:
    """The machine in four facts."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "machine": platform.machine(),
        "platform": platform.platform(),
    }


def _changes() -> bytes:
    """What differs in the package from the commit: changed files, then new ones."""
    package = PACKAGE_DIR.name
    options = ("--no-ext-diff", "--no-textconv", "--no-color", "--binary")
    changes = _git("diff", *options, "HEAD", "--", package) or b""
    new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", package) or b""
    for name in filter(None, new.split(b"\0")):
        path = PACKAGE_DIR.parent / os.fsdecode(name)
        if path.is_file():
            changes += name + b"\0" + path.read_bytes()
    return changes


def _git(*arguments: str) -> bytes | None:
    """What git prints about the clone of the package; None without clone, git or answer."""
    clone = PACKAGE_DIR.parent
    if not (clone / ".git").exists():
        return None
    # A GIT_DIR of somebody else's hook would lead astray.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    try:
        done = subprocess.run(
            ["git", "-C", str(clone), *arguments],
            capture_output=True,
            check=True,
            timeout=_GIT_SECONDS,
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
