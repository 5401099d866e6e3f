"""A worker that is told to leave loses no batch, and no time."""

import re
import signal
import subprocess
import sys
import time

import pytest

from cubeopt.db import records
from cubeopt.db.tables import EndClass, RunState, WorkerState

from .conftest import LEASE_SECONDS, PACK, check_preempted, until

GRACE = 3.0
# A worker whose steps take a minute from the second epoch on, as those of a huge cube would.
SLOW = """
import time
from cubeopt.cli import main
from cubeopt.training.loop import PackRun
step = PackRun.step
def slow(run):
    if any(run.steps_done(slot) >= run.steps_per_epoch for slot in run.busy):
        print("in a long step", flush=True)
        time.sleep(60)
    return step(run)
PackRun.step = slow
main.main()
"""


def test_a_worker_told_to_leave_in_the_middle_of_an_epoch_loses_no_batch_and_no_bit(scene, calm):
    (worker,) = scene.workers(1)
    scene.in_the_middle_of_an_epoch(worker)
    held = scene.held(worker)
    worker.send_signal(signal.SIGTERM)
    assert scene.ended(worker) == 0, scene.said(worker)
    left = {run.id: run for run in records.runs(scene.engine, scene.study_id)}
    for run in held:
        found = left[run.id]
        assert found.state is RunState.WAITING
        assert re.search(r"/epoch_0000\d_batch_000\d\d\.t1$", found.checkpoint)
        assert found.checkpoint_epoch == found.epoch
        kept = [each.name for each in scene.checkpoints(run.trial_number).iterdir()]
        assert kept == [found.checkpoint.rpartition("/")[2]]
    worker = scene.worker("--until-done")
    assert scene.ended(worker) == 0, scene.said(worker)
    check_preempted(scene)
    assert scene.outcome() == calm
    assert scene.left_over() == []


@pytest.fixture
def slow(scene):
    """A worker in the middle of a step that takes a minute."""
    arguments = ["worker", "--cpu", "--pack", PACK, "--lease", LEASE_SECONDS, "--grace", GRACE]
    command = [sys.executable, "-c", SLOW, *map(str, arguments)]
    with (scene.home / "said_slow").open("wb") as file:
        process = subprocess.Popen(command, env=scene.environment, stdout=file, stderr=file)
    try:
        until(lambda: "in a long step" in (scene.home / "said_slow").read_text())
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_step_longer_than_the_grace_is_left_and_the_runs_go_back(scene, slow):
    begun = time.monotonic()
    slow.send_signal(signal.SIGTERM)
    assert slow.wait(20) == 0
    assert time.monotonic() - begun < GRACE + 1.0  # the machine is busy
    runs = records.runs(scene.engine, scene.study_id)
    assert {run.state for run in runs} == {RunState.WAITING}
    assert [run.checkpoint_epoch for run in runs if run.checkpoint] == [1] * PACK
    attempts = records.attempts(scene.engine, scene.study_id)
    assert [each.end_class for each in attempts] == [EndClass.PREEMPTED] * PACK
    assert [each.state for each in records.workers(scene.engine)] == [WorkerState.GONE]
    assert "the time to leave is over; 2 runs given back" in (scene.home / "said_slow").read_text()


def test_a_second_signal_leaves_at_once_and_the_leases_expire(scene, slow):
    slow.send_signal(signal.SIGINT)
    until(lambda: "once more to leave at once" in (scene.home / "said_slow").read_text())
    begun = time.monotonic()
    slow.send_signal(signal.SIGINT)
    assert slow.wait(20) == 128 + signal.SIGINT
    assert time.monotonic() - begun < 1.0
    runs = records.runs(scene.engine, scene.study_id)
    assert [run.state for run in runs].count(RunState.RUNNING) == PACK
