"""What runs were last measured at."""

import math
from typing import Any

from cubeopt.db import measures


def test_the_last_metrics_are_those_of_the_last_validated_epoch(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0, 1, 2])
    first, second, _ = hands.claim(3)
    keys = ["parameters", "usage"]
    hands.report(first, 1, 0.5, metrics={"parameters": 7.0, "usage": 0.1, "other": 1.0})
    hands.report(first, 2, 0.4, metrics={"parameters": 7.0, "usage": 0.2})
    hands.report(first, 3, None, metrics={"parameters": 7.0})
    hands.report(second, 1, 0.5, metrics={"parameters": 9.0, "usage": math.nan})
    expected = {
        first.run_id: {"parameters": 7.0, "usage": 0.2},
        second.run_id: {"parameters": 9.0, "usage": None},
    }
    assert measures.last(hands.engine, study.id, keys) == expected
    only = measures.last(hands.engine, study.id, keys, [second.run_id])
    assert only == {second.run_id: expected[second.run_id]}
    assert measures.last(hands.engine, study.id, keys, []) == {}
    assert measures.last(hands.engine, study.id, []) == {}
