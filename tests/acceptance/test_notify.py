"""Real coordinators tell a real receiver, whoever of them is killed."""

import os
import signal

from cubeopt.db import orders, records
from cubeopt.db.orders import Order

from ..receiving import receiving
from .conftest import until

SECRET = "a secret of both"


def coordinator(scene, url):
    words = ("env", f"CUBEOPT_NOTIFY_URL={url}", f"CUBEOPT_NOTIFY_SECRET={SECRET}")
    return scene.start("coordinator", before=words)


def waiting(scene):
    with scene.engine.connect() as connection:
        statement = "SELECT count(*) FROM cubeopt.outbox WHERE state = 'waiting'"
        return connection.exec_driver_sql(statement).scalar_one()


def test_a_leader_killed_before_the_receiver_has_answered_is_followed_by_one_that_tells_again(
    scene,
):
    with receiving() as receiver:
        receiver.gate.clear()
        leader = coordinator(scene, receiver.url)
        orders.steer(scene.engine, "tiny", Order.STOP)
        until(lambda: receiver.received)
        second = coordinator(scene, receiver.url)
        os.kill(leader.pid, signal.SIGKILL)
        scene.ended(leader)
        receiver.gate.set()
        until(lambda: not waiting(scene))
        orders.steer(scene.engine, "tiny", Order.RESUME)
        orders.steer(scene.engine, "tiny", Order.STOP)
        until(lambda: len({each.json["id"] for each in receiver.received}) == 2)
        second.terminate()
        assert scene.ended(second) == 0, scene.said(second)
    first, *again, last = receiver.received
    assert len(again) == 1
    assert again[0].content == first.content
    assert again[0].headers["cubeopt-event"] == first.headers["cubeopt-event"] == first.json["id"]
    assert last.json["id"] != first.json["id"]
    assert all("cubeopt-signature" in each.headers for each in receiver.received)


def test_a_killed_worker_is_told_by_the_coordinator_of_another_and_so_is_the_end(scene):
    with receiving() as receiver:
        victim = scene.worker("--name", "victim", "--notify", receiver.url)
        until(lambda: records.workers(scene.engine))
        scene.in_the_middle_of_an_epoch(victim)
        hosted = [each.cmdline() for each in scene.processes() if each.pid != victim.pid]
        assert [words[3:] for words in hosted] == [["coordinator", "--hosted"]]  # no address
        victim.kill()
        scene.ended(victim)
        # It leaves as soon as the study has ended, and the coordinator that it hosts with it.
        other = scene.worker("--name", "other", "--until-done", "--notify", receiver.url)
        assert scene.ended(other) == 0, scene.said(other)
        told = [each.json for each in receiver.received]
    (lost,) = [each for each in told if each["event"] == "worker_lost"]
    assert (lost["facts"]["worker"], lost["study"]) == ("victim", None)
    assert {each["study"] for each in lost["facts"]["runs"]} == {"tiny"}
    assert lost["text"].startswith("cubeopt: worker victim on ")
    (complete,) = [each for each in told if each["event"] == "study_complete"]
    assert complete["facts"]["trials"] == {"complete": 4}
    assert complete["facts"]["best"]["kind"] == "full"
