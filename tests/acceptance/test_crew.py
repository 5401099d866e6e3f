"""Several workers under one parent: stopped together, and none trains on for a parent that died."""

import signal

import psutil
import pytest

from cubeopt.db import recalls, records
from cubeopt.db.tables import EndClass, StudyState, WorkerState

from .conftest import LEASE_SECONDS, PACK, check_preempted, check_whole, until

JOBS = 2


def crew(scene, *arguments, pack=1):
    """A parent with its workers, all of which are in the middle of an epoch.

    With packs of one the study takes longest: it must not be over when something happens to it.
    """
    parent = scene.start(
        *("worker", "--cpu", "--jobs", JOBS, "--pack", pack, "--lease", LEASE_SECONDS),
        *("--name", "lab", *arguments),
    )
    until(lambda: parent.poll() is not None or len(training(scene)) == JOBS or over(scene), 120)
    assert parent.poll() is None, scene.said(parent)
    assert not over(scene), [records.runs(scene.engine, scene.study_id), scene.said(parent)]
    return parent


def over(scene):
    (study,) = records.studies(scene.engine)
    return study.state is not StudyState.RUNNING


def training(scene):
    """The process ids of the workers that hold runs with an epoch done."""
    runs = records.runs(scene.engine, scene.study_id)
    busy = {run.worker_id for run in runs if run.worker_id and run.epoch}
    return [each.pid for each in records.workers(scene.engine) if each.id in busy]


def ends(scene):
    return {each.end_class for each in records.attempts(scene.engine, scene.study_id)}


def test_a_crew_trains_the_study_and_every_line_says_whose_it_is(scene, calm):
    parent = scene.start(
        *("worker", "--cpu", "--jobs", JOBS, "--pack", PACK, "--lease", LEASE_SECONDS),
        *("--until-done", "--name", "lab"),
    )
    assert scene.ended(parent) == 0, scene.said(parent)
    check_whole(scene)
    assert scene.outcome() == calm
    workers = records.workers(scene.engine)
    assert {each.name for each in workers} == {"lab-cpu0", "lab-cpu1"}
    assert {each.provenance["threads"] for each in workers} == {1}
    said = scene.said(parent).splitlines()
    assert {line.partition(": ")[0] for line in said} == {"cpu0", "cpu1"}
    assert sum("runs ended here" in line for line in said) == JOBS
    assert scene.left_over() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_parent_leaves_with_0_after_all_gave_back_what_they_held(scene, number):
    parent = crew(scene)
    parent.send_signal(number)
    assert scene.ended(parent) == 0, scene.said(parent)
    assert ends(scene) <= {EndClass.PREEMPTED, EndClass.DONE}
    assert EndClass.PREEMPTED in ends(scene)
    states = [each.state for each in records.workers(scene.engine)]
    assert states == [WorkerState.GONE] * JOBS
    assert "given back" in scene.said(parent)
    assert scene.left_over() == []


def test_a_killed_parent_leaves_nobody_behind_and_everything_is_given_back(scene):
    parent = crew(scene)
    pids = [each.pid for each in records.workers(scene.engine)]
    parent.kill()
    parent.wait()
    until(lambda: not any(map(psutil.pid_exists, pids)), 60)
    until(lambda: scene.left_over() == [], 60)
    assert EndClass.LOST not in ends(scene)
    assert None not in ends(scene)
    assert EndClass.PREEMPTED in ends(scene)
    assert [each.state for each in records.workers(scene.engine)] == [WorkerState.GONE] * JOBS


def test_a_second_signal_ends_all_at_once(scene):
    parent = crew(scene)
    psutil.Process(training(scene)[0]).suspend()  # one that cannot leave in peace
    parent.send_signal(signal.SIGINT)
    until(lambda: "once more to leave at once" in scene.said(parent))
    parent.send_signal(signal.SIGINT)
    assert scene.ended(parent) == 128 + signal.SIGINT
    until(lambda: not scene.processes(), 60)


def test_one_that_dies_is_said_and_the_others_go_on(scene, calm):
    parent = crew(scene, "--until-done", pack=PACK)  # as the calm one was trained
    victim = training(scene)[0]
    (name,) = (each.name for each in records.workers(scene.engine) if each.pid == victim)
    psutil.Process(victim).kill()
    assert scene.ended(parent) == 1, scene.said(parent)
    label = name.removeprefix("lab-")
    said = f"cubeopt: worker {label} (pid {victim}) was killed by SIGKILL; the others go on\n"
    assert said in scene.said(parent)
    check_whole(scene)
    assert ends(scene) == {EndClass.DONE, EndClass.LOST}
    assert scene.outcome() == calm
    assert scene.left_over() == []


def test_what_is_wrong_for_all_is_one_line_before_any_is_started(scene):
    parent = scene.start("worker", "--cpu", "--jobs", JOBS, "--study", "nothing")
    assert scene.ended(parent) == 2
    assert scene.said(parent) == "cubeopt: there is no study named 'nothing'\n"
    assert records.workers(scene.engine) == []


def test_a_drained_worker_leaves_its_crew_and_that_is_no_failure(scene):
    parent = crew(scene, "--until-done")
    assert recalls.drain(scene.engine, "lab-cpu0")  # a command would take as long as the study
    assert scene.ended(parent) == 0, scene.said(parent)
    check_preempted(scene)
