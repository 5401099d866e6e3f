"""Grouping by shape decides when a trial runs, never what is sampled."""

import pytest

from cubeopt.db import records
from cubeopt.db.tables import RunState, StudyState

from ..service.conftest import coordinating, create, work  # noqa: F401 - fixtures


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_study_has_the_same_points_however_wide_its_packs(
    engine,
    create,  # noqa: F811
    work,  # noqa: F811
    tiny_study,
    sampler,
):
    search = {**tiny_study["search"], "state_size": {"choices": [4, 6, 8]}}
    points = []
    for pack in (1, 4):
        record = create(
            name=f"{sampler}-{pack}",
            search=search,
            sampler={"name": sampler},
            budget={"trials": 12},
            promotion={"top": 0},
        )
        with coordinating(engine):
            work(pack=pack)
        assert records.study(engine, record.name).state is StudyState.COMPLETE
        trials = records.trials(engine, record.id)
        assert {each.state for each in trials} <= {RunState.COMPLETE, RunState.PRUNED}
        points.append({each.number: each.params for each in trials})
    assert points[0] == points[1]
    assert len({each["state_size"] for each in points[0].values()}) == 3
