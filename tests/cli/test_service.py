"""The commands that run: how they are started wrongly, stopped, and continued."""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import torch
import yaml

from cubeopt.db import embedded
from cubeopt.trial import TrialSpec

Cli = Spawn = Callable[..., Any]
NAME = "--experiment-name"


@pytest.fixture
def config(tmp_path: Path, tiny_study: dict[str, Any]) -> Path:
    """A configuration whose training takes minutes, unless it is stopped."""
    path = tmp_path / "config.yaml"
    base = {**tiny_study["base"], "epochs": 20_000, "save_checkpoint_every": 20_000}
    path.write_text(yaml.safe_dump({"real_training": base}))
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("worker", "give either --gpu N or --cpu"),
        ("worker --gpu 0 --cpu", "give either --gpu N or --cpu"),
        ("train --config x --experiment-name x --gpu 0 --cpu", "give either --gpu N or --cpu"),
        ("worker --gpu 0,1 --cpu", "give either --gpu N or --cpu"),
        ("worker --gpu 0,1,0", "--gpu 0,1,0: GPU 0 stands there twice"),
        ("worker --gpu 1,01", "--gpu 1,01: GPU 1 stands there twice"),
        ("worker --gpu 0,x", "--gpu takes the numbers of GPUs with commas between, as in 0,1; got"),
        ("worker --gpu 0,", "as in 0,1; got '0,'"),
        ("worker --gpu=-1", "as in 0,1; got '-1'"),
        ("worker --gpu 0,1 --jobs 2", "--jobs goes with --cpu; for several GPUs name them"),
        ("worker --cpu --jobs 0", "Input should be greater than or equal to 1"),
        ("worker --cpu --jobs 2 --pack 0", "--pack takes a number from 1 to 4096"),
        ("worker --cpu --jobs 2 --study nothing", "there is no study named 'nothing'"),
        ("worker --cpu --pack 0", "--pack takes a number from 1 to 4096, or auto; got '0'"),
        ("worker --cpu --name a/b", "--name takes up to 100 letters, digits, dots, dashes"),
        (f"worker --cpu --jobs 2 --name {'a' * 101}", "--name takes up to 100 letters"),
        ("worker --cpu --pack x", "got 'x'"),
        ("worker --cpu --pack -1", "got '-1'"),
        ("worker --cpu --pack 1.5", "got '1.5'"),
        ("worker --cpu --study nothing", "there is no study named 'nothing'"),
        ("train --config nothing.yaml --experiment-name x", "cannot read nothing.yaml"),
        ("train --config CONFIG --experiment-name ../x", "--experiment-name takes up to 100"),
        ("train --config CONFIG --experiment-name .", "--experiment-name takes up to 100"),
        ("train --config STUDY --experiment-name x", "expected a section 'real_training'"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(
    cli: Cli, home: Path, config: Path, study_file: Path, arguments: str, said: str
) -> None:
    files = {"CONFIG": config, "STUDY": study_file}
    ran = cli(*(files.get(word, word) for word in arguments.split()))
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err
    assert not (home / "experiments").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    "command",
    [
        "worker --gpu 0",
        "worker --gpu 0,1",
        "train --config CONFIG --experiment-name x --gpu 0",
    ],
)
def test_a_gpu_that_is_not_there_is_one_line_and_code_2(
    cli: Cli, home: Path, config: Path, command: str
) -> None:
    words = [config if word == "CONFIG" else word for word in command.split()]
    ran = cli(*words)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("cubeopt: --gpu 0: ")
    assert "--cpu" in ran.err


def test_a_training_without_its_dataset_says_how_to_make_it(
    cli: Cli, home: Path, config: Path
) -> None:
    content = yaml.safe_load(config.read_text())
    content["real_training"]["dataset"] = "nowhere"
    config.write_text(yaml.safe_dump(content))
    ran = cli("train", "--config", config, NAME, "x")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "cubeopt data build" in ran.err


def test_train_ends_with_one_object_and_is_not_repeated_by_mistake(
    cli: Cli, home: Path, config: Path
) -> None:
    content = yaml.safe_load(config.read_text())
    content["real_training"]["epochs"] = 2
    config.write_text(yaml.safe_dump(content))
    ran = cli("train", "--config", config, NAME, "x", "--json")
    result = ran.json
    assert ran.code == 0
    assert set(result) == {
        *("metric", "value", "epochs", "checkpoint", "log", "metrics", "baselines", "findings"),
        "corpora",
    }
    assert [each["name"] for each in result["baselines"]] == ["mean", "pca"]
    assert Path(result["log"]).is_file()
    assert (result["metric"], result["epochs"]) == ("fvu", 2)
    assert result["value"] == result["metrics"]["validation/fvu"]
    assert Path(result["checkpoint"]).is_dir()
    assert [line.split(":")[0] for line in ran.err.splitlines()] == ["epoch 1", "epoch 2"]
    again = cli("train", "--config", config, NAME, "x")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "--resume" in again.err
    resumed = cli("train", "--config", config, NAME, "x", "--resume", "--json")
    assert resumed.json == result
    plain = cli("train", "--config", config, "--experiment_name", "y", "--cpu")
    assert plain.out.splitlines()[0] == (
        f"fvu {result['value']:.4g} on validation, {result['metrics']['test/fvu']:.4g} on test"
    )
    nothing = cli("train", "--config", config, NAME, "z", "--resume")
    assert (nothing.code, nothing.out) == (1, "")
    assert "nothing to resume" in nothing.err


