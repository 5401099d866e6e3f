"""`cubeopt study report`."""

import html
from pathlib import Path
from typing import Any

import pytest

from cubeopt.report import study_page

from .conftest import Cli

FIGURES = (
    *("history", "ladder", "promotions", "short-and-full", "importances", "coordinates"),
    *("curves", "timeline", "winner", "training-losses", "training-validation", "training-usage"),
    *("training-gradient-norm", "training-knobs", "cube", "cube-layers"),
)


def test_the_page_the_images_and_the_rows_are_of_one_study(
    cli: Cli, finished: Any, tmp_path: Path
) -> None:
    page, figures = tmp_path / "deep" / "report.html", tmp_path / "figures"
    ran = cli("study", "report", "tiny", "-o", page, "--png", figures, "--json")
    assert (ran.code, ran.err) == (0, "")
    shown = cli("study", "show", "tiny", "--json").json
    rows = ran.json
    assert rows["html"] == str(page)
    assert sorted(rows["png"]) == sorted(map(str, figures.iterdir()))
    assert {Path(each).name for each in rows["png"]} == {f"{name}.png" for name in FIGURES}
    assert rows["no_cube"] is None
    (winner,) = rows["winners"]
    assert {name: winner[name] for name in ("trial", "value", "test_value", "params")} == {
        name: shown["best"][name] for name in ("trial", "value", "test_value", "params")
    }
    assert rows["tried"]["trials"] == shown["trials"]
    assert rows["rows"]["ladder"][0]["arrived"] == 5
    text = page.read_text(encoding="utf-8")
    assert f"Best: trial {winner['trial']} with fvu {winner['value']:.4f}" in text
    assert rows["warnings"] == shown["warnings"]


def test_the_cube_of_the_winner_is_in_the_page_or_the_reason_why_it_is_not(
    cli: Cli, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "report.html"
    assert cli("study", "report", "tiny", "-o", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert "Colour the cells by" in text
    assert text.count('<script type="application/json"') == 1
    figures = tmp_path / "figures"
    ran = cli("study", "report", "tiny", "-o", page, "--no-cube", "--png", figures)
    assert ran.code == 0
    _, cube, png = ran.out.splitlines()
    assert cube == f"cube  {study_page.NO_CUBE}"
    assert png.startswith(f"png   in {figures}: history.png, ")
    assert "training-losses.png" in png
    assert "cube.png" not in png
    assert study_page.NO_CUBE in html.unescape(page.read_text(encoding="utf-8"))
    monkeypatch.setenv("CUBEOPT_HOME", str(tmp_path / "elsewhere"))
    ran = cli("study", "report", "tiny", "-o", page)
    assert (ran.code, ran.err) == (0, "")
    said = html.unescape(page.read_text(encoding="utf-8"))
    assert "It cannot be looked into here: the checkpoints of trial" in said
    assert "Colour the cells by" not in said


def test_without_a_place_it_lies_among_the_reports(cli: Cli, finished: Any) -> None:
    ran = cli("study", "report", "tiny")
    assert (ran.code, ran.err) == (0, "")
    assert (finished.home / "reports" / "tiny-report.html").is_file()
    assert "is complete" not in ran.out


def test_an_unknown_study_or_comparison_is_one_line_and_writes_nothing(
    cli: Cli, finished: Any, tmp_path: Path
) -> None:
    ran = cli("study", "report", "tinny", "-o", tmp_path / "page.html")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "cubeopt: there is no study named 'tinny'; did you mean 'tiny'?\n"
    file = tmp_path / "ab.json"
    file.write_text("no")
    ran = cli("study", "report", "tiny", "-o", tmp_path / "page.html", "--compare", file)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "give the output of 'cubeopt compare --json'" in ran.err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere/x", "folder"])
def test_a_place_that_cannot_be_written_is_one_line(
    cli: Cli, finished: Any, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    ran = cli("study", "report", "tiny", "-o", tmp_path / place)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("cubeopt: cannot write ")


def test_a_study_without_a_trial_has_a_page_that_says_so(
    cli: Cli, home: Path, study_file: Path, tmp_path: Path
) -> None:
    cli("study", "create", study_file)
    ran = cli("study", "report", "tiny", "-o", tmp_path / "page.html")
    assert (ran.code, ran.err) == (0, "")
    assert "study tiny is running: this is how it was at " in ran.out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No result yet" in text
    assert "cubeopt worker --study tiny --gpu 0" in text
