"""A worker leaves alone what is not for it, says so once, and blocks nobody's queue."""

import logging
import shutil
import threading

import pytest
import torch

from cubeopt import provenance
from cubeopt.data import dataset
from cubeopt.data.building import unify
from cubeopt.db import queue, records
from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.errors import RefusedError
from cubeopt.service import admission
from cubeopt.service.admission import Admission
from cubeopt.settings import Settings

from .conftest import coordinating, until

CODE = provenance.code_version()
OTHER_CODE = "0.0.9+0123456789ab+src.0123456789ab"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(admission, "_LOOK_SECONDS", 0.0)


@pytest.fixture
def admit(engine, settings):
    def made(code=CODE, only=None, home=settings.storage_dir):
        return Admission(engine, Settings(home, None, "WARNING"), code, only)

    return made


def build_other(folder):
    """Another dataset in the place of the one in *folder*."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.nn.functional.normalize(torch.randn(60, 24, generator=generator), dim=1)
    torch.save(rows, folder.parent / "other.pt")
    unify.build([folder.parent / "other.pt"], folder, unify.BuildOptions(width=24))


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def attempts(engine, record):
    return records.attempts(engine, record.id)


def ended(engine, *names):
    return {records.study(engine, name).state for name in names} == {StudyState.COMPLETE}


def test_a_study_whose_data_differ_is_left_alone_and_the_others_are_worked_on(
    engine, settings, create, work, caplog
):
    shutil.copytree(settings.data_dir / "tiny", settings.data_dir / "second")
    refused = create()
    base = {**refused.spec["base"], "dataset": "second"}
    create(name="other", base=base)
    build_other(settings.data_dir / "tiny")
    with coordinating(engine):
        until(lambda: queue.first_waiting(engine))
        with pytest.raises(RefusedError, match="study tiny was left to other workers: the dataset"):
            work()
    assert ended(engine, "other")
    assert attempts(engine, refused) == []
    assert {run.state for run in records.runs(engine, refused.id)} == {RunState.WAITING}
    said = [line for line in warnings(caplog) if "tiny" in line]
    found = dataset.load(settings.data_dir / "tiny").fingerprint
    assert said == [
        f"study tiny is left to other workers: the dataset in {settings.data_dir / 'tiny'} has "
        f"fingerprint {found[:12]}, but the study was created with "
        f"{refused.dataset_fingerprint[:12]}; put that dataset there, or create a new study"
    ]


def test_a_study_is_taken_up_once_its_data_are_there(engine, settings, create, work, caplog):
    record = create()
    tiny, away = settings.data_dir / "tiny", settings.data_dir / "away"
    tiny.rename(away)
    create(name="long", base={**record.spec["base"], "dataset": str(away)})
    stop = threading.Event()
    with coordinating(engine):
        worker = threading.Thread(target=lambda: work(stop, until_done=False))
        worker.start()
        try:
            until(lambda: ended(engine, "long"))
            assert attempts(engine, record) == []
            shutil.copytree(away, tiny)
            until(lambda: ended(engine, "tiny"))
        finally:
            stop.set()
            worker.join()
    (said,) = [line for line in warnings(caplog) if line.startswith("study tiny is left")]
    assert f"{tiny}: no dataset there" in said
    assert f"it needs the one with fingerprint {record.dataset_fingerprint[:12]}" in said


def test_damage_that_only_reading_shows_is_said_once_and_nothing_is_lost(
    engine, settings, create, work, caplog
):
    record = create()
    file = settings.data_dir / "tiny" / "embeddings.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\0\0\0\1")
    with coordinating(engine):
        until(lambda: queue.first_waiting(engine))
        with pytest.raises(RefusedError, match="damaged dataset"):
            work()
        assert {each.end_class for each in attempts(engine, record)} == {EndClass.PREEMPTED}
        assert len([line for line in warnings(caplog) if "damaged" in line]) == 1
        file.write_bytes(whole)
        work()
    assert ended(engine, "tiny")


@pytest.mark.parametrize("missing", [True, False])
def test_a_worker_for_one_study_that_is_refused_ends_before_it_registers(
    engine, settings, create, work, missing
):
    create()
    folder = settings.data_dir / "tiny"
    if missing:
        shutil.rmtree(folder)
    else:
        build_other(folder)
    with pytest.raises(RefusedError, match=r"study tiny is left to other workers: .*tiny"):
        work(study="tiny")
    assert records.workers(engine) == []


def test_the_dataset_may_lie_elsewhere_on_each_machine(create, admit, settings, tmp_path):
    record = create()
    shutil.copytree(settings.data_dir, tmp_path / "elsewhere" / "data")
    assert admit(home=tmp_path / "elsewhere").studies() == [record.id]


@pytest.mark.parametrize(
    ("rule", "admitted", "said"),
    [("warn", True, 1), ("ignore", True, 0), ("strict", False, 1)],
)
def test_other_code_is_warned_of_refused_or_let_be_as_the_study_says(
    create, admit, caplog, rule, admitted, said
):
    record = create(code=rule)
    assert record.code_version == CODE
    judge = admit(code=OTHER_CODE)
    for _ in range(3):
        assert judge.studies() == [record.id] * admitted
    differ = f"created with the code {CODE}, and this is {OTHER_CODE}"
    assert sum(differ in line for line in warnings(caplog)) == said
    assert len(judge.refused({record.id})) == (not admitted)
    assert admit().studies() == [record.id]
    if not admitted:
        with pytest.raises(RefusedError, match="start a worker of that code"):
            admit(code=OTHER_CODE, only="tiny").studies()


def test_a_claim_takes_no_company_from_a_study_that_is_not_admitted(engine, create, admit):
    loose, strict = create(name="loose"), create(name="strict", code="strict")
    with coordinating(engine):
        until(lambda: len(records.runs(engine, strict.id)) >= 4)
    keys = {run.pack_key for each in (loose, strict) for run in records.runs(engine, each.id)}
    assert len(keys) == 1
    worker = queue.register(engine, "w", "h", 1, "cpu", {})
    admitted = admit(code=OTHER_CODE).studies()
    first = queue.first_waiting(engine, admitted=admitted)
    assert first.study_id == loose.id
    options = {"preferred_width": 16, "lease_seconds": 60.0, "device": "cpu", "provenance": {}}
    claims = queue.claim(engine, worker, 16, **options, admitted=admitted)
    assert {each.study_id for each in claims} == {loose.id}
    assert queue.first_waiting(engine, admitted=admitted) is None
    assert queue.first_waiting(engine).study_id == strict.id
    rest = queue.claim(engine, worker, 16, **options, admitted=[])
    assert rest == []
    rest = queue.claim(engine, worker, 16, **options)
    assert {each.study_id for each in rest} == {strict.id}
