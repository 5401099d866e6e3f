"""Which runs have left a checkpoint."""

from typing import Any

from cubeopt.db import keepsakes, queue
from cubeopt.db.keepsakes import Keepsake
from cubeopt.db.tables import RunKind, RunState


def test_runs_with_a_checkpoint_are_found_of_one_trial_or_of_all(hands: Any) -> None:
    study, other = hands.study(), hands.study("other")
    hands.enqueue(study, [0, 1, 2])
    hands.enqueue(other, [0])
    claims = {claim.trial_number: claim for claim in hands.claim(3)}
    hands.complete(claims[0], 0.25, checkpoint="zero")
    hands.report(claims[1], 1, 0.5, checkpoint="one")
    hands.report(claims[2], 1, 0.75)
    queue.promote(hands.engine, study.id, [0], 50, seeds=2)
    short = Keepsake(0, RunKind.SHORT, 0, RunState.COMPLETE, 5, 0.25, "zero")
    # A full run that waits to go on from its short one has that one's; another seed has none yet.
    full = Keepsake(0, RunKind.FULL, 0, RunState.WAITING, 5, 0.25, "zero")
    running = Keepsake(1, RunKind.SHORT, 0, RunState.RUNNING, 1, 0.5, "one")
    found = keepsakes.of_study(hands.engine, study.id)
    assert sorted(found, key=str) == sorted([short, full, running], key=str)
    assert keepsakes.of_study(hands.engine, study.id, trial=1) == [running]
    assert keepsakes.of_study(hands.engine, other.id) == []
