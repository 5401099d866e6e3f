"""`cubeopt analyze`, over what `cubeopt train` leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cubeopt import saved, trial
from cubeopt.data import dataset as datasets
from cubeopt.db import leases, queue, records
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import NewTrial
from cubeopt.training import checkpoint
from cubeopt.training.checkpoint import Facts
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun


@pytest.fixture
def folder(home: Path, tiny_study: dict[str, Any]) -> Path:
    """A checkpoint in an experiment's folder."""
    held = datasets.load(home / "data" / "tiny")
    spec = trial.from_flat(tiny_study["base"])
    feed = Feed(held, spec.plan.task, torch.device("cpu"))
    run = PackRun(spec.shape, 1, feed)
    run.fill(0, run.fresh(spec))
    saved = home / "experiments" / "first" / "checkpoints" / "step_00000012"
    facts = Facts(4, 1, held.fingerprint, {}, {})
    checkpoint.save(saved, run.state(0), run.cube.layout, feed, facts)
    return saved


def test_it_says_what_the_cube_does(cli, folder, tmp_path):
    page = tmp_path / "cube.html"
    said = cli("analyze", folder, "-o", page)
    assert (said.code, said.err) == (0, "")
    assert page.read_text().startswith("<!doctype html>")
    lines = said.out.splitlines()
    assert any(line.split() == ["epoch", "4"] for line in lines)
    assert any(line.startswith("note: arrival: a change of the input reaches") for line in lines)
    assert "how far a change of the input reaches" in said.out
    row = cli("analyze", folder.parent.parent, "--json").json  # the experiment: its newest
    assert (row["epoch"], row["size"], row["page"]) == (4, [2, 2, 3], None)
    assert row["checkpoint"] == str(folder)
    assert len(row["flow"]["carried"]) == 3
    assert len(row["steps"][1]["shares"]["local"]) == 12


def test_what_cannot_be_looked_at_is_one_line_and_a_code(cli, folder, home, tmp_path):
    assert cli("analyze").code == 2
    assert cli("analyze", folder, "--study", "s", "--trial", 1).code == 2
    said = cli("analyze", folder, "--epoch", 1)
    assert (said.code, said.err) == (2, "cubeopt: --epoch goes with --study and --trial\n")
    said = cli("analyze", tmp_path / "none")
    assert said.code == 1
    assert said.err.startswith("cubeopt: cannot read checkpoint")
    said = cli("analyze", "--study", "nobody", "--trial", 0)
    assert said.code == 2
    facts = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(facts | {"dataset_fingerprint": "0" * 64}))
    said = cli("analyze", folder)
    assert said.code == 2
    assert "was trained on a dataset with fingerprint 000000000000, but" in said.err
    shutil.rmtree(home / "data" / "tiny")
    said = cli("analyze", folder)
    assert said.code == 2
    assert said.err.startswith(
        "cubeopt: the cube was trained on the dataset 'tiny', which cannot be read here: "
    )
    assert len(said.err.splitlines()) == 1


def test_a_trial_of_a_study_is_found_by_its_number(cli, folder, home, engine):
    """Its short run has left two epochs here, of which the storage knows the newest."""
    held = datasets.load(home / "data" / "tiny")
    record = records.create_study(
        engine,
        name="tiny",
        spec={"name": "tiny", "rungs": {"epochs": [1, 2]}},
        direction="minimize",
        metric="fvu",
        dataset="tiny",
        dataset_fingerprint=held.fingerprint,
        dataset_rows=held.counts(held.tasks),
        baselines={},
        code_version="0",
    )
    queue.enqueue(engine, record.id, [NewTrial(n, {}, {"seed": n}, "a", 2) for n in range(2)])
    worker = queue.register(engine, "w", "host", 1, "cpu", {})
    (claim,) = queue.claim(
        engine,
        worker,
        1,
        device="cpu",
        provenance={},
        preferred_width=1,
        max_width=1,
        lease_seconds=600.0,
    )
    run = saved.folder("tiny", 0, "short", 0)
    for epoch in (1, 2):
        shutil.copytree(folder, home / "checkpoints" / run / f"epoch_{epoch:05d}.t1")
        path = str(run / f"epoch_{epoch:05d}.t1")
        report = EpochReport(claim.run_id, claim.token, epoch, 0.5, {}, path)
        leases.report(engine, [report], lambda question: False)
    for given, epoch in (((), 2), (("--epoch", 1), 1)):
        row = cli("analyze", "--study", "tiny", "--trial", 0, *given, "--json").json
        assert row["checkpoint"] == str(home / "checkpoints" / run / f"epoch_{epoch:05d}.t1")
    said = cli("analyze", "--study", "tiny", "--trial", 0, "--epoch", 7)
    assert (said.code, said.err) == (
        2,
        "cubeopt: no checkpoint of epoch 7 of trial 0 is here, only of 1, 2\n",
    )
    said = cli("analyze", "--study", "tiny", "--trial", 1)
    assert said.err == "cubeopt: trial 1 of study 'tiny' has left no checkpoint\n"
    shutil.rmtree(home / "checkpoints")
    said = cli("analyze", "--study", "tiny", "--trial", 0)
    assert said.code == 1
    assert "the checkpoints of trial 0 of study 'tiny' are not on this machine" in said.err
