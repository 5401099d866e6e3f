import os
from pathlib import Path

import pytest

from cubeopt import atomic
from cubeopt.errors import InputError


def test_a_file_is_written_with_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    atomic.write(b"first", path)
    atomic.write(b"second", path)
    assert path.read_bytes() == b"second"
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]


def test_what_stood_there_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    atomic.write(b"first", path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*page\.html: No space left on device"):
        atomic.write(b"second", path)
    assert path.read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
