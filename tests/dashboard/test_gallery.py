"""What Optuna's dashboard shows of our studies beside its own plots, and that it writes nothing."""

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from optuna_dashboard import _custom_plot_data
from sqlalchemy import Engine, text

from cubeopt.dashboard import gallery, note, optuna_pages
from cubeopt.dashboard.gallery import Gallery, Shelf
from cubeopt.dashboard.overlay import Overlay
from cubeopt.db.engine import optuna_url
from cubeopt.db.records import StudyRecord
from cubeopt.report import material, winner
from cubeopt.search import mirror, study
from cubeopt.search.configuration import PROVENANCE_SECTION

from .conftest import Served, Viewer, train

HOSTILE = "<script>alert(1)</script>\"'`</pre>"
PLOTS = ["rung-ladder", "short-and-full", "promotions", "workers-over-time"]


@pytest.fixture(scope="module")
def trained(dashboard: Served, tiny_dataset: Path) -> StudyRecord:
    return train(dashboard, tiny_dataset)


def _of_optuna(dashboard: Served, name: str) -> dict[str, Any]:
    """The study as Optuna's pages are given it."""
    listed = dashboard.ask("/api/studies").json["study_summaries"]
    (study_id,) = [each["study_id"] for each in listed if each["study_name"] == name]
    shown: dict[str, Any] = dashboard.ask(f"/api/studies/{study_id}?after=0").json
    return {**shown, "study_id": study_id}


def _tables(engine: Engine) -> dict[str, str | None]:
    """What marks every row of every table: where it lies, and the transaction that wrote it."""
    with engine.connect() as connection:
        names = connection.scalars(text("SELECT relid::regclass::text FROM pg_stat_user_tables"))
        marks = "md5(string_agg(ctid::text || ' ' || xmin::text, ',' ORDER BY ctid))"
        return {
            name: connection.scalar(text(f"SELECT {marks} FROM {name}")) for name in names.all()
        }


def test_a_study_has_our_plots_a_note_and_files(dashboard: Served, trained: StudyRecord) -> None:
    shown = _of_optuna(dashboard, "tiny")
    plots = {each["id"]: json.loads(each["graph_object"]) for each in shown["plotly_graph_objects"]}
    assert list(plots) == PLOTS
    for plot in plots.values():
        assert plot["layout"]["title"]["text"]
    ladder = {trace["name"] for trace in plots["rung-ladder"]["data"]}
    assert any("cut" in name for name in ladder if name)
    found = material.load(dashboard.engine, "tiny")
    best = found.summary().best
    assert best is not None
    assert shown["note"]["version"] == 0
    body = shown["note"]["body"]
    assert f"trial {best.trial}, fvu {best.value:.4f}" in body
    assert "budget.trials is spent: 6 of 6 used" in body
    assert "/studies/tiny/training" in body
    file = yaml.safe_load(body.partition("```yaml\n")[2].partition("```")[0])
    assert study.parse(file, "note") == study.stored(trained.spec)
    assert [each["filename"] for each in shown["artifacts"]] == [
        "tiny.yaml",
        "tiny-best.yaml",
        "tiny-report.html",
    ]


