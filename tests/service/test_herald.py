"""What happened is told: in order, at least once, and nobody waits for the receiver."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from cubeopt.db import census, orders, outbox
from cubeopt.db.orders import Order
from cubeopt.db.tables import StudyState
from cubeopt.report import champion, summary
from cubeopt.service import telling
from cubeopt.service.coordinator import coordinate
from cubeopt.service.courier import signature
from cubeopt.service.herald import Herald
from cubeopt.settings import Receiver

from ..receiving import receiving
from .conftest import until

SECRET = b"a secret of both"


@contextmanager
def heralding(engine: Any, url: str, **options: Any) -> Iterator[Herald]:
    options = {"judge": champion.standing, "quiet_seconds": 0.0, **options}
    with Herald(engine, Receiver(url, SECRET), **options) as herald:
        yield herald


def waiting(engine: Any) -> int:
    with engine.begin() as connection:
        statement = text("SELECT count(*) FROM cubeopt.outbox WHERE state = 'waiting'")
        return int(connection.execute(statement).scalar_one())


def hurry(engine: Any) -> None:
    """What waits for its next try is due now."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE cubeopt.outbox SET due_at = now() WHERE state = 'waiting'"))


def test_a_study_that_runs_to_its_end_is_told_with_its_best(
    engine: Any, create: Any, work: Any, tiny_study: Any
) -> None:
    create()
    with receiving() as receiver, ExitStack() as stack:
        stop = threading.Event()

        def lead() -> None:
            given = Receiver(receiver.url, SECRET)
            coordinate(engine, stop, 0.02, lambda: Herald(engine, given, champion.standing))

        thread = threading.Thread(target=lead)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        work()
        until(lambda: "study_complete" in receiver.events)
    claims = census.take(engine).claims
    assert claims.count >= 6 // 2 + 1  # packs of two, and the full run
    assert claims.seconds > 0
    told = receiver.received[-1]
    for each in receiver.received:
        stamp = int(each.headers["cubeopt-signature"].partition(",")[0].removeprefix("t="))
        assert each.headers["cubeopt-signature"] == signature(SECRET, stamp, each.content)
        assert each.headers["cubeopt-event"] == each.json["id"]
    assert set(told.json) == {"id", "event", "created", "study", "text", "facts"}
    assert told.json["created"].endswith("+00:00")
    assert (told.json["event"], told.json["study"]) == ("study_complete", "tiny")
    facts = told.json["facts"]
    assert facts["trials"]["complete"] + facts["trials"]["pruned"] == 6
    found = summary.load(engine, "tiny")
    best = summary.summarize(found.study, found.trials, found.runs).best
    assert best is not None
    assert (facts["best"]["trial"], facts["best"]["value"]) == (best.trial, best.value)
    assert (
        f"best is trial {best.trial}, fvu {best.value:.4g} (predict-the-mean 1" in told.json["text"]
    )


def test_a_new_best_is_told_beside_the_one_before(engine: Any, create: Any) -> None:
    record = create()
    standing = {"best": {"trial": 1, "value": 0.5}}
    judged: list[int] = []

    def judge(engine: Any, study: Any) -> Any:
        judged.append(study.id)
        return standing

    with receiving() as receiver, heralding(engine, receiver.url, judge=judge) as herald:
        herald._done.set()
        herald._thread.join()
        complete(engine, record.id, 1)
        for _ in range(2):  # the second time nothing has changed
            herald._bests_due = 0.0
            herald._announce_bests()
        assert judged == [record.id]
        standing = {"best": {"trial": 4, "value": 0.4}}
        complete(engine, record.id, 2)
        herald._bests_due = 0.0
        herald._announce_bests()
    found = outbox.last_best(engine, record.id)
    assert found is not None
    assert found[0] == {**standing, "before": {"best": {"trial": 1, "value": 0.5}}}
    assert waiting(engine) == 2


def complete(engine: Any, study_id: int, count: int) -> None:
    """*count* trials of a study are complete."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                WITH trial AS (
                    INSERT INTO cubeopt.trials (study_id, number, params)
                    SELECT :study, n, '{}' FROM generate_series(1, :count) n
                    ON CONFLICT DO NOTHING RETURNING id
                )
                INSERT INTO cubeopt.runs (trial_id, study_id, kind, spec, pack_key, target_epochs,
                    state, value)
                SELECT id, :study, 'short', '{}', 'k', 3, 'complete', 0.5 FROM trial
            """),
            {"study": study_id, "count": count},
        )


def test_within_the_quiet_time_the_newest_best_waits(engine: Any, create: Any) -> None:
    record = create()
    standing = {"best": {"trial": 1, "value": 0.5}}
    with (
        receiving() as receiver,
        heralding(engine, receiver.url, judge=lambda *_: standing, quiet_seconds=60.0) as herald,
    ):
        herald._done.set()
        herald._thread.join()

        def look() -> Any:
            herald._bests_due = 0.0
            herald._announce_bests()
            found = outbox.last_best(engine, record.id)
            return None if found is None else found[0]["best"]["trial"]

        complete(engine, record.id, 1)
        assert look() == 1
        for trial in (2, 3):
            standing = {"best": {"trial": trial, "value": 0.5 - trial / 10}}
            complete(engine, record.id, trial)
            assert look() == 1
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE cubeopt.outbox SET created_at = created_at - interval '61 s'")
            )
        assert look() == 3


