"""The report of a study: one file, true, and safe to open."""

import html
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cubeopt.db.tables import RunState, StudyState
from cubeopt.errors import InputError
from cubeopt.report import compared, material, study_page
from cubeopt.report.study_page import Cube, Report

from .conftest import MOMENT

COMPLETE, PRUNED = RunState.COMPLETE, RunState.PRUNED
SPEC = {
    "name": "quickstart",
    "base": {"epochs": 50, "dataset": "quickstart"},
    "search": {"learning_rate": {"low": 1e-3, "high": 1.0, "log": True}},
    "sampler": {"name": "tpe", "seed": 0},
    "rungs": {"epochs": [1, 2, 5], "rule": "asha", "reduction_factor": 2.0},
    "promotion": {"top": 1},
    "budget": {"trials": 12},
}
COMPARISON = {
    "metric": "fvu",
    "direction": "minimize",
    "epochs": 10,
    "seeds": [0, 1, 2],
    "dataset": "f" * 64,
    "differing": {"state_size": [8, 16]},
    "arms": [
        {
            "arm": name,
            "file": f"{name}.yaml",
            "weights": 100,
            "mean": mean,
            "deviation": 0.01,
            "values": [mean - 0.01, mean, mean + 0.01],
            "diverged": {},
            "metrics": [],
            "configuration": {},
        }
        for name, mean in (("narrow", 0.8), ("wide", 0.7))
    ],
    "comparisons": [
        {
            "arm": "wide",
            "first": "narrow",
            "differences": [-0.1, -0.1, -0.1],
            "evidence": {
                **{"pairs": 3, "mean": -0.1, "deviation": 0.0, "low": -0.12, "high": -0.08},
                **{"p": 0.25, "flips": 8, "exact": True},
            },
            "p": 0.25,
            "verdict": "no difference shown",
            "words": "wide <b>might</b> be better",
        }
    ],
    "notes": ["3 pairs can never show p < 0.05"],
    "method": ["sign flips"],
}


def _report(story: Any, comparison: Any = None, **study: Any) -> Report:
    found = material.of(story.records(spec=SPEC, **study), [], MOMENT + timedelta(minutes=5))
    return study_page.report(found, comparison)


@pytest.fixture
def told(story: Any) -> Any:
    """Three trials and the winner's full run."""
    story.short(0, [0.95], PRUNED).short(1, [0.9, 0.85, 0.8, 0.79, 0.78], COMPLETE)
    story.short(2, [0.9, 0.85, 0.8, 0.78, 0.77], COMPLETE)
    story.full(2, [0.7 - 0.001 * epoch for epoch in range(45)], COMPLETE, test_value=0.66)
    return story


def test_the_page_answers_every_question_with_the_numbers_of_the_study(told: Any) -> None:
    whole = _report(told)
    page = html.unescape(study_page.page(whole, Cube()))
    for said in (
        "Best: trial 2 with fvu 0.6560, better than predicting the mean and PCA to 16 numbers",
        "Trial 2: a full run of 50 epochs",
        "fvu (lower is better)",
        "0.001 to 1",
        "f" * 64,
        "train 800, validation 100, test 90",
        "epochs 1, 2, 5 by the rule asha, one in 2 goes on",
        "cubeopt study export quickstart -o quickstart-best.yaml",
        "cubeopt train --config quickstart-best.yaml --experiment-name quickstart-again --cpu",
        "cubeopt study create quickstart.yaml",
        study_page.NO_CUBE,
        "complete",
    ):
        assert said in page, said
    assert page.count("<h1>") == 1
    assert "http://" not in page.partition("<main>")[2]
    assert [row.epoch for row in whole.findings.rungs] == [1, 2, 5]


def test_the_rows_of_the_page_are_json_and_its_yaml_can_be_read(told: Any) -> None:
    rows = json.loads(json.dumps(_report(told).as_json(), allow_nan=False))
    assert rows["winners"][0]["value"] == pytest.approx(0.656)
    assert rows["baselines"] == [
        {
            "label": "predicting the mean",
            "value": 1.0,
            "difference": pytest.approx(-0.344),
        },
        {"label": "PCA to 16 numbers", "value": 0.81, "difference": pytest.approx(-0.154)},
    ]
    assert rows["tried"]["epochs"] == 1 + 5 + 5 + 45
    assert rows["rows"]["promotions"][0]["mean"] == rows["winners"][0]["value"]
    assert yaml.safe_load(rows["file"])["budget"] == {"trials": 12}
    exported = yaml.safe_load(rows["exported"])
    assert exported["provenance"]["trial"] == 2
    assert exported["real_training"]["learning_rate"] == 0.003


def test_what_people_wrote_is_text(told: Any) -> None:
    evil = "<script>alert(1)</script>"
    records = told.records(spec=SPEC, name=f"study {evil}", state_reason=evil)
    trials = [replace(each, params={"halting": evil}) for each in records.trials]
    records = replace(records, trials=trials)
    page = study_page.page(study_page.report(material.of(records, [], MOMENT)), Cube(reason=evil))
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)") >= 4


def test_a_study_that_goes_on_says_so_with_the_time_and_an_empty_one_is_whole(story: Any) -> None:
    whole = _report(story, state=StudyState.RUNNING)
    page = study_page.page(whole, Cube())
    assert "<strong>This study is running.</strong>" in page
    assert "2026-11-05 12:05 UTC" in page
    assert "No result yet" in page
    assert "no trial has completed yet" in page
    assert "cubeopt worker --study quickstart --gpu 0" in page
    assert whole.protocol.commands == ["cubeopt study create quickstart.yaml"]
    assert "winner" not in whole.charts


def test_a_comparison_is_shown_as_it_was_printed(told: Any, tmp_path: Path) -> None:
    file = tmp_path / "ab.json"
    file.write_text(json.dumps(COMPARISON))
    whole = _report(told, compared.read(file))
    page = study_page.page(whole, Cube())
    assert "wide &lt;b&gt;might&lt;/b&gt; be better." in page
    assert "p = 0.25" in page
    arms, differences = whole.charts["arms"], whole.charts["differences"]
    assert arms.rows[1] == ("wide", "wide.yaml", 100, 0.7, 0.01, 0.69, 0.7, 0.71)
    assert differences.rows == [("wide - narrow", 3, -0.1, -0.12, -0.08, 0.25)]
    other = {**COMPARISON, "dataset": "a" * 64}
    file.write_text(json.dumps(other))
    page = study_page.page(_report(told, compared.read(file)), Cube())
    assert "on another dataset than this study" in page


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not the output of 'cubeopt compare --json'"),
        ('{"metric": "fvu"}', "is not the output of 'cubeopt compare --json'"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_no_comparison_is_one_line(
    tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "ab.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=r"^[^\n]*ab\.json[^\n]*$") as raised:
        compared.read(file)
    assert said in str(raised.value)


def test_the_page_is_seen_in_a_browser_without_a_network(
    told: Any, tmp_path: Path, browser: Any
) -> None:
    path = tmp_path / "report.html"
    whole = _report(told)
    study_page.write(whole, path)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    requests, troubles = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.goto(path.as_uri())
    page.wait_for_function(
        "count => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3 * count - 3",
        arg=len(whole.charts),
    )
    wide = page.evaluate("document.documentElement.scrollWidth")
    title = page.title()
    page.close()
    assert title == "Study quickstart"
    assert wide <= 390
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert troubles == []
