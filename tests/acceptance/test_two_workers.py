"""Whoever dies, sleeps or is told to leave: no work is lost, none is counted twice."""

import signal
import subprocess

import psutil
import pytest

from cubeopt.db import leader, records
from cubeopt.db.tables import EndClass, RunState, StudyState, WorkerState

from .conftest import PACK, SHORT, TRIALS, Scene, check_whole, until

OF_OLDER_LEASES = ("epoch_00001.t0", ".epoch_00001.t0.x1y2z3a4")  # a checkpoint, and a draft
OF_A_NEWER_LEASE = "epoch_00001.t9"
PATIENCE_SECONDS = 10.0  # for a process that was asked to leave


def host_and_guest(
    scene: Scene, workers: list[subprocess.Popen[bytes]]
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """The worker that hosts the coordinator, and the other."""

    def only_host() -> psutil.Process | None:
        hosts = scene.hosts()
        return hosts[0] if len(hosts) == 1 and leader.lives(scene.engine) else None

    pid = until(only_host).pid
    host, guest = sorted(workers, key=lambda worker: worker.pid != pid)
    return host, guest


@pytest.mark.parametrize("victim_is_host", [True, False], ids=["host", "guest"])
def test_a_worker_killed_in_the_middle_of_an_epoch_costs_no_trial_and_no_bit(
    scene, calm, victim_is_host
):
    folders = [scene.checkpoints(number) for number in range(TRIALS)]
    for folder in folders:
        for name in (*OF_OLDER_LEASES, OF_A_NEWER_LEASE):
            (folder / name).mkdir(parents=True)
    host, guest = host_and_guest(scene, scene.workers(2))
    victim, survivor = (host, guest) if victim_is_host else (guest, host)
    scene.in_the_middle_of_an_epoch(victim)
    victim.kill()
    victim.wait()
    held = scene.held(victim)
    assert len(held) == PACK
    assert {run.epoch for run in held} <= set(range(1, SHORT))
    assert scene.ended(survivor) == 0, scene.said(survivor)

    check_whole(scene)
    attempts = records.attempts(scene.engine, scene.study_id)
    lost = [each for each in attempts if each.end_class is not EndClass.DONE]
    assert [each.end_class for each in lost] == [EndClass.LOST] * PACK
    assert {(each.run_id, each.token) for each in lost} == {(run.id, run.token) for run in held}
    again = {each.run_id: each for each in attempts if each.token == 2}
    for run in held:
        assert again[run.id].from_epoch == run.checkpoint_epoch == run.epoch
        assert again[run.id].worker_id == scene.worker_id(survivor)
        begun = f"trial {run.trial_number} starts at epoch {run.checkpoint_epoch}/{SHORT}"
        assert begun in scene.said(survivor)
    assert scene.outcome() == calm
    assert scene.left_over() == []
    twice = {run.trial_number for run in held}
    for number, folder in enumerate(folders):
        kept = {each.name for each in folder.iterdir()}
        assert kept == {f"epoch_{SHORT:05d}.t{1 + (number in twice)}", OF_A_NEWER_LEASE}


def test_a_worker_that_slept_past_its_lease_writes_nothing_more_and_works_on(scene, calm):
    sleeper, other = scene.workers(2)
    scene.in_the_middle_of_an_epoch(sleeper)
    sleeper.send_signal(signal.SIGSTOP)
    held = {run.id for run in scene.held(sleeper)}
    assert len(held) == PACK
    until(lambda: {run.id for run in scene.held(other)} == held)
    # While the other stands still with the runs in its hands, the sleeper ends its epoch of them.
    other.send_signal(signal.SIGSTOP)
    sleeper.send_signal(signal.SIGCONT)
    # Its heartbeat says so, or its ear, whoever wakes first.
    until(lambda: scene.said(sleeper).count("another worker") == PACK)
    other.send_signal(signal.SIGCONT)
    other.terminate()
    assert scene.ended(other, PATIENCE_SECONDS) == 0, scene.said(other)
    assert scene.ended(sleeper) == 0, scene.said(sleeper)

    check_whole(scene)
    attempts = records.attempts(scene.engine, scene.study_id)
    overslept = [each for each in attempts if each.run_id in held and each.token == 1]
    assert [each.end_class for each in overslept] == [EndClass.LOST] * PACK
    woken = [each for each in attempts if each.worker_id == scene.worker_id(sleeper)][PACK:]
    assert woken
    assert {each.end_class for each in woken} == {EndClass.DONE}
    assert scene.outcome() == calm
    assert scene.left_over() == []


def test_coordinators_stand_in_for_each_other_and_the_study_goes_on_without_them(scene, calm):
    first = scene.start("coordinator")
    until(lambda: leader.lives(scene.engine))
    second = scene.start("coordinator")
    worker = scene.worker("--until-done")
    until(lambda: records.workers(scene.engine))
    assert second.poll() is None
    assert scene.hosts() == []
    first.kill()
    first.wait()
    scene.in_the_middle_of_an_epoch(worker)
    until(lambda: leader.lives(scene.engine))
    for each in scene.processes():
        if "coordinator" in each.cmdline():
            each.kill()
    second.wait()
    # The server may take a moment to see that a killed leader is gone: its life alone says nothing.
    until(lambda: [each.pid for each in scene.hosts()] == [worker.pid])
    until(lambda: leader.lives(scene.engine))
    assert scene.ended(worker) == 0, scene.said(worker)

    check_whole(scene)
    assert scene.outcome() == calm
    assert scene.left_over() == []


def test_a_worker_that_is_told_to_leave_gives_its_runs_back_at_once(scene):
    (worker,) = scene.workers(1)
    scene.in_the_middle_of_an_epoch(worker)
    held = scene.held(worker)
    worker.terminate()
    assert scene.ended(worker, PATIENCE_SECONDS) == 0, scene.said(worker)

    runs = {run.id: run for run in records.runs(scene.engine, scene.study_id)}
    assert {run.state for run in runs.values()} == {RunState.WAITING}
    assert all(0 < runs[each.id].checkpoint_epoch < SHORT for each in held)
    attempts = records.attempts(scene.engine, scene.study_id)
    assert [each.end_class for each in attempts] == [EndClass.PREEMPTED] * PACK
    assert [each.state for each in records.workers(scene.engine)] == [WorkerState.GONE]
    assert records.study(scene.engine, "tiny").state is StudyState.RUNNING
    assert scene.left_over() == []
