"""What the environment decides."""

from pathlib import Path

import pytest

from cubeopt import settings
from cubeopt.errors import ConfigError
from cubeopt.settings import Settings


def test_a_dataset_is_a_name_in_the_storage_or_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "named").mkdir()  # what happens to lie here is not meant by a name
    found = Settings(tmp_path / "storage", None, "WARNING").dataset_dir
    assert found("named") == tmp_path / "storage" / "data" / "named"
    assert found("./named") == tmp_path / "named"
    assert found("a/b") == tmp_path / "a" / "b"
    assert found("/a/b") == Path("/a/b")
    assert found("~/b") == tmp_path / "me" / "b"


def test_the_option_wins_over_the_environment_and_nothing_means_embedded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUBEOPT_HOME", str(tmp_path))
    monkeypatch.setenv("CUBEOPT_STORAGE", "postgresql://a/b")
    assert settings.load().database_url == "postgresql://a/b"
    assert settings.load("postgresql://c/d").database_url == "postgresql://c/d"
    monkeypatch.setenv("CUBEOPT_STORAGE", "")
    assert settings.load() == Settings(tmp_path, None, "WARNING")


@pytest.mark.parametrize(
    ("name", "value"), [("CUBEOPT_LOG_LEVEL", "loud"), ("CUBEOPT_HOME", "~nobody-has-this-name/x")]
)
def test_a_variable_that_means_nothing_is_an_error_naming_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        settings.load()
