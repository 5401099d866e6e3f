"""What Prometheus reads, through the real server, equals the database."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from cubeopt import __version__
from cubeopt.dashboard.exposition import Exposition
from cubeopt.db import beats, leases, queue, records
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import NewTrial
from cubeopt.db.waits import Waits
from cubeopt.errors import StorageError

from .conftest import serving

TOKEN = "a-token-of-more-than-16-characters"
NASTY = 'a"b\\c\n<script>'


def study(engine: Engine, name: str) -> int:
    return records.create_study(
        engine,
        name=name,
        spec={"name": name},
        direction="minimize",
        metric="fvu",
        dataset="d",
        dataset_fingerprint="f00d",
        dataset_rows={},
        baselines={},
        code_version="0",
    ).id


@pytest.fixture
def busy(engine: Engine) -> Engine:
    """A study with five trials, of which a worker holds two and has recorded three epochs."""
    study_id = study(engine, NASTY)
    queue.enqueue(engine, study_id, [NewTrial(n, {}, {"seed": n}, "k", 3) for n in range(5)])
    worker = queue.register(engine, "lab-1", "lab", 1, "cpu", {})
    claims = queue.claim(engine, worker, 2, 2, 60.0, "cpu", {})
    for epoch, count in ((1, 2), (2, 1)):
        reports = [EpochReport(each.run_id, each.token, epoch, 0.5, {}) for each in claims[:count]]
        leases.report(engine, reports, lambda question: False)
    beats.beat(engine, worker, [], 60.0, Waits(2, 0.25, (0, 1, 0, 0, 0, 0, 0, 1, *[0] * 5)))
    return engine


def told(content: str) -> dict[tuple[str, frozenset[Any]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(content)
        for sample in family.samples
    }


def test_the_text_has_what_the_tables_have(busy: Engine, tmp_path: Path) -> None:
    with serving(busy, tmp_path) as served:
        answer = served.ask("/metrics")
        rows = served.ask("/data/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = told(answer.text)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("cubeopt_trials", study=NASTY, state="waiting") == 3
    assert value("cubeopt_trials", study=NASTY, state="running") == 2
    assert value("cubeopt_trials", study=NASTY, state="failed") == 0
    assert value("cubeopt_runs", study=NASTY, kind="short", state="running") == 2
    assert value("cubeopt_queue_depth", study=NASTY) == 3
    assert value("cubeopt_epochs_total", study=NASTY) == 3
    assert 0 < value("cubeopt_device_seconds_total", study=NASTY) < 600
    assert value("cubeopt_attempts_total", study=NASTY, **{"class": "error"}) == 0
    assert value("cubeopt_studies", state="running") == 1
    assert value("cubeopt_workers") == 1
    assert 0 <= value("cubeopt_worker_heartbeat_age_seconds", worker="lab-1") < 600
    assert value("cubeopt_worker_leases", worker="lab-1", device="cpu") == 2
    assert value("cubeopt_leases_expired") == 0
    assert value("cubeopt_leader") == 0
    assert value("cubeopt_claim_duration_seconds_count") == 2
    assert value("cubeopt_claim_duration_seconds_sum") == 0.25
    assert value("cubeopt_claim_duration_seconds_bucket", le="0.001") == 0
    assert value("cubeopt_claim_duration_seconds_bucket", le="0.1") == 1
    assert value("cubeopt_claim_duration_seconds_bucket", le="+Inf") == 2
    assert value("cubeopt_messages", kind="worker_lost", state="waiting") == 0
    (build,) = [dict(labels) for name, labels in found if name == "cubeopt_build_info"]
    assert build["version"] == __version__
    (epochs,) = [each for each in rows.json if each["name"] == "cubeopt_epochs"]
    assert epochs["samples"] == [{"labels": {"study": NASTY}, "value": 3}]


def test_a_scrape_shows_the_token_as_a_bearer(busy: Engine, tmp_path: Path) -> None:
    with serving(busy, tmp_path, TOKEN) as served:
        assert [served.ask(path).status for path in ("/metrics", "/data/metrics")] == [401, 401]
        answer = served.ask("/metrics", Authorization=f"Bearer {TOKEN}")
    assert answer.status == 200
    assert "cubeopt_workers 1.0\n" in answer.text


def test_openmetrics_is_given_to_who_asks_for_it(busy: Engine, tmp_path: Path) -> None:
    with serving(busy, tmp_path) as served:
        answer = served.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


def test_no_series_is_of_one_trial(busy: Engine) -> None:
    before = len(told(Exposition(busy).text()[0].decode()))
    (record,) = records.studies(busy)
    queue.enqueue(busy, record.id, [NewTrial(n, {}, {}, "k", 3) for n in range(5, 200)])
    assert len(told(Exposition(busy).text()[0].decode())) == before


def test_an_answer_is_given_again_for_twenty_times_as_long_as_it_took(busy: Engine) -> None:
    times = iter([0.0, 2.0, 41.9, 42.0, 43.0])  # it took 2 s, so it holds until 42
    exposition = Exposition(busy, clock=lambda: next(times))
    first = exposition.families()
    with busy.begin() as connection:
        connection.execute(text("UPDATE cubeopt.workers SET state = 'gone'"))
    assert exposition.families() is first
    assert exposition.families() is not first


def test_without_its_storage_a_scrape_is_a_503_that_says_so(busy: Engine, tmp_path: Path) -> None:
    with serving(busy, tmp_path) as served:
        with busy.begin() as connection:
            connection.execute(text("ALTER TABLE cubeopt.workers RENAME TO hidden"))
        answer = served.ask("/metrics")
    assert answer.status == 503
    assert 'relation "cubeopt.workers" does not exist' in answer.json["reason"]
    with pytest.raises(StorageError):
        Exposition(busy).families()
