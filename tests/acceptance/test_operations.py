"""A person steers studies, trials and workers that run; real processes obey within seconds."""

import time

import pytest

from cubeopt.db import interventions, orders, recalls, records
from cubeopt.db.orders import Order
from cubeopt.db.tables import EndClass, RunState, StudyState, WorkerState
from cubeopt.errors import StateError

from .conftest import PACK, TRIALS, check_preempted, until

SECONDS = 5.0  # until a running worker must have obeyed; alone it takes a fraction of one


def run(scene, *arguments):
    """What a command said; it must end with 0."""
    process = scene.start(*arguments)
    assert scene.ended(process) == 0, scene.said(process)
    return scene.said(process)


def waiting(scene):
    return {each.state for each in records.runs(scene.engine, scene.study_id)} == {RunState.WAITING}


def test_a_paused_study_is_left_within_seconds_and_resumes_to_the_same_numbers(scene, calm):
    (worker,) = scene.workers(1)
    scene.in_the_middle_of_an_epoch(worker)
    other = scene.worker()
    assert orders.steer(scene.engine, "tiny", Order.PAUSE)
    until(lambda: waiting(scene), SECONDS)
    assert run(scene, "study", "pause", "tiny") == "study tiny is paused already\n"
    assert scene.ended(worker) == 0, scene.said(worker)  # --until-done: none is running
    time.sleep(1.0)
    assert waiting(scene)
    assert run(scene, "study", "resume", "tiny") == "study tiny is running\n"
    ended = (StudyState.COMPLETE, StudyState.FAILED)
    until(lambda: records.study(scene.engine, "tiny").state in ended, 120)
    other.terminate()
    assert scene.ended(other) == 0, scene.said(other)

    check_preempted(scene)
    assert scene.outcome() == calm
    assert scene.left_over() == []


def test_a_drained_worker_gives_back_what_it_holds_and_leaves_with_0(scene):
    first, second = scene.workers(2)
    names = {each.pid: each.name for each in records.workers(scene.engine)}
    name = names[first.pid]
    scene.in_the_middle_of_an_epoch(first)
    held = {each.id for each in scene.held(first)}
    assert recalls.drain(scene.engine, name)
    until(lambda: not scene.held(first), SECONDS)
    assert scene.ended(first) == 0, scene.said(first)
    assert run(scene, "workers", "drain", name).endswith(" already, or has gone\n")
    states = {each.pid: each.state for each in records.workers(scene.engine)}
    assert states[first.pid] is WorkerState.GONE
    attempts = records.attempts(scene.engine, scene.study_id)
    left = [each for each in attempts if each.run_id in held and each.token == 1]
    assert [each.end_class for each in left] == [EndClass.PREEMPTED] * PACK
    assert scene.ended(second) == 0, scene.said(second)
    check_preempted(scene)
    assert scene.left_over() == []


def test_a_pruned_trial_is_let_go_and_its_neighbours_train_on(scene, calm):
    (worker,) = scene.workers(1)
    scene.in_the_middle_of_an_epoch(worker)
    first, _ = scene.held(worker)
    assert interventions.prune(scene.engine, "tiny", first.trial_number)
    trial = f"tiny: trial {first.trial_number} "
    until(lambda: trial + "let go" in scene.said(worker) or trial + "lost" in scene.said(worker), 5)
    assert scene.ended(worker) == 0, scene.said(worker)
    runs = {each.id: each for each in records.runs(scene.engine, scene.study_id)}
    assert (runs[first.id].state, runs[first.id].epoch) == (RunState.PRUNED, first.epoch)
    values = {row[0]: row[4] for row in calm["runs"] if row[1] == "short"}
    for each in runs.values():
        if each.kind == "short" and each.id != first.id:
            assert each.value == values[each.trial_number]


def test_a_stopped_study_is_deleted_with_its_checkpoints(scene):
    (worker,) = scene.workers(1)
    scene.in_the_middle_of_an_epoch(worker)
    with pytest.raises(StateError, match="first: cubeopt study stop tiny"):
        orders.delete(scene.engine, "tiny")
    assert orders.steer(scene.engine, "tiny", Order.STOP)
    said = run(scene, "study", "delete", "tiny", "--yes")
    assert f"trials            {TRIALS}\n" in said
    assert records.studies(scene.engine) == []
    assert scene.ended(worker) == 0, scene.said(worker)
    assert not (scene.home / "checkpoints" / "tiny").exists()
