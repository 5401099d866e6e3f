"""Two of everything at once: right, and clean."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml

from cubeopt.db import embedded, records
from cubeopt.db import engine as db_engine
from cubeopt.search import mirror

from ..acceptance.conftest import STUDY, Site, site

HANDS = 4


@pytest.fixture
def empty(tiny_dataset: Path) -> Iterator[Site]:
    """A machine with a dataset and a study file, and nothing that runs."""
    home = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    home.chmod(0o711)  # or whoever makes the server says that they had to open it
    shutil.copytree(tiny_dataset, home / "data" / "tiny")
    (home / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    with site(home) as opened:
        yield opened
    embedded.stop(home / "pg")
    shutil.rmtree(home)


def answers(opened: Site, *arguments: object) -> list[tuple[int, str]]:
    """Start the same command several times at once; exit codes, and what each said."""
    processes = [opened.start(*arguments) for _ in range(HANDS)]
    return [(opened.ended(each), opened.said(each)) for each in processes]


@pytest.mark.parametrize("exist_ok", [False, True])
def test_studies_of_one_name_created_at_once_on_an_empty_machine_are_one(
    empty: Site, exist_ok: bool
) -> None:
    options = ["--json", *(["--exist-ok"] if exist_ok else [])]
    said = answers(empty, "study", "create", empty.home / "tiny.yaml", *options)
    good = [json.loads(text) for code, text in said if code == 0]
    bad = [text for code, text in said if code != 0]
    assert [each["created"] for each in good].count(True) == 1, said
    assert len(good) == (HANDS if exist_ok else 1), said
    for text in bad:
        assert text.startswith("cubeopt: a study 'tiny' exists already, made from an equal file")
        assert len(text.splitlines()) == 1
    url = embedded.address(empty.home / "pg", start=False)
    engine = db_engine.create(url)
    assert [each.name for each in records.studies(engine)] == ["tiny"]
    engine.dispose()
    storage = mirror.open_storage(url)
    assert optuna.get_all_study_names(storage) == ["tiny"]
    storage.engine.dispose()


def test_servers_brought_up_and_down_at_once_are_one(empty: Site) -> None:
    up = answers(empty, "db", "up", "--json")
    assert [code for code, _ in up] == [0] * HANDS, up
    assert len({json.loads(text)["storage"] for _, text in up}) == 1
    down = answers(empty, "db", "stop")
    assert [code for code, _ in down] == [0] * HANDS, down
    assert sum("stopped the server" in text for _, text in down) == 1
    assert not embedded.status(empty.home / "pg").running
