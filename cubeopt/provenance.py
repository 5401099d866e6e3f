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
_SOURCE = "+src."  # what stands before the digest of the source files


@cache
def code_version() -> str:
    """The version of the package, in a git clone the commit, and a digest of the source files.

    For example 0.1.0+src.2c26b46b68ff, 0.1.0+1f2e3d4c5b6a+src.2c26b46b68ff, or with changes that
    are not committed 0.1.0+1f2e3d4c5b6a+dirty.9a8b7c6d+src.fcde2b2edba5.
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return f"{__version__}{_SOURCE}{_source()}"
    changes = _changes()
    dirty = f"+dirty.{hashlib.sha256(changes).hexdigest()[:8]}" if changes else ""
    return f"{__version__}+{commit.decode().strip()}{dirty}{_SOURCE}{_source()}"


def source_of(version: str) -> str:
    """What code versions of equal source files have in common, be it from a clone or a wheel.

    It is the digest; of the versions of earlier releases, which have none, the whole.
    """
    return version.partition(_SOURCE)[2] or version


def hardware() -> dict[str, str | int]:
    """The machine in four facts."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "machine": platform.machine(),
        "platform": platform.platform(),
    }


def _source() -> str:
    """A digest of the names and contents of the package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE_DIR.rglob("*.py")):
        content = path.read_bytes()
        name = path.relative_to(PACKAGE_DIR).as_posix()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


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
