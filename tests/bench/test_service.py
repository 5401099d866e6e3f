"""The service under load: what is measured is real, however small."""

from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import Engine

from cubeopt.bench import service
from cubeopt.db import outcomes, scratch
from cubeopt.db.tables import RunState
from cubeopt.errors import StorageError
from cubeopt.settings import Settings


def _databases(url: str) -> set[str]:
    with psycopg.connect(url) as session:
        return {name for (name,) in session.execute("SELECT datname FROM pg_database")}


def test_every_case_is_measured_and_nothing_is_left_behind(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MANY", 300)
    monkeypatch.setattr(service, "_CALLS", 4)
    monkeypatch.setattr(service, "_EPOCH_SECONDS", 0.05)
    monkeypatch.setattr(service, "_WATCHED_SECONDS", 3.0)
    before, told = _databases(database_url), list[str]()
    report = service.measure(settings, 2, 8, 1, told.append).as_json()
    assert (report["workers"], report["trials"], report["rounds"]) == (2, 8, 1)
    found = {(each["section"], each["what"], each["unit"]): each for each in report["figures"]}
    for words in ("no pruning", "successive halving"):
        section = f"2 workers, trials of {service.EPOCHS} reports that take no time, {words}"
        for unit in ("trials/s", "reports/s"):
            speeds = [found[section, who, unit]["value"] for who in ("the service", "plain Optuna")]
            times = found[section, f"the service's {unit} beside plain Optuna's", "times"]
            assert times["value"] == pytest.approx(speeds[0] / speeds[1])
            assert (times["goal"], times["met"]) == ("at least 10", times["value"] >= 10)
        for who in ("the service", "plain Optuna"):
            reports = found[section, who, "reports/trial"]["value"]
            least = service.EPOCHS if words == "no pruning" else 1
            assert least - 1e-9 <= reports <= service.EPOCHS + 1e-9
    found = {(each["what"], each["unit"]): each for each in report["figures"]}
    assert found["a report, 300 trials", "ms"]["value"] > 0
    assert 0.0 < found["a device waits", "share of its time"]["value"] < 1.0
    assert told[0] == "round 1 of 1: trials per second, no pruning"
    assert _databases(database_url) == before


def test_a_scratch_database_is_dropped_whatever_happens(
    settings: Settings, database_url: str
) -> None:
    before = _databases(database_url)
    found = []
    with suppress(KeyboardInterrupt), scratch.database(settings):
        found += _databases(database_url) - before
        raise KeyboardInterrupt
    assert len(found) == 1
    assert _databases(database_url) == before


def test_a_server_that_is_not_there_is_one_clear_line(settings: Settings) -> None:
    nowhere = Settings(settings.storage_dir, "postgresql://nobody@/x?host=/nowhere", "WARNING")
    with pytest.raises(StorageError, match="PostgreSQL at /nowhere"), scratch.database(nowhere):
        pass


def test_what_is_filled_in_looks_trained_and_shown(engine: Engine) -> None:
    study_id = service.create(engine, service.spec_of("filled", 10))
    scratch.fill(engine, study_id, 3, 5)
    trials = outcomes.read(engine, study_id)
    assert [(each.number, each.state, len(each.values)) for each in trials] == [
        (number, RunState.COMPLETE, 5) for number in range(3)
    ]
    assert outcomes.unmirrored(engine, study_id) == []
    assert outcomes.standing(engine, study_id).numbers == frozenset()
