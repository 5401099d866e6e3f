"""Somebody always leads, and a coordinator that a worker hosts dies with it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cubeopt.db import leader
from cubeopt.errors import StorageError
from cubeopt.service import host
from cubeopt.service.host import CoordinatorHost


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(host, "_CHECK_SECONDS", 0.0)


@pytest.fixture
def hosting(engine):
    with CoordinatorHost(engine) as started:
        yield started


def children():
    """Our coordinators; one that was begun this moment may have no command line yet."""
    found = psutil.Process().children()
    return [each for each in found if each.is_running() and "coordinator" in each.cmdline()]


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def led(hosting, engine):
    """Ensure, again and again, until somebody leads."""
    hosting.ensure()
    return leader.lives(engine)


def test_one_coordinator_is_started_and_it_ends_with_its_host(engine):
    with CoordinatorHost(engine) as hosting:
        until(lambda: led(hosting, engine))
        (child,) = until(children)
        hosting.ensure()
        assert children() == [child]
        assert "postgresql" not in " ".join(child.cmdline())  # the address may hold a password
    assert not child.is_running()
    assert not leader.lives(engine)


def test_none_is_started_where_another_process_leads(engine, hosting):
    with leader.lead(engine):
        hosting.ensure()
        assert children() == []


def test_a_killed_coordinator_is_replaced(engine, hosting):
    until(lambda: led(hosting, engine))
    (first,) = until(children)
    first.kill()
    until(lambda: not leader.lives(engine))
    until(lambda: led(hosting, engine))
    (second,) = until(children)
    assert second.pid != first.pid


def test_a_coordinator_that_finds_another_leading_leaves_in_peace(engine, hosting, capfd):
    hosting.ensure()
    (child,) = until(children)
    with leader.lead(engine) as leadership:
        assert leadership is not None
        assert child.wait(30) == 0
        assert capfd.readouterr().err == ""


def test_a_stopped_coordinator_does_not_hold_its_host_up(engine, monkeypatch):
    monkeypatch.setattr(host, "_PATIENCE_SECONDS", 0.2)
    with CoordinatorHost(engine) as hosting:
        hosting.ensure()
        (child,) = until(children)
        child.suspend()
    assert not child.is_running()


def test_a_coordinator_that_ends_with_an_error_again_and_again_is_reported(
    engine, hosting, monkeypatch
):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    def given_up():
        try:
            hosting.ensure()
        except StorageError as error:
            return str(error)
        return None

    assert "ended with an error 3 times in a row" in until(given_up)


def test_a_coordinator_dies_with_a_host_that_is_killed(engine):
    code = (
        "import sys, time\n"
        "from cubeopt.db import engine\n"
        "from cubeopt.service.host import CoordinatorHost\n"
        "with CoordinatorHost(engine.create(sys.argv[1])) as host:\n"
        "    host.ensure()\n"
        "    time.sleep(60)\n"
    )
    address = engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", code, address])
    try:
        until(lambda: leader.lives(engine))
        (child,) = psutil.Process(process.pid).children()
        os.kill(process.pid, signal.SIGKILL)
        child.wait(10)
        assert not leader.lives(engine)
    finally:
        process.kill()
        process.wait()


def test_a_coordinator_that_is_killed_again_and_again_is_no_error(engine, hosting):
    for _ in range(host._FAILURES + 1):
        hosting.ensure()
        (child,) = until(children)
        child.kill()
        until(lambda child=child: child.status() == psutil.STATUS_ZOMBIE)
    until(lambda: led(hosting, engine))
