"""`cubeopt data check`, as a person gives it."""

from pathlib import Path

import pytest
import torch

from cubeopt.data.building import unify
from cubeopt.data.building.unify import BuildOptions

from .conftest import Cli


def _build(folder: Path, seed: int, mixed: bool) -> Path:
    """A dataset of 60 dialogues of eight pairs; answers follow from questions unless *mixed*."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q
    for number in range(120):
        questions = torch.randn(8, 24, generator=generator)
        answers = torch.randn(8, 24, generator=generator) if mixed else questions @ turn
        rows = torch.nn.functional.normalize(torch.cat([questions, answers]), dim=1)
        content = {"questions": rows[:8], "answers": rows[8:], "metadata": [{}] * 8}
        (folder / "files").mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / "files" / f"dialogue_{number:032x}.pt")
    return unify.build([folder / "files"], folder / "built", BuildOptions(width=24)).folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("clean"), 1, mixed=False)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("mixed"), 2, mixed=True)


def test_a_fit_dataset_is_said_to_be_fit(cli: Cli, clean: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "page.html"
    shown = cli("data", "check", clean, "-o", page, "--strict")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == f"dataset                 {clean}"
    assert lines[1] == "verdict                 Fit: nothing is wrong with it"
    assert f"page                    {page}" in lines
    for title in ("near copies:", "cosine of question", "the answer from", "rows by split"):
        assert any(line.startswith(title) for line in lines)
    assert "Fit: nothing is wrong with it" in page.read_text()


def test_the_page_stands_in_the_reports_of_the_storage(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    (tmp_path / "home" / "data").mkdir(parents=True)
    (tmp_path / "home" / "data" / "talks").symlink_to(clean)
    shown = cli("data", "check", "talks", "--json")
    assert shown.code == 0
    assert shown.json["page"] == str(tmp_path / "home" / "reports" / "data-talks.html")
    assert Path(shown.json["page"]).is_file()


def test_json_holds_every_fact_and_nothing_else_is_printed(
    cli: Cli, mixed: Path, tmp_path: Path
) -> None:
    shown = cli("data", "check", mixed, "--json", "-o", tmp_path / "page.html")
    assert (shown.code, shown.err) == (0, "")
    found = shown.json
    assert found["width"] == 24
    assert sum(found["sentences"].values()) == 1920
    assert found["difficulty"][0]["task"] == "dialogue"
    assert [each["severity"] for each in found["findings"]] == ["problem"]


def test_strict_leaves_with_code_one_after_printing(cli: Cli, mixed: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = cli("data", "check", mixed, "--strict", "-o", page)
    assert shown.code == 1
    assert "problem: the task dialogue: ridge regression does not beat" in shown.out
    [line] = shown.err.splitlines()
    assert f"{mixed}: 1 problem (--strict); the first: the task dialogue" in line
    assert "Not fit as it is: 1 problem" in page.read_text()


def test_networks_are_trained_when_asked_for(
    cli: Cli, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cubeopt.data.fitness import autoencoder

    monkeypatch.setattr(autoencoder, "_EPOCHS", 1)
    shown = cli("data", "check", clean, "--mlp", "--seeds", "2", "-o", tmp_path / "page.html")
    assert shown.code == 0
    assert "network, noise 0.5" in shown.out
    assert "network, noise 0.5, 2 seeds" in (tmp_path / "page.html").read_text()


def test_a_dataset_that_is_not_there_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    shown = cli("data", "check", tmp_path / "nowhere")
    assert (shown.code, shown.out) == (2, "")
    assert len(shown.err.splitlines()) == 1
    assert "no dataset there" in shown.err
