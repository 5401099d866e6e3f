"""Several machines by TCP with passwords, on the server that docker compose would set up."""

import shutil
import stat
from dataclasses import dataclass, field
from urllib.parse import quote

import psutil
import psycopg
import pytest
import yaml

from cubeopt.db import engine as db_engine
from cubeopt.db import leader, records
from cubeopt.db.tables import StudyState, WorkerState

from ..deployment import PASSWORD, cluster
from .conftest import STUDY, Scene, Site, check_whole, until

SECRET = "quoted"  # a piece of the password that no quoting changes


@pytest.fixture
def lan(server_url, monkeypatch):
    """A server of a deployment, reached by TCP; what the test itself asks has the password."""
    assert server_url  # its start has made the user to run servers as
    with cluster() as server:
        with server.running("listen_addresses=", "fsync=off"):
            server.initialise()
        with server.running("listen_addresses=127.0.0.1", "fsync=off"):
            monkeypatch.setenv("PGPASSWORD", PASSWORD)
            yield server


@dataclass
class Machine(Site):
    """A site of its own that reaches the others' database and checkpoints."""

    given: dict[str, str] = field(default_factory=dict)  # to its processes

    @property
    def environment(self):
        kept = {name: value for name, value in super().environment.items() if name[:2] != "PG"}
        return {**kept, **self.given}


@dataclass
class Headquarters(Machine, Scene):
    """The machine that asks what became of the study."""


def address(server, user="cubeopt"):
    return f"postgresql://{user}@127.0.0.1:{server.port}/cubeopt"


def passfile(folder, server):
    file = folder / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"127.0.0.1:{server.port}:cubeopt:cubeopt:{escaped}\n")
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return str(file)


