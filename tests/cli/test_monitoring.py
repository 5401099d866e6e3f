"""Watching one training: from its files, at every size, as it grows, without torch."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from rich.cells import cell_len

from cubeopt import settings
from cubeopt.cli import monitor_screen
from cubeopt.cli.panes import Pen
from cubeopt.report.journal import Journal, Training

from .terminal import Terminal

Cli = Spawn = Callable[..., Any]
SIZES = [(20, 2), (30, 5), (60, 12), (80, 24), (123, 30), (124, 20), (220, 60)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A storage with the training "one" of eight epochs, by the command itself."""
    home = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_dataset, home / "data" / "tiny")
    values = {
        **{"lattice_size": [2, 2, 3], "embedding_size": 24, "state_size": 4, "lattice_steps": 2},
        **{"functional_radius": 1.5, "distant_links": 1, "dataset": "tiny", "epochs": 8},
    }
    (home / "one.yaml").write_text(yaml.safe_dump({"real_training": values}))
    command = ["train", "--config", str(home / "one.yaml"), "--experiment-name", "one", "--cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "cubeopt", *command],
        env={"CUBEOPT_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path) -> Path:
    """A copy of the training's folder, in a storage of the test's own."""
    monkeypatch.setenv("CUBEOPT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "experiments" / "one"
    shutil.copytree(trained / "experiments" / "one", folder)
    return folder


@pytest.fixture
def training(one: Path) -> Training:
    return Journal(one, settings.load()).look()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_screen_fits_a_terminal_of_any_size(
    training: Training, size: tuple[int, int], ascii_only: bool
) -> None:
    lines = monitor_screen.screen(training, size, Pen(ascii_only))
    assert len(lines) <= size[1]
    assert max(cell_len(line.plain) for line in lines) <= size[0]
    if ascii_only:
        assert all(line.plain.isascii() for line in lines)
    if size == (60, 12):
        assert lines[-1].plain.startswith("a larger terminal also has: ")


def test_everything_that_the_training_wrote_is_shown(cli: Cli, one: Path) -> None:
    said = cli("monitor", one / "checkpoints", "--once")
    assert (said.code, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= 100
    rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert f"fvu  {last['validation/fvu']:.4g} on validation" in said.out
    for term in ("reconstruction", "similarity", "diversity", "emergence", "lattice", "spatial"):
        (line,) = [each for each in said.out.splitlines() if each.startswith(f"  {term} ")]
        for prefix in ("train/loss", "train/weighted", "validation/loss"):
            assert _shown(last[f"{prefix}/{term}"]) in line
    for name in ("local", "functional", "distant"):
        assert f"{last[f'validation/usage/{name}']:.1f}%" in said.out
    for words in ("gradient norms", "learning rate", "samples/s", "peak memory, GB", "gate usage"):
        assert words in said.out
    assert "predict the mean" in said.out
    assert "PCA to 4 numbers" in said.out
    found = cli("monitor", "one", "--once", "--json").json
    assert found["metrics"]["validation/fvu"] == [each["validation/fvu"] for each in rows]
    assert found["result"] == json.loads((one / "result.json").read_text())
    assert (found["state"], found["epoch"], found["target_epochs"]) == ("ended", 8, 8)


def _shown(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def test_a_growing_log_is_a_line_an_epoch_until_the_result_is_there(
    spawn: Spawn, one: Path
) -> None:
    log, result = one / "metrics.jsonl", one / "result.json"
    lines, told = log.read_text().splitlines(keepends=True), result.read_text()
    result.unlink()
    log.write_text(lines[0])
    watcher = spawn("monitor", one, "--interval", "0.2", PYTHONUNBUFFERED="1")
    out = watcher.popen.stdout
    assert out.readline().startswith("training one: training, epoch 1 of 8, fvu ")
    with log.open("a") as file:
        file.write(lines[1] + lines[2][:100])
        file.flush()
        assert _next(out).startswith("epoch 2: total ")
        file.write(lines[2][100:])
    assert _next(out).startswith("epoch 3: total ")
    log.write_text(lines[0])
    assert _next(out) == "the log was rewritten: it goes on after epoch 1\n"
    log.write_text("".join(lines))
    assert [_next(out)[:8] for _ in range(7)] == [f"epoch {n}:" for n in range(2, 9)]
    result.write_text(told)
    rest = watcher.finish()
    assert rest.code == 0
    assert "the training has ended; test fvu " in rest.out
    assert rest.out.splitlines()[-1].startswith("training one: ended, epoch 8 of 8, fvu ")


def _next(out: IO[str]) -> str:
    """The next line that is no finding."""
    while re.match(r"epoch \d+: (?!total )", line := out.readline()):
        pass
    return line


def test_a_training_that_diverged_ends_with_code_1(cli: Cli, one: Path) -> None:
    (one / "result.json").unlink()
    with (one / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 9, "validation/fvu": null}\n')
    said = cli("monitor", one)
    assert said.code == 1
    assert said.out.startswith("training one: diverged, epoch 9 of 8")
    (line,) = cli("monitor", one, "--json").out.splitlines()
    assert json.loads(line)["state"] == "diverged"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_terminal_is_redrawn_at_its_size_and_left_as_it_was(
    one: Path, number: int, code: int
) -> None:
    (one / "result.json").unlink()
    with Terminal(100, 40, "monitor", str(one)) as terminal:
        terminal.until("gate usage")
        terminal.resize(60, 10)
        terminal.until("a larger terminal also has")
        if number == signal.SIGINT:
            terminal.write("\x03")
        else:
            terminal.popen.send_signal(number)
        assert terminal.ended() == code
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")
    assert "Traceback" not in terminal.raw


@pytest.mark.parametrize(
    ("path", "said"),
    [("nowhere", "there is no folder nowhere"), ("home/data", "has no log")],
)
def test_what_cannot_be_watched_is_one_line(
    cli: Cli, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    (tmp_path / "home" / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    ran = cli("monitor", path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


def test_it_needs_neither_torch_nor_a_database(one: Path) -> None:
    code = (
        "import sys, cubeopt.cli.main as main\n"
        f"sys.argv = ['cubeopt', 'monitor', {str(one)!r}, '--once']\n"
        "try: main.main()\n"
        "except SystemExit as left: assert not left.code\n"
        "print(sorted({'torch', 'sqlalchemy', 'psycopg'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
