"""Nobody waits for ever: runs of a rare shape, of another study, short ones beside full ones."""

from typing import Any

import pytest

from cubeopt.db import leases, queue
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import OVERTAKERS, Claim
from cubeopt.db.tables import RunKind


def _end(hands: Any, claim: Claim) -> None:
    hands.report(claim, claim.target_epochs, 0.5)


def _refilled(hands: Any, first: Claim, limit: int = 1) -> list[Claim]:
    return hands.claim(limit, pack_key=first.pack_key, width=first.width)


def _drained(hands: Any, keep: Any = lambda number: None, width: int = 2) -> list[Claim]:
    """The order in which one worker with a pack of *width* begins all runs, *keep* asking more."""
    begun: list[Claim] = []
    while pack := hands.claim(width, preferred_width=width):
        begun += pack
        while pack:
            _end(hands, pack.pop(0))
            keep(len(begun))
            more = _refilled(hands, begun[-1], width - len(pack))
            begun, pack = [*begun, *more], [*pack, *more]
    return begun


@pytest.mark.parametrize("same_study", [True, False])
def test_a_rare_shape_is_overtaken_by_so_many_and_no_more(hands: Any, same_study: bool) -> None:
    common = hands.study("common")
    rare = common if same_study else hands.study("rare")
    hands.enqueue(common, range(4))
    hands.enqueue(rare, [1000], pack_key="rare")
    asked = 4

    def ask(begun: int) -> None:
        """As a coordinator that keeps four of the common shape waiting, for a while."""
        nonlocal asked
        if asked < 3 * OVERTAKERS:
            hands.enqueue(common, [asked])
            asked += 1

    order = [claim.trial_number for claim in _drained(hands, ask)]
    assert sorted(order) == [*range(3 * OVERTAKERS), 1000]
    overtook = [number for number in order[: order.index(1000)] if number >= 4]
    assert overtook == list(range(4, 4 + OVERTAKERS))


def test_all_workers_together_overtake_no_more(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0], pack_key="a")
    hands.enqueue(study, [1], pack_key="a")
    hands.enqueue(study, [2], pack_key="rare")
    hands.enqueue(study, range(3, 3 + 2 * OVERTAKERS), pack_key="a")
    (one,), (other,) = hands.claim(preferred_width=1), hands.claim(preferred_width=1)
    joined = [claim for each in [one, other] * OVERTAKERS for claim in _refilled(hands, each)]
    assert [claim.trial_number for claim in joined] == list(range(3, 3 + OVERTAKERS))
    assert [claim.trial_number for claim in hands.claim()] == [2]
    assert [claim.trial_number for claim in _refilled(hands, one)] == [3 + OVERTAKERS]


def test_a_new_pack_is_filled_no_further_either(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0], pack_key="a")
    hands.enqueue(study, [1], pack_key="rare")
    hands.enqueue(study, range(2, 2 + 2 * OVERTAKERS), pack_key="a")
    wide = hands.claim(3 * OVERTAKERS, preferred_width=3 * OVERTAKERS, max_width=None)
    assert [claim.trial_number for claim in wide] == [0, *range(2, 2 + OVERTAKERS - 1)]


def test_what_waits_in_a_study_that_is_not_looked_at_stops_nobody(hands: Any) -> None:
    hands.enqueue(hands.study("other"), [0], pack_key="rare")
    hands.enqueue(hands.study("ours"), range(2 + OVERTAKERS), pack_key="a")
    (first,) = hands.claim(preferred_width=1, study="ours")
    options = {"pack_key": "a", "width": 1, "study": "ours"}
    joined = [claim for _ in range(1 + OVERTAKERS) for claim in hands.claim(**options)]
    assert joined[-1].trial_number == 1 + OVERTAKERS
    assert first.trial_number == 0


def test_short_runs_and_full_runs_do_not_starve_each_other(hands: Any) -> None:
    """A full run of another shape is led by no refill, and short ones follow when it has begun."""
    study = hands.study(rungs=[1])
    hands.enqueue(study, [0], pack_key="rare", target=1)
    (short,) = hands.claim(preferred_width=2)
    _end(hands, short)
    hands.enqueue(study, [1, 2], target=1)
    pack = hands.claim(2, preferred_width=2)
    queue.promote(hands.engine, study.id, [0], 3)
    hands.enqueue(study, range(3, 3 + 2 * OVERTAKERS), target=1)
    first, order = pack[0], list[Claim]()
    while pack:
        _end(hands, pack.pop())
        more = _refilled(hands, first)
        order += more
        pack += more
    assert len(order) == OVERTAKERS
    (full,) = hands.claim(preferred_width=2)
    assert full.kind is RunKind.FULL
    for epoch in (2, 3):
        report = EpochReport(full.run_id, full.token, epoch, 0.5, {})
        leases.report(hands.engine, [report], lambda question: False)
    assert [claim.kind for claim in hands.claim(2)] == [RunKind.SHORT] * 2


def test_promoting_again_and_again_keeps_packs_full(hands: Any) -> None:
    """By a factor, the best are looked at with every result, those promoted before among them."""
    study = hands.study()
    hands.enqueue(study, range(8))
    for claim in hands.claim(8):
        hands.complete(claim)
    queue.promote(hands.engine, study.id, range(8), 9, seeds=3)
    hands.enqueue(study, [8], pack_key="b")
    for _ in range(OVERTAKERS):
        assert queue.promote(hands.engine, study.id, range(8), 9, seeds=3) == 0
    hands.enqueue(study, [9], pack_key="b")
    for width in (8, 8, 8):
        assert {claim.kind for claim in hands.claim(width)} == {RunKind.FULL}
    assert [claim.trial_number for claim in hands.claim(8)] == [8, 9]
