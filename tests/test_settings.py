"""What the environment decides."""

from pathlib import Path

import pytest

from cubeopt import settings
from cubeopt.errors import ConfigError
from cubeopt.settings import Receiver, Settings


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


def test_nobody_is_notified_unless_somebody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBEOPT_NOTIFY_SECRET", "s3cret")
    assert settings.receiver() is None
    monkeypatch.setenv("CUBEOPT_NOTIFY_URL", "https://hooks.example/T0/x")
    assert settings.receiver() == Receiver("https://hooks.example/T0/x", b"s3cret")
    assert settings.receiver("http://[::1]:9/y") == Receiver("http://[::1]:9/y", b"s3cret")


def test_the_secret_of_a_file_is_without_the_end_of_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"  s3 cret\r\n")
    monkeypatch.setenv("CUBEOPT_NOTIFY_SECRET_FILE", str(file))
    found = settings.receiver("https://hooks.example/")
    assert found is not None
    assert found.secret == b"s3 cret"
    monkeypatch.setenv("CUBEOPT_NOTIFY_SECRET", "other")
    with pytest.raises(ConfigError, match="are set; use one"):
        settings.receiver("https://hooks.example/")
    monkeypatch.delenv("CUBEOPT_NOTIFY_SECRET")
    file.write_text("\n")
    with pytest.raises(ConfigError, match=r"is empty$"):
        settings.receiver("https://hooks.example/")
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        settings.receiver("https://hooks.example/")


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example/s3cret",
        "ftp://hooks.example/s3cret",
        "file:///s3cret",
        "https:///s3cret",
        "https://hooks.example:port/s3cret",
        "https://me:s3cret@hooks.example/",
        "https://hooks.example/s3cret\nHost: other",
        "https://hooks.example/s3cret ü",
    ],
)
def test_an_address_that_nothing_can_be_posted_to_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^--notify takes an address such as") as raised:
        settings.receiver(url)
    assert "s3cret" not in str(raised.value)


def test_cuda_graphs_are_on_unless_somebody_says_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBEOPT_CUDA_GRAPHS", raising=False)
    assert settings.cuda_graphs()
    for word, on in (("on", True), ("Off", False)):
        monkeypatch.setenv("CUBEOPT_CUDA_GRAPHS", word)
        assert settings.cuda_graphs() is on
    monkeypatch.setenv("CUBEOPT_CUDA_GRAPHS", "1")
    with pytest.raises(ConfigError, match="CUBEOPT_CUDA_GRAPHS must be on or off, got '1'"):
        settings.cuda_graphs()