@pytest.mark.parametrize("backwards", [False, True])
def test_plots_are_shown_in_one_order_whatever_optuna_lists_them_in(
    dashboard: Served, trained: StudyRecord, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    ids, optuna_ids = _custom_plot_data.list_graph_object_ids, list[str]()

    def listed(attributes: dict[str, Any]) -> list[str]:
        optuna_ids[:] = sorted(ids(attributes), reverse=backwards)
        return optuna_ids

    monkeypatch.setattr(_custom_plot_data, "list_graph_object_ids", listed)
    shown = _of_optuna(dashboard, "tiny")["plotly_graph_objects"]
    assert [each["id"] for each in shown] == PLOTS
    assert optuna_ids == sorted(PLOTS, reverse=backwards)


def test_plots_of_others_stand_behind_ours_and_all_else_is_as_it_was() -> None:
    plots = [
        {"id": name, "graph_object": f'"{name}" \u2713'} for name in ("zz", *PLOTS[::-1], "aa")
    ]
    trap = {"key": 'a "plotly_graph_objects": [1]', "value": "ä"}
    study = {"user_attrs": [trap], "plotly_graph_objects": plots, "later": [1]}
    before = json.dumps(study).encode()
    after = optuna_pages.ordered(before)
    assert [each["id"] for each in json.loads(after)["plotly_graph_objects"]] == [
        *(*PLOTS, "aa", "zz"),
    ]
    assert len(after) == len(before)
    assert json.loads(after) == {
        **study,
        "plotly_graph_objects": [*plots[4:0:-1], plots[5], plots[0]],
    }
    for other in (b'{"reason": "study_id=9 is not found"}', b""):
        assert optuna_pages.ordered(other) == other


def test_the_files_are_those_of_the_command_line(dashboard: Served, trained: StudyRecord) -> None:
    shown = _of_optuna(dashboard, "tiny")
    file, best, report = (
        dashboard.ask(f"/artifacts/{shown['study_id']}/{each['artifact_id']}")
        for each in shown["artifacts"]
    )
    assert study.parse(yaml.safe_load(file.text), "artifact") == study.stored(trained.spec)
    assert file.headers["content-type"] == "text/yaml"
    exported = winner.exported(material.load(dashboard.engine, "tiny"))
    content = yaml.safe_load(best.text)
    for each in (exported, content):
        del each[PROVENANCE_SECTION]["date"]
    assert content == exported
    assert "cubeopt train --config tiny-best.yaml --experiment-name tiny-again" in best.text
    assert report.text.startswith("<!doctype html>")
    assert "tiny" in report.text
    # It has scripts of its own, and none of our rights.
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert "access-control-allow-origin" not in report.headers
    for nothing in ("ff-0", "1-9", "-", "1--1"):
        assert dashboard.ask(f"/artifacts/{shown['study_id']}/{nothing}").status == 404


def test_what_is_shown_follows_the_study(
    dashboard: Served, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "_RESTS", 0)
    train(dashboard, tiny_dataset, name="followed", budget={"trials": 2})
    before = _of_optuna(dashboard, "followed")
    assert _of_optuna(dashboard, "followed") == before
    with dashboard.engine.begin() as connection:
        connection.execute(
            text("UPDATE cubeopt.studies SET state_reason = 'seen' WHERE name = 'followed'")
        )
    after = _of_optuna(dashboard, "followed")
    assert "complete: seen" in after["note"]["body"]
    assert "complete: seen" not in before["note"]["body"]


def test_looking_writes_nothing(dashboard: Served, trained: StudyRecord, viewer: Viewer) -> None:
    shown = _of_optuna(dashboard, "tiny")
    before = _tables(dashboard.engine)
    assert before["trials"] is not None
    page = viewer.open(f"{dashboard.url}/dashboard/studies/{shown['study_id']}", height=1600)
    for plot in PLOTS:
        page.locator(f"[id='user-defined-plot:{plot}'] .main-svg").first.wait_for()
    page.goto(f"{page.url}/note")
    page.get_by_text("The study's file").wait_for()
    page.goto(f"{dashboard.url}/")
    for each in shown["artifacts"]:
        dashboard.ask(f"/artifacts/{shown['study_id']}/{each['artifact_id']}")
    assert _tables(dashboard.engine) == before


def test_a_persons_note_is_shown_instead_of_ours_until_it_is_emptied(
    dashboard: Served, trained: StudyRecord
) -> None:
    shown = _of_optuna(dashboard, "tiny")
    address = f"/api/studies/{shown['study_id']}/note"
    mine = "# Mine\n" + "x" * 5000
    assert dashboard.ask(address, "PUT", {"body": mine, "version": 1}).status == 204
    assert _of_optuna(dashboard, "tiny")["note"] == {"body": mine, "version": 1}
    assert dashboard.ask(address, "PUT", {"body": "late", "version": 1}).status == 409
    assert dashboard.ask(address, "PUT", {"body": "", "version": 2}).status == 204
    assert _of_optuna(dashboard, "tiny")["note"] == {**shown["note"], "version": 2}


def test_a_name_a_note_and_a_reason_are_shown_and_never_run(
    dashboard: Served, tiny_dataset: Path, viewer: Viewer
) -> None:
    train(dashboard, tiny_dataset, name="hostile", budget={"trials": 2})
    with dashboard.engine.begin() as connection:
        for statement in (
            "UPDATE cubeopt.studies SET name = :bad, state_reason = :bad, dataset = :bad, "
            "spec = jsonb_set(spec, '{base,dataset}', to_jsonb(CAST(:bad AS text))) "
            "WHERE name = 'hostile'",
            "UPDATE public.studies SET study_name = :bad WHERE study_name = 'hostile'",
        ):
            connection.execute(text(statement), {"bad": HOSTILE})
    shown = _of_optuna(dashboard, HOSTILE)
    assert len(shown["plotly_graph_objects"]) == 4
    place = f"{dashboard.url}/dashboard/studies/{shown['study_id']}"
    page = viewer.open(place, height=1600)
    page.on("dialog", lambda dialog: viewer.troubles.append(dialog.message))
    page.get_by_text(HOSTILE).first.wait_for()
    page.locator("[id='user-defined-plot:rung-ladder'] .main-svg").first.wait_for()
    page.goto(f"{place}/note")
    page.get_by_text("The study's file").wait_for()
    assert page.locator(f"text={HOSTILE[:25]}").count() >= 2
    bad = {"body": f"{HOSTILE}<img src=x onerror=alert(1)><svg onload=alert(1)>", "version": 1}
    assert dashboard.ask(f"/api/studies/{shown['study_id']}/note", "PUT", bad).status == 204
    page.reload()
    page.get_by_text(HOSTILE).first.wait_for()
    page.wait_for_load_state("networkidle")
    page.goto(f"{dashboard.url}/")
    page.get_by_text(HOSTILE).first.wait_for()
    assert page.locator("main script").count() == 0
    for each in shown["artifacts"]:
        answer = dashboard.ask(f"/artifacts/{shown['study_id']}/{each['artifact_id']}")
        assert answer.status == 200
        assert ("<script>alert" in answer.text) == ("yaml" in each["mimetype"])


def test_a_costly_look_rests(
    dashboard: Served, trained: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    def load(engine: Engine, name: str) -> material.Material:
        nonlocal now
        now += 0.5
        looks.append(now)
        return kept

    kept, looks = material.load(dashboard.engine, "tiny"), list[float]()
    monkeypatch.setattr(gallery, "monotonic", lambda: now)
    monkeypatch.setattr(gallery.material, "load", load)
    monkeypatch.setattr(gallery.stamps, "stamp", lambda engine, name: str(now))
    showing = Gallery(dashboard.engine)
    for moment, count in ((1000.0, 1), (1025.4, 1), (1025.5, 2), (1026.0, 2)):
        now = moment
        showing.adorn("tiny", {})
        assert (moment, len(looks)) == (moment, count)


def test_a_study_of_others_in_the_same_tables_stays_as_it_is(dashboard: Served) -> None:
    storage = mirror.open_storage(optuna_url(dashboard.engine))
    optuna.create_study(storage=storage, study_name="of others").set_user_attr("a", 1)
    storage.engine.dispose()
    shown = _of_optuna(dashboard, "of others")
    assert (shown["plotly_graph_objects"], shown["artifacts"]) == ([], [])
    assert shown["note"] == {"body": "", "version": 0}


@pytest.fixture
def overlay(engine: Engine) -> Any:
    storage = mirror.open_storage(optuna_url(engine))
    yield Overlay(storage, Gallery(engine))
    storage.engine.dispose()


def test_trials_are_read_as_optuna_reads_them(engine: Engine, overlay: Overlay) -> None:
    tables = overlay._tables
    study = optuna.create_study(storage=tables, study_name="s", directions=["minimize"] * 2)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "size": optuna.distributions.CategoricalDistribution([8, "x", None, True]),
        "steps": optuna.distributions.IntDistribution(1, 9),
    }
    trials = [study.ask(space) for _ in range(4)]
    trials[0].set_user_attr("a", {"b": [1]})
    trials[0].set_constraint("c", 1.5)
    study.tell(trials[0], [math.inf, -math.inf])
    study.tell(trials[1], state=TrialState.PRUNED)
    study.tell(trials[2], state=TrialState.FAIL)
    study.enqueue_trial({"rate": 0.1})
    for step, value in ((1, 0.5), (2, math.nan), (3, math.inf), (4, -math.inf)):
        tables.set_trial_intermediate_value(trials[3]._trial_id, step, value)
    study_id = study._study_id

    def both() -> tuple[list[str], list[str]]:
        read = (each.get_all_trials(study_id) for each in (overlay, tables))
        ours, theirs = ([repr(sorted(vars(t).items())) for t in trials] for trials in read)
        return ours, theirs

    ours, theirs = both()
    assert len(ours) == 5
    assert ours == theirs
    study.tell(trials[3], [0.1, 0.2])
    study.ask(space)
    ours, theirs = both()
    assert ours == theirs
    assert len(overlay.get_all_trials(study_id, states=(TrialState.COMPLETE,))) == 2
    study.tell(trials[0]._trial_id, [1.0, 2.0], skip_if_finished=True)
    optuna.delete_study(study_name="s", storage=tables)
    assert overlay.get_all_studies() == []
    with pytest.raises(KeyError):
        overlay.get_study_name_from_id(study_id)


def test_of_many_trials_those_that_came_farthest_have_their_curves(
    dashboard: Served, trained: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = mirror.open_storage(optuna_url(dashboard.engine))
    others = optuna.create_study(storage=storage, study_name="many of others")
    for number in range(4):
        trial = others.ask()
        trial.report(0.5, number)
        others.tell(trial, 0.5)
    overlay = Overlay(storage, Gallery(dashboard.engine))
    ours = overlay.get_study_id_from_name("tiny")
    whole = overlay.get_all_trials(ours)
    assert sum(bool(each.intermediate_values) for each in whole) > 3
    monkeypatch.setattr(note, "CURVES", 3)
    places = [(-len(t.intermediate_values), t.value, t.number) for t in whole]
    kept = {number for _, _, number in sorted(places)[:3]}
    for shown, each in zip(overlay.get_all_trials(ours), whole, strict=True):
        expected = each.intermediate_values if each.number in kept else {}
        assert vars(shown) == {**vars(each), "intermediate_values": expected}
    assert all(each.intermediate_values for each in overlay.get_all_trials(others._study_id))
    found = material.load(dashboard.engine, "tiny")
    assert "here of the 3 trials of 6 that came farthest" in note.of(found, found.summary())
    storage.engine.dispose()


def test_the_overlay_itself_writes_nothing_but_notes(overlay: Overlay) -> None:
    study_id = optuna.create_study(storage=overlay._tables, study_name="s")._study_id
    trial_id = overlay._tables.create_new_trial(study_id)
    refused = [
        lambda: overlay.create_new_study([optuna.study.StudyDirection.MINIMIZE], "new"),
        lambda: overlay.delete_study(study_id),
        lambda: overlay.set_study_user_attr(study_id, "a", 1),
        lambda: overlay.set_study_system_attr(study_id, "artifacts:1-1", "{}"),
        lambda: overlay.set_study_system_attr(study_id, "dashboard:note_strange", "x"),
        lambda: overlay.create_new_trial(study_id),
        lambda: overlay.set_trial_param(
            trial_id, "x", 0.0, optuna.distributions.FloatDistribution(0, 1)
        ),
        lambda: overlay.set_trial_state_values(trial_id, TrialState.FAIL),
        lambda: overlay.set_trial_intermediate_value(trial_id, 1, 0.5),
        lambda: overlay.set_trial_user_attr(trial_id, "a", 1),
        lambda: overlay.set_trial_system_attr(trial_id, "a", 1),
        lambda: Shelf(overlay._gallery).remove("1-1"),
        lambda: Shelf(overlay._gallery).write("1-1", None),  # type: ignore[arg-type]
    ]
    for write in refused:
        with pytest.raises(RuntimeError, match="cannot be changed here"):
            write()
    for key in ("dashboard:note_ver", "dashboard:note_str:0", f"dashboard:{trial_id}:note_str:12"):
        overlay.set_study_system_attr(study_id, key, "x")
    assert set(overlay._tables.get_study_system_attrs(study_id)) == {
        "dashboard:note_ver",
        "dashboard:note_str:0",
        f"dashboard:{trial_id}:note_str:12",
    }