@pytest.fixture
def machines(lan, tiny_dataset, tmp_path):
    """Two machines with a dataset each and one folder of checkpoints, and no study yet."""
    shared = tmp_path / "shared"
    shared.mkdir()
    homes = [tmp_path / name for name in ("here", "there")]
    for home in homes:
        home.mkdir()
        (home / "checkpoints").symlink_to(shared)
    shutil.copytree(tiny_dataset, homes[0] / "data" / "tiny")
    shutil.copytree(tiny_dataset, tmp_path / "disk" / "tiny")
    (homes[1] / "data").symlink_to(tmp_path / "disk")
    (homes[0] / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    engine = db_engine.create(address(lan))
    url = address(lan)
    here = Headquarters(homes[0], url, given={"PGPASSWORD": PASSWORD}, engine=engine)
    there = Machine(homes[1], url, given={"PGPASSFILE": passfile(tmp_path, lan)})
    yield here, there
    for each in (here, there):
        each.close()
    engine.dispose()


def create(machine):
    made = machine.start("study", "create", machine.home / "tiny.yaml")
    assert machine.ended(made) == 0, machine.said(made)


def arguments(machines):
    """What everybody on this computer can see of our processes."""
    found = []
    for machine in machines:
        for process in machine.processes():
            try:
                found.append(process.cmdline())
            except psutil.Error:
                continue
    return found


def everything_said(machines):
    return [file.read_text() for each in machines for file in each.home.glob("said_*")]


def test_workers_on_two_machines_bring_a_study_to_its_end_by_tcp(machines, calm, lan):
    here, there = machines
    coordinator = here.start("coordinator")
    until(lambda: leader.lives(here.engine) or coordinator.poll() is not None)
    workers = [here.worker("--name", "here"), there.worker("--name", "there")]
    until(lambda: len(records.workers(here.engine)) == 2)
    create(here)
    until(lambda: records.study(here.engine, "tiny").state is not StudyState.RUNNING, 180)
    seen = arguments(machines)
    for process, machine in ((coordinator, here), *zip(workers, machines, strict=True)):
        process.terminate()
        assert machine.ended(process) == 0, machine.said(process)
    check_whole(here)
    assert here.outcome() == calm
    names = {each.id: each.name for each in records.workers(here.engine)}
    tries = records.attempts(here.engine, here.study_id)
    assert {names[each.worker_id] for each in tries} == {"here", "there"}
    assert {each.state for each in records.workers(here.engine)} == {WorkerState.GONE}
    assert len(seen) == 3
    said = [*everything_said(machines), str(seen), (lan.folder / "log").read_text(errors="replace")]
    assert not any(SECRET in each for each in said)


def test_a_worker_that_hosts_the_coordinator_shows_its_password_to_nobody(machines):
    here, there = machines
    create(here)
    secret = f"cubeopt:{quote(PASSWORD, safe='')}"
    there.url = there.url.replace("cubeopt@", f"{secret}@")
    there.given = {"CUBEOPT_LOG_LEVEL": "DEBUG"}
    crew = there.worker("--jobs", 2, "--until-done")
    seen = until(lambda: [each for each in arguments(machines) if "--hosted" in each][2:], 60)
    assert not any(SECRET in word for words in arguments(machines) for word in words)
    assert there.ended(crew, 240) == 0, there.said(crew)
    check_whole(here)
    assert seen
    assert "leading" in there.said(crew)  # so it said all that it has to say
    assert not any(SECRET in each for each in everything_said(machines))


def test_connections_that_break_cost_no_trial(machines, calm, lan):
    here, there = machines
    create(here)
    workers = [(here, here.worker("--until-done")), (there, there.worker("--until-done"))]
    owner = f"host={lan.folder} port={lan.port} user=postgres dbname=cubeopt"
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cubeopt'"
    with psycopg.connect(owner, autocommit=True) as session:
        for epochs in (1, 4, 7):
            until(lambda: reached(here, epochs), 120)  # noqa: B023 - called at once
            session.execute(cut)
            here.engine.dispose()  # our own were cut, too
    for machine, worker in workers:
        code = machine.ended(worker, 180)
        last = machine.said(worker).splitlines()[-1]
        assert code == 0 or (code == 3 and last.startswith("cubeopt: PostgreSQL at 127.0.0.1"))
    last = there.worker("--until-done")
    assert there.ended(last, 180) == 0, there.said(last)
    check_whole(here)
    assert here.outcome() == calm
    assert not any(SECRET in each for each in everything_said(machines))


def reached(machine, epochs):
    found = records.epochs(machine.engine, machine.study_id)
    return len({(each.trial_number, each.epoch) for each in found}) >= epochs


def wrong(place):
    """Ways to be wrong about the server in *place*: user, place, password, and what is said."""
    return [
        ("cubeopt", place, "mistaken-quoted", "password authentication failed for user"),
        ("nobody", place, PASSWORD, "password authentication failed for user"),
        ("cubeopt", place, None, "no password supplied"),
        ("cubeopt", "127.0.0.1:1", PASSWORD, "Connection refused"),
        ("cubeopt", "nowhere.invalid:5432", PASSWORD, "nowhere.invalid"),
        ("guest", place, "guest-quoted", "permission denied for database"),
    ]


COMMANDS = [("worker", "--cpu"), ("worker", "--cpu", "--jobs", 2), ("coordinator",)]


@pytest.mark.parametrize("how", ["environment", "address"])
def test_what_is_wrong_with_the_server_is_one_line_and_code_3(lan, tmp_path, how):
    owner = f"host={lan.folder} port={lan.port} user=postgres dbname=cubeopt"
    with psycopg.connect(owner, autocommit=True) as session:
        session.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-quoted'")

    def refused(command, user, place, password, said):
        given = {"PGPASSWORD": password} if password else {}
        url = f"postgresql://{user}@{place}/cubeopt"
        if how == "address" and password:
            given, url = {}, url.replace("@", f":{quote(password, safe='')}@")
        site = Machine(tmp_path, url, given={**given, "PGPASSFILE": str(tmp_path / "nothing")})
        process = site.start(*command)
        assert site.ended(process) == 3, site.said(process)
        line = site.said(process)
        assert line.startswith("cubeopt: PostgreSQL at ")
        assert line.count("\n") == 1
        assert said in line
        assert SECRET not in line

    place = f"127.0.0.1:{lan.port}"
    for command in COMMANDS:
        refused(command, *wrong(place)[0])
    for mistake in wrong(place)[1:]:
        refused(("coordinator",), *mistake)
    engine = db_engine.create(address(lan))
    db_engine.migrate(engine)
    engine.dispose()
    refused(("coordinator",), "guest", place, "guest-quoted", "permission denied for schema")
