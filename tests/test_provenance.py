"""Which code ran, and on what."""

import hashlib
import os
import re
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
    digest = hashlib.sha256(b"trial.py\0" + b"8\0" + b"one = 1\n").hexdigest()[:12]
    assert provenance.code_version() == f"{__version__}+{commit}+src.{digest}"


def test_every_change_of_the_code_has_its_own_name(clone: Path) -> None:
    names = [provenance.code_version()]
    for file, content in [("trial.py", "one = 2\n"), ("new.py", ""), ("new.py", "two = 2\n")]:
        (clone / "cubeopt" / file).write_text(content)
        provenance.code_version.cache_clear()
        names.append(provenance.code_version())
    assert len(set(names)) == 4
    version = names[0].partition("+src.")[0]
    changed = rf"{re.escape(version)}\+dirty\..{{8}}\+src\..{{12}}"
    assert all(re.fullmatch(changed, name) for name in names[1:])
    assert len({name.partition("+src.")[2] for name in names}) == 4


def test_a_change_outside_the_package_is_no_change_of_the_code(clone: Path) -> None:
    before = provenance.code_version()
    (clone / "notes.txt").write_text("x")
    provenance.code_version.cache_clear()
    assert provenance.code_version() == before


@pytest.mark.parametrize("missing", ["clone", "git", "commit"])
def test_without_a_clone_a_git_or_a_commit_the_version_and_the_files_name_the_code(
    clone: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, source = provenance.code_version().split("+src.")
    assert version != __version__
    provenance.code_version.cache_clear()
    if missing == "git":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        shutil.rmtree(clone / ".git")
    if missing == "commit":
        git(clone, "init", "--quiet")
    assert provenance.code_version() == f"{__version__}+src.{source}"
    assert provenance.source_of(provenance.code_version()) == source


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.1.0+aaaa+src.1", "0.1.0+bbbb+dirty.2+src.1", True),
        ("0.1.0+src.1", "0.1.0+aaaa+src.1", True),
        ("0.1.0+aaaa+src.1", "0.1.0+aaaa+src.2", False),
        ("0.1.0+aaaa", "0.1.0+aaaa", True),
        ("0.1.0+aaaa", "0.1.0+aaaa+src.1", False),
        ("0.1.0", "0.1.1", False),
    ],
)
def test_code_is_the_same_when_its_files_are(one: str, other: str, same: bool) -> None:
    assert (provenance.source_of(one) == provenance.source_of(other)) is same


def test_the_hardware_is_named() -> None:
    facts = provenance.hardware()
    assert set(facts) == {"cpu", "cores", "machine", "platform"}
    assert facts["cpu"]
    assert facts["cores"] == os.cpu_count()
