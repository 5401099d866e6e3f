"""Optuna's own pages, served by us."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Engine

from cubeopt.db.engine import optuna_url
from cubeopt.db.outcomes import Outcome
from cubeopt.db.tables import RunState
from cubeopt.search import memory, mirror, study
from cubeopt.search.study import Range

from ..report.conftest import MOMENT
from ..search.conftest import Search
from .conftest import Served, Viewer, serving

SPACE = {
    "learning_rate": Range(low=1e-4, high=1e-1, log=True).distribution(whole=False),
    "lattice_steps": Range(low=1, high=9).distribution(whole=True),
    "state_size": Range(choices=(16, 32)).distribution(whole=True),
}
_POINTS = """
([plot, trace, minimum]) => {
    const found = document.getElementById(plot)?.data?.[trace];
    const values = found?.x ?? found?.dimensions?.[0].values;
    return values?.length >= minimum;
}
"""


@pytest.fixture(scope="module")
def study_id(module_engine: Engine) -> int:
    """An Optuna study of 14 trials: 5 complete, 9 pruned, all with intermediate values."""
    storage = mirror.open_storage(optuna_url(module_engine))
    study = optuna.create_study(
        storage=storage, study_name="quickstart", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for number in range(14):
        trial = study.ask(SPACE)
        epochs = 5 if number % 3 == 0 else 1 + number % 2
        values = [1.0 - 0.05 * epoch - 0.01 * trial.params["lattice_steps"] for epoch in range(5)]
        for epoch in range(epochs):
            trial.report(values[epoch], epoch + 1)
        if epochs == 5:
            study.tell(trial, values[-1])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    storage.engine.dispose()
    return int(study._study_id)


def test_a_browser_shows_history_curves_importances_and_parallel_coordinates(
    dashboard: Served, study_id: int, viewer: Viewer
) -> None:
    page = viewer.open(f"{dashboard.url}/dashboard", 1400, 1600)
    page.get_by_text("quickstart").first.wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(dashboard.url)))
    page.goto(f"{dashboard.url}/dashboard/studies/{study_id}")
    for plot, trace, minimum in (
        ("plot-history", 2, 14),
        ("graph-hyperparameter-importances", 0, 3),
        ("graph-intermediate-values", 0, 5),
        ("graph-intermediate-values", 13, 2),
    ):
        page.wait_for_function(_POINTS, arg=[plot, trace, minimum], timeout=30_000)
    # Its trials are fetched once, and before what asks for them has run.
    trials = f"/api/studies/{study_id}?after=0"
    assert asked.count(trials) == 1
    assert asked.index(trials) < asked.index("/api/meta")
    page.goto(f"{dashboard.url}/dashboard/studies/{study_id}/smartSelection")
    page.wait_for_function(_POINTS, arg=["plot-parallel-coordinate", 0, 14], timeout=30_000)


@pytest.fixture(scope="module")
def two_objectives(module_engine: Engine) -> int:
    """As our tables are mirrored: 9 trials, two pruned, one of them without values, one running."""
    content = {
        "name": "two",
        "search": {"dropout": {"low": 0.0, "high": 0.9}, "lattice_steps": {"low": 2, "high": 9}},
        "objective": {"metrics": ["fvu", "parameters"]},
        "constraints": ["usage_min >= 0.05"],
    }
    search = Search(content)
    for number, point in search.ask(9)[:8]:
        values = {"validation__fvu": 0.1 * number, "parameters": 1000.0 - point["lattice_steps"]}
        usage = 0.01 if number == 0 else 0.3
        if number < 6:
            search.end(number, 0.1 * number, validation__usage_min=usage, **values)
        elif number == 6:
            search.end(6, 0.9, RunState.PRUNED, validation__fvu=0.9, parameters=700.0)
        else:
            search.end(number, None, RunState.PRUNED)
    storage = mirror.open_storage(optuna_url(module_engine))
    counterpart = mirror.Mirror(storage, search.spec)
    counterpart.show(search.outcomes)
    storage.engine.dispose()
    return int(counterpart._study._study_id)


def test_two_objectives_with_a_constraint_have_their_names_values_and_front(
    dashboard: Served, two_objectives: int
) -> None:
    shown = dashboard.ask(f"/api/studies/{two_objectives}?after=0").json
    assert shown["directions"] == ["minimize", "minimize"]
    assert shown["objective_names"] == ["fvu", "parameters"]
    assert shown["has_intermediate_values"] is False
    trials = {each["number"]: each for each in shown["trials"]}
    assert trials[0]["constraints"] == pytest.approx([0.8])
    assert trials[1]["constraints"] == pytest.approx([-5.0])
    assert (trials[6]["state"], trials[6]["values"]) == ("Pruned", [0.9, 700.0])
    assert "values" not in trials[7]
    # The dashboard's own list of the best does not look at constraints; its plots do.
    assert 0 in {each["number"] for each in shown["best_trials"]}


def test_a_browser_draws_two_objectives_without_trouble(
    dashboard: Served, two_objectives: int, viewer: Viewer
) -> None:
    page = viewer.open(f"{dashboard.url}/dashboard/studies/{two_objectives}", 1400, 1600)
    for plot, trace in (("graph-pareto-front", 0), ("plot-history", 2)):
        page.wait_for_function(_POINTS, arg=[plot, trace, 1], timeout=30_000)
    for place in ("analytics", "trialTable", "trialList"):
        page.goto(f"{dashboard.url}/dashboard/studies/{two_objectives}/{place}")
        page.wait_for_load_state("networkidle")


def test_an_empty_database_gives_an_empty_dashboard(engine: Engine, tmp_path: Path) -> None:
    with serving(engine, tmp_path) as served:
        answer = served.ask("/api/studies")
    assert (answer.status, answer.json) == (200, {"study_summaries": []})


def test_what_belongs_to_the_queue_cannot_be_changed(dashboard: Served, study_id: int) -> None:
    before = dashboard.ask(f"/api/studies/{study_id}?after=0").json
    for method, path, content in (
        ("DELETE", f"/api/studies/{study_id}", None),
        ("POST", f"/api/studies/{study_id}/rename", {"study_name": "other"}),
        ("POST", "/api/studies", {"study_name": "new", "directions": ["minimize"]}),
        ("POST", "/api/trials/1/tell", {"state": "Fail"}),
        ("POST", f"/api/studies/{study_id}/note", {"body": "x", "version": 1}),
        ("PUT", f"/api/studies/{study_id}/preference_feedback_component", {}),
        ("POST", f"/api/artifacts/{study_id}", {"file": "data:,x"}),
    ):
        answer = dashboard.ask(path, method, content)
        assert (answer.status, method, path) == (403, method, path)
        assert "cannot be changed here" in answer.json["reason"]
    assert dashboard.ask(f"/api/studies/{study_id}?after=0").json == before


def test_a_note_can_be_written(dashboard: Served, study_id: int) -> None:
    note = {"body": "the learning rate matters", "version": 1}
    assert dashboard.ask(f"/api/studies/{study_id}/note", "PUT", note).status == 204
    assert dashboard.ask(f"/api/studies/{study_id}?after=0").json["note"] == note


@pytest.fixture(scope="module")
def revised(module_engine: Engine) -> int:
    """8 trials of a space, one of which runs, and 8 after it was revised: wider, narrower, other
    choices, one name gone and one new.
    """
    before = study.parse(
        {
            "name": "revised",
            "search": {
                "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
                "similarity_weight": {"low": 0.0, "high": 1.0},
                "state_size": {"choices": [8, 16]},
                "dropout": {"low": 0.0, "high": 0.5},
            },
        },
        "revised.yaml",
    )
    search = {
        "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
        "similarity_weight": {"low": 0.5, "high": 1.0},
        "state_size": {"choices": [16, 32]},
        "input_noise": {"low": 0.0, "high": 1.0},
    }
    after = study.parse({"name": "revised", "search": search}, "revised.yaml")
    storage = mirror.open_storage(optuna_url(module_engine))
    first = [_told(each) for each in memory.Memory(before, []).ask(8)]
    running = replace(first[7], state=RunState.RUNNING, finished_at=None)
    mirror.Mirror(storage, before).show([*first[:7], running])
    asked = memory.Memory(after, first, revision=1).ask(8)
    counterpart = mirror.Mirror(storage, after, [before])
    counterpart.show([first[7], *(_told(each) for each in asked)])
    storage.engine.dispose()
    return int(counterpart._study._study_id)


def _told(drawn: memory.Drawn) -> Outcome:
    value = 1.0 - 0.02 * drawn.number
    return Outcome(
        number=drawn.number,
        params=drawn.params,
        notes=drawn.notes,
        state=RunState.COMPLETE,
        epoch=5,
        value=value,
        values={1: 1.0, 5: value},
        metrics={},
        mirrored_epoch=-1,
        begun_at=MOMENT,
        finished_at=MOMENT,
    )


def test_a_browser_draws_a_revised_study_without_trouble(
    dashboard: Served, revised: int, viewer: Viewer
) -> None:
    shown = dashboard.ask(f"/api/studies/{revised}?after=0").json
    assert [each["state"] for each in shown["trials"]] == ["Complete"] * 16
    names = [{each["name"] for each in trial["params"]} for trial in shown["trials"]]
    both = {"learning_rate", "similarity_weight", "state_size"}
    assert names == [both | {"dropout"}] * 8 + [both | {"input_noise"}] * 8
    page = viewer.open(f"{dashboard.url}/dashboard/studies/{revised}", 1400, 1600)
    for plot, trace, minimum in (
        ("plot-history", 2, 16),
        ("graph-intermediate-values", 0, 2),
    ):
        page.wait_for_function(_POINTS, arg=[plot, trace, minimum], timeout=30_000)
    for place in ("analytics", "trialTable", "trialList", "smartSelection"):
        page.goto(f"{dashboard.url}/dashboard/studies/{revised}/{place}")
        page.wait_for_load_state("networkidle")
