"""The files of a deployment, tried without Docker: by our own parser and a real PostgreSQL."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer.main
import yaml

import cubeopt
from cubeopt.cli import main

from .deployment import PASSWORD, ROOT, SERVER, Server, cluster

COMPOSE = ROOT / "docker-compose.yml"
OURS = ("coordinator", "worker", "dashboard")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return content


def test_the_services_are_those_of_a_whole_deployment(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", *OURS}
    assert compose["services"]["postgres"]["image"] == "postgres:18"
    for name in OURS:
        assert compose["services"][name]["image"] == f"cubeopt:{cubeopt.__version__}"


@pytest.mark.parametrize("service", OURS)
def test_our_command_line_accepts_the_command_of_each_service(
    compose: dict[str, Any], service: str
) -> None:
    _parse(compose["services"][service]["command"])


def test_our_command_line_accepts_the_commands_in_the_comments() -> None:
    found = re.findall(r"^#   docker compose run --rm \w+ (.+)$", COMPOSE.read_text(), re.M)
    assert len(found) == 3
    for command in found:
        _parse(command.split())


def test_the_worker_reserves_the_gpu_that_it_trains_on(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["command"][:3] == ["worker", "--gpu", "0"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])


def test_the_dashboard_is_reached_from_this_machine_only(compose: dict[str, Any]) -> None:
    dashboard = compose["services"]["dashboard"]
    port = dashboard["command"][dashboard["command"].index("--port") + 1]
    assert dashboard["ports"] == [f"127.0.0.1:8080:{port}"]
    # It listens on all addresses of its container, so it is given a token, as the others are not.
    for name in OURS:
        given = "CUBEOPT_DASHBOARD_TOKEN" in compose["services"][name]["environment"]
        assert given == (name == "dashboard")
    assert dashboard["environment"]["PGPASSWORD"]
    assert f"127.0.0.1:{port}/healthz" in dashboard["healthcheck"]["test"][-1]
    assert "ports" not in compose["services"]["postgres"]


def test_every_variable_has_a_default_or_says_what_is_missing() -> None:
    variables = re.findall(r"\$\{[^}]*\}", COMPOSE.read_text())
    assert len(variables) >= 5
    for variable in variables:
        assert re.fullmatch(r"\$\{\w+(:-[^}]+|:\?[^}]+)\}", variable), variable
    assert not re.findall(r"\$[^{$]", COMPOSE.read_text())


def test_every_mounted_file_is_there_and_every_volume_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for mount in service["volumes"]:
            source = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", mount).split(":")[0]
            if not source.startswith("."):
                assert source in compose["volumes"]
            elif source != "./storage/data":  # made by the first run
                assert (ROOT / source).exists(), source
    # The image sources a script without this bit, and its settings would leak out.
    assert os.access(SERVER / "init.sh", os.X_OK)


def test_the_image_is_given_every_file_that_it_copies() -> None:
    let_through = {
        line.removeprefix("!").strip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    steps = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    copied = {name for step in steps for name in step.split()}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


@pytest.fixture(scope="module")
def server(server_url: str, compose: dict[str, Any]) -> Iterator[Server]:
    """An empty server, then our init.sh, then the server for good, by TCP with passwords."""
    assert server_url  # its start has made the user and opened the way to the programs
    with cluster() as server:
        with server.running("listen_addresses=", "fsync=off"):
            server.initialise()
            with pytest.raises(AssertionError, match="no response"):
                server.run(*_health(compose), PGPORT=str(server.port), PGHOST=str(server.folder))
        with server.running("listen_addresses=127.0.0.1", "fsync=off"):
            yield server


def test_the_server_takes_every_setting_of_our_file(server: Server) -> None:
    given = {}
    for line in (SERVER / "postgresql.conf").read_text().splitlines():
        name, found, value = line.partition("#")[0].partition("=")
        if found:
            given[name.strip()] = value.strip().strip("'")
    assert len(given) > 10
    address = f"host={server.folder} port={server.port} user=postgres dbname=cubeopt"
    with psycopg.connect(address) as session:
        # The test itself sets listen_addresses, which then cannot be applied.
        wrong = "SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL AND name <> %s"
        assert session.execute(wrong, ["listen_addresses"]).fetchall() == []
        rows = session.execute("SELECT name, setting FROM pg_file_settings").fetchall()
        assert dict(rows) == given
        hba = session.execute("SHOW hba_file").fetchone()
        assert hba == (str(server.folder / "data" / "pg_hba.conf"),)
    # The image asks for this one in this way before the first start.
    asked = server.run(
        "postgres", "-C", "password_encryption", "-D", server.folder / "data", *server.settings
    )
    assert asked.split()[-1] == "scram-sha-256"


def test_cubeopt_works_as_the_role_that_init_makes(
    server: Server,
    compose: dict[str, Any],
    tmp_path: Path,
    tiny_dataset: Path,
    tiny_study: dict[str, Any],
) -> None:
    address = compose["services"]["worker"]["environment"]["CUBEOPT_STORAGE"]
    assert address == "postgresql://cubeopt@postgres:5432/cubeopt"
    address = address.replace("@postgres:5432/", f"@127.0.0.1:{server.port}/")
    shutil.copytree(tiny_dataset, tmp_path / "data" / "tiny")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_study))

    def run(*arguments: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cubeopt", *arguments],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "CUBEOPT_HOME": str(tmp_path),
                "CUBEOPT_STORAGE": address,
                "PGPASSWORD": password,
            },
        )

    wrong = run("study", "list", password="not the password")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (3, "", 1)
    assert 'password authentication failed for user "cubeopt"' in wrong.stderr
    assert "not the password" not in wrong.stderr
    done = run("study", "create", str(tmp_path / "tiny.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(address, password=PASSWORD) as session:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tableowner = 'cubeopt'"
        for schema in ("cubeopt", "public"):  # ours and Optuna's
            row = session.execute(tables, [schema]).fetchone()
            assert row is not None
            assert row[0] > 5
        rights = (
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'cubeopt'"
        )
        assert session.execute(rights).fetchone() == (False, False, False)


def test_the_server_is_healthy_once_it_serves_for_good(
    server: Server, compose: dict[str, Any]
) -> None:
    said = server.run(*_health(compose), PGPORT=str(server.port))
    assert said == f"127.0.0.1:{server.port} - accepting connections\n"


def test_the_password_stands_in_no_log_of_the_server(server: Server) -> None:
    log = (server.folder / "log").read_text(errors="replace")
    assert "listening on IPv4" in log
    assert "quoted" not in log


def _health(compose: dict[str, Any]) -> list[str]:
    kind, *command = compose["services"]["postgres"]["healthcheck"]["test"]
    assert kind == "CMD"
    return command


def _parse(words: list[str]) -> None:
    """Parse *words* as our command line does, down to the command, without running it."""
    command: Any = typer.main.get_command(main.app)
    context = command.make_context("cubeopt", list(words))
    while getattr(command, "commands", None):
        name, command, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert name is not None
        context = command.make_context(name, list(words), parent=context)
