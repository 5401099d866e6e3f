"""Whatever dies, sleeps or is full: every trial ends once, every epoch is recorded once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cubeopt.db import records
from cubeopt.db.tables import EndClass, RunKind

from ..acceptance.conftest import FULL, SHORT, check_whole
from .conftest import battlefield
from .storm import Plan, Storm

BRIEF = Plan(workers=3, trials=12, promoted=2, kills=4, restarts=1, zombies=1)
LONG = Plan(workers=8, trials=200, promoted=5, kills=44, restarts=5, zombies=5)
PATIENCE_SECONDS = {BRIEF: 500, LONG: 5400}


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(BRIEF, id="brief"),
        pytest.param(LONG, id="long", marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_chaos_loses_nothing_doubles_nothing_and_changes_no_bit(
    plan: Plan,
    tiny_dataset: Path,
    peace: Callable[[int, int], dict[str, Any]],
) -> None:
    calm = peace(plan.trials, plan.promoted)
    epochs = plan.trials * SHORT + plan.promoted * (FULL - SHORT)
    with battlefield(tiny_dataset, plan.trials, plan.promoted) as scene:
        storm = Storm(scene, plan, epochs)
        storm.rage(PATIENCE_SECONDS[plan])
        check_whole(scene, plan.trials, plan.promoted)
        assert scene.outcome() == calm
        runs = records.runs(scene.engine, scene.study_id)
        attempts = records.attempts(scene.engine, scene.study_id)
        recorded = records.epochs(scene.engine, scene.study_id)
    ends = Counter(str(each.end_class) for each in attempts)
    done = Counter(each.run_id for each in attempts if each.end_class is EndClass.DONE)
    assert done == Counter(run.id for run in runs)  # each ended exactly once
    assert len(recorded) == len({(each.run_id, each.epoch) for each in recorded}) == epochs
    struck = storm.counts
    assert struck["workers killed"] + struck["coordinators killed"] >= plan.kills
    assert struck["restarts of PostgreSQL"] == plan.restarts
    assert struck["zombies"] == plan.zombies
    kinds = Counter(str(run.kind) for run in runs)
    print(f"\nstruck: {dict(struck)}")
    print(f"{kinds[RunKind.SHORT]} trials and {kinds[RunKind.FULL]} promoted runs ended once each")
    print(f"{len(recorded)} epochs recorded once each, equal to those of the undisturbed study")
    print(f"attempts by end: {dict(ends)}")