def test_a_stopped_training_leaves_a_checkpoint_from_which_it_goes_on(
    spawn: Spawn, home: Path, config: Path
) -> None:
    log = home / "experiments" / "x" / "metrics.jsonl"

    def lines() -> int:
        return log.read_text().count("\n") if log.exists() else 0

    process = spawn("train", "--config", config, NAME, "x", "--json")
    process.until(lambda: lines() > 2)
    ran = process.send(signal.SIGINT)
    assert (ran.code, ran.out) == (130, "")
    assert f"continue with: cubeopt train --config {config} {NAME} x --resume\n" in ran.err
    assert f"the newest checkpoint is in {log.parent / 'checkpoints'}\n" in ran.err
    assert "Traceback" not in ran.err
    (checkpoint,) = (log.parent / "checkpoints").iterdir()
    reached = json.loads((checkpoint / "state.json").read_text())["epoch"]
    resumed = spawn("train", "--config", config, NAME, "x", "--resume")
    resumed.until(lambda: lines() > reached + 2)
    assert resumed.send(signal.SIGTERM).code == 130
    written = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert written == list(range(1, len(written) + 1))
    assert len(list((log.parent / "checkpoints").iterdir())) == 2


def test_a_worker_tells_what_it_did_on_standard_error(finished: Any) -> None:
    ran = finished.worker
    assert ran.code == 0
    assert "Traceback" not in ran.err
    assert "tiny: trial 0 starts\n" in ran.err
    assert "full run of trial" in ran.err
    (line,) = ran.out.splitlines()
    assert line.startswith("6 runs ended here, ")


def test_a_stopped_worker_gives_its_trials_back_and_leaves_with_0(
    spawn: Spawn,
    cli: Cli,
    home: Path,
    study_file: Path,
    tiny_study: dict[str, Any],
) -> None:
    tiny_study["base"]["epochs"] = 20_000
    tiny_study["rungs"] = {"epochs": [20_000]}
    study_file.write_text(yaml.safe_dump(tiny_study))
    assert cli("study", "create", study_file).code == 0
    process = spawn("worker", "--cpu", "--pack", "2")

    def running() -> bool:
        counts = cli("study", "list", "--json").json[0]["trials"]
        return bool(counts["running"] == 2)

    process.until(running)
    ran = process.send(signal.SIGTERM)
    assert ran.code == 0
    assert ran.err.count("given back") == 2
    assert "Traceback" not in ran.err
    assert cli("study", "list", "--json").json[0]["trials"]["running"] == 0


def test_coordinator_and_dashboard_leave_with_0_when_stopped(
    spawn: Spawn, home: Path, study_file: Path, cli: Cli
) -> None:
    assert cli("study", "create", study_file).code == 0
    coordinator = spawn("coordinator")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = spawn("dashboard", "--port", str(port))
    assert dashboard.popen.stdout.readline() == (
        f"dashboard at http://127.0.0.1:{port}/ (Ctrl-C to stop)\n"
    )
    coordinator.until(lambda: cli("study", "list", "--json").json[0]["trials"]["waiting"])
    for process, number in ((coordinator, signal.SIGINT), (dashboard, signal.SIGTERM)):
        ran = process.send(number)
        assert (ran.code, ran.out) == (0, "")
        assert "Traceback" not in ran.err


def test_a_port_in_use_is_one_line_and_code_1(cli: Cli, home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = cli("dashboard", "--port", str(taken.getsockname()[1]))
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "Address already in use" in ran.err


def test_a_hosted_coordinator_ends_with_its_standard_input(spawn: Spawn, home: Path) -> None:
    for said in ("", "anything"):
        process = spawn("coordinator", "--hosted")
        process.popen.stdin.write(said)
        process.popen.stdin.close()
        process.popen.stdin = None
        assert process.finish().code == 0


def test_a_hosted_coordinator_whose_storage_goes_away_says_so_and_that_another_may_try(
    spawn: Spawn, home: Path, server_url: str, database_url: str
) -> None:
    process = spawn("coordinator", "--hosted")
    name = database_url.partition("?")[0].rpartition("/")[2]
    other = server_url.replace(f"/{embedded.DATABASE}?", "/postgres?")
    leads = (
        "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE datname = %s AND locktype = 'advisory'"
    )
    with psycopg.connect(other, autocommit=True) as session:
        process.until(lambda: session.execute(leads, [name]).fetchone())
        session.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
    ran = process.finish()
    assert (ran.code, ran.out, ran.err.count("\n")) == (os.EX_TEMPFAIL, "", 1)
    assert "the coordinator ends: PostgreSQL at " in ran.err


def test_every_value_of_the_users_own_configuration_is_known() -> None:
    content = yaml.safe_load(Path("config/main_config.yaml").read_text())["real_training"]
    assert set(content) <= set(TrialSpec().flat())


def test_the_users_own_configuration_trains_as_it_was_asked_for(
    cli: Cli, home: Path, tmp_path: Path
) -> None:
    out = home / "data" / "dialogue_combined"
    assert cli("data", "build", "--sample", "--out", out).code == 0
    content = yaml.safe_load(Path("config/main_config.yaml").read_text())
    content["real_training"] |= {"lattice_size": [4, 4, 4], "state_size": 8, "epochs": 1}
    config = tmp_path / "main_config.yaml"
    config.write_text(yaml.safe_dump(content))
    name = "first_8x8x8_training"
    ran = cli("train", "--config", config, "--experiment_name", name)
    assert ran.code == 0
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "result.json"} == {
        each.name for each in (home / "experiments" / name).iterdir()
    }
    assert "PCA to 16 numbers" in ran.out