def test_a_receiver_that_is_down_is_told_when_it_is_up_again_and_in_order(
    engine: Any, create: Any, caplog: Any
) -> None:
    create(name="one")
    create(name="two")
    with receiving() as receiver:
        receiver.status = 500
        orders.steer(engine, "one", Order.STOP)
        with heralding(engine, receiver.url):
            until(lambda: receiver.received)
            orders.steer(engine, "one", Order.RESUME)
            orders.steer(engine, "one", Order.STOP)
            orders.steer(engine, "two", Order.STOP)
            until(lambda: {each.json["study"] for each in receiver.received} == {"one", "two"})
            failed = list(receiver.received)
            receiver.status = 200
            until(lambda: hurry(engine) or not waiting(engine))
    ones = [each for each in receiver.received if each.json["study"] == "one"]
    tried = {each.json["id"] for each in failed if each.json["study"] == "one"}
    assert len(tried) == 1  # the second waits for the first
    assert [each.json["id"] for each in ones][-1] not in tried
    assert len({each.content for each in ones if each.json["id"] in tried}) == 1
    assert len({each.json["id"] for each in receiver.received}) == 3
    said = [each for each in caplog.messages if "messages wait" in each]
    assert said == [f"{receiver.url.removesuffix('/hook')} answered 500; messages wait"]


def test_what_is_due_is_told_before_it_leaves_and_nobody_is_waited_for(
    engine: Any, create: Any
) -> None:
    create()
    with receiving() as receiver:
        with heralding(engine, receiver.url):
            orders.steer(engine, "tiny", Order.STOP)
        assert receiver.events == ["study_stopped"]
        assert waiting(engine) == 0
        orders.steer(engine, "tiny", Order.RESUME)
        receiver.gate.clear()
        with heralding(engine, receiver.url):
            orders.steer(engine, "tiny", Order.STOP)
        assert waiting(engine) == 1
        receiver.gate.set()


def test_a_judge_that_fails_holds_up_no_message(engine: Any, create: Any, caplog: Any) -> None:
    def judge(*_: Any) -> Any:
        raise ValueError("no idea")

    create()
    orders.steer(engine, "tiny", Order.STOP)
    with receiving() as receiver, heralding(engine, receiver.url, judge=judge):
        until(lambda: receiver.events)
    assert receiver.events == ["study_stopped"]
    assert "best" not in receiver.received[0].json["facts"]
    assert "study tiny: nobody can say what is best of it" in caplog.messages


def test_a_message_too_old_is_given_up_and_the_next_one_sent(engine: Any, create: Any) -> None:
    record = create()
    orders.steer(engine, "tiny", Order.STOP)
    with receiving() as receiver:
        receiver.status = 410
        with heralding(engine, receiver.url, give_up_seconds=0.0):
            until(lambda: outbox.undelivered(engine, record.id).given_up)
            receiver.status = 200
            orders.steer(engine, "tiny", Order.RESUME)
            orders.steer(engine, "tiny", Order.STOP)
            until(lambda: len(receiver.received) == 2)
    found = outbox.undelivered(engine, record.id)
    assert (found.waiting, found.given_up) == (0, 1)
    assert found.last_error is not None
    assert found.last_error.endswith("answered 410")


Line = Callable[..., str]
BEST = {
    **{"trial": 7, "kind": "full", "epochs": 50, "metric": "fvu"},
    **{"value": 0.30712, "seeds": 3, "baselines": {"mean": 1.0, "pca": 0.342, "identity": 3.0}},
}


@pytest.mark.parametrize(
    ("kind", "study", "facts", "line"),
    [
        (
            "study_complete",
            "cube8",
            {"state": StudyState.COMPLETE, "reason": "all 9 trials have ended", "best": BEST},
            "cubeopt: study cube8 is complete: all 9 trials have ended; best is trial 7, "
            "fvu 0.3071 over 3 seeds (predict-the-mean 1, PCA 0.342), full run of 50 epochs",
        ),
        (
            "study_failed",
            "cube8",
            {"state": "failed", "reason": "5 trials\nfailed <!channel> & so"},
            "cubeopt: study cube8 is failed: 5 trials failed &lt;!channel&gt; &amp; so",
        ),
        (
            "new_best",
            "cube8",
            {"best": BEST, "before": {"best": {**BEST, "trial": 2, "value": 0.4, "seeds": 1}}},
            "cubeopt: study cube8: best is trial 7, fvu 0.3071 over 3 seeds (predict-the-mean 1, "
            "PCA 0.342), full run of 50 epochs; before: best is trial 2, fvu 0.4, full run of 50 "
            "epochs",
        ),
        (
            "new_best",
            "cube8",
            {
                "front": [
                    {**BEST, "second": "parameters", "second_value": 12000},
                    {**BEST, "trial": 2, "second": "parameters", "second_value": 800},
                ],
                "before": {"front": [{**BEST, "trial": 2}]},
            },
            "cubeopt: study cube8: a front of 2 trials, new there trial 7 (fvu 0.3071, "
            "parameters 1.2e+04)",
        ),
        (
            "worker_lost",
            None,
            {
                **{"worker": "lab-1", "host": "lab", "device": "cpu", "silent_seconds": 61.4},
                "runs": [{}, {}],
            },
            "cubeopt: worker lab-1 on lab (cpu) is lost: silent for 61 s; it held 2 runs, which "
            "others take over",
        ),
    ],
)
def test_each_message_is_a_line_for_people(kind: Any, study: Any, facts: Any, line: str) -> None:
    assert telling.line(kind, study, facts) == line
