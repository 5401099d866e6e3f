"""Which code ran, and on what."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cubeopt import __version__, provenance


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    provenance.code_version.cache_clear()
    yield
    provenance.code_version.cache_clear()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git clone whose package has one committed file."""
    package = tmp_path / "cubeopt"
    package.mkdir()
    (package / "trial.py").write_text("one = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE_DIR", package)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    author = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"}
    committer = {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    environment = {**os.environ, **author, **committer, "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_clean_clone_is_named_by_version_and_commit(clone: Path) -> None:
    commit = git(clone, "rev-parse", "--short=12", "HEAD")
    assert provenance.code_version() == f"{__version__}+{commit}"


def test_every_change_of_the_code_has_its_own_name(clone: Path) -> None:
    names = [provenance.code_version()]
    for file, content in [("trial.py", "one = 2\n"), ("new.py", ""), ("new.py", "two = 2\n")]:
        (clone / "cubeopt" / file).write_text(content)
        provenance.code_version.cache_clear()
        names.append(provenance.code_version())
    assert len(set(names)) == 4
    assert all(name.startswith(f"{names[0]}+dirty.") for name in names[1:])


def test_a_change_outside_the_package_is_no_change_of_the_code(clone: Path) -> None:
    before = provenance.code_version()
    (clone / "notes.txt").write_text("x")
    provenance.code_version.cache_clear()
    assert provenance.code_version() == before


@pytest.mark.parametrize("missing", ["clone", "git", "commit"])
def test_without_a_clone_a_git_or_a_commit_the_version_alone_names_the_code(
    clone: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "git":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        shutil.rmtree(clone / ".git")
    if missing == "commit":
        git(clone, "init", "--quiet")
    assert provenance.code_version() == __version__


def test_the_hardware_is_named() -> None:
    facts = provenance.hardware()
    assert set(facts) == {"cpu", "cores", "machine", "platform"}
    assert facts["cpu"]
    assert facts["cores"] == os.cpu_count()
