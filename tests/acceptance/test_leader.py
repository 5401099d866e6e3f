"""One coordinator leads, and when it dies another does within seconds."""

import time

import psutil
import pytest
import yaml

from cubeopt.db import leader, records
from cubeopt.db.tables import StudyState

from .conftest import STUDY, until

WORKERS, DEATHS = 3, 5
SECONDS = 60.0  # until a new one must lead, on a machine as busy as it may be
_LEADER = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = 1668637286 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def leading(scene):
    """The backends of PostgreSQL that hold the leader's lock: none, or one."""
    with scene.engine.connect() as connection:
        return connection.exec_driver_sql(_LEADER).scalars().all()


def coordinators(scene):
    return [each for each in scene.processes() if "--hosted" in _words(each)]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def long_study(scene):
    """A study that does not end while we look."""
    content = {**STUDY, "name": "long", "base": {**STUDY["base"], "epochs": 1000}}
    content["rungs"] = {"epochs": [1000]}
    file = scene.home / "long.yaml"
    file.write_text(yaml.safe_dump(content))
    made = scene.start("study", "create", file)
    assert scene.ended(made) == 0, scene.said(made)
    return records.study(scene.engine, "long")


def test_killed_five_times_in_a_row_the_leader_is_followed_by_one_other(scene, long_study):
    assert leader._LEADER_LOCK == 1668637286
    workers = [scene.worker("--study", "long") for _ in range(WORKERS)]
    waits = []
    for death in range(DEATHS):
        (former,) = until(lambda: leading(scene))
        # Only the leader's child is left: who came second has seen it and gone.
        (child,) = until(lambda: only(coordinators(scene)))
        start = time.monotonic()
        child.kill()
        until(lambda former=former: set(leading(scene)) - {former}, SECONDS)
        waits.append(time.monotonic() - start)
        assert len(leading(scene)) == 1, death
        assert all(each.poll() is None for each in workers)
    print(f"\nseconds until another led: {', '.join(f'{each:.1f}' for each in waits)}")
    assert records.study(scene.engine, "long").state is StudyState.RUNNING
    for each in workers:
        each.terminate()
    for each in workers:
        assert scene.ended(each) == 0, scene.said(each)
    assert scene.left_over() == []


def only(found):
    return found if len(found) == 1 else None
