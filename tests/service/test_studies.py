"""A study is created whole, from data that fits it, under a name of its own; or not at all."""

import importlib.util
import threading

import optuna
import pytest
import torch

from cubeopt.data import dataset
from cubeopt.data.building import unify
from cubeopt.db import orders, outcomes, records
from cubeopt.db.engine import optuna_url
from cubeopt.db.tables import StudyState
from cubeopt.errors import ConfigError, DataError, StateError, StudyError, UnknownNameError
from cubeopt.search import mirror, study
from cubeopt.service import studies
from cubeopt.service.coordinator import Coordinator


@pytest.fixture
def storage(engine):
    opened = mirror.open_storage(optuna_url(engine))
    yield opened
    opened.engine.dispose()


def names(storage):
    return [each.study_name for each in storage.get_all_studies()]


@pytest.fixture
def changed_base(create, tiny_study):
    """Create the tiny study with values of its base changed."""
    return lambda **values: create(base={**tiny_study["base"], **values})


@pytest.fixture
def nothing_made(engine, storage):
    """In the end there is no study, neither ours nor Optuna's."""
    yield
    assert records.studies(engine) == []
    assert names(storage) == []


def test_a_study_stands_in_both_sets_of_tables_with_its_data_and_baselines(engine, create, storage):
    record = create()
    assert records.study(engine, "tiny") == record
    assert names(storage) == ["tiny"]
    assert record.dataset_rows == {"train": 160, "validation": 16, "test": 16}
    baselines = record.baselines
    assert baselines["pca_width"] == 4
    assert 0.0 < baselines["pca"] < baselines["mean"]
    assert baselines["mean"] == pytest.approx(1.0, abs=0.2)
    assert baselines["identity"] is None
    shown = optuna.load_study(study_name="tiny", storage=storage)
    assert shown.direction == optuna.study.StudyDirection.MINIMIZE
    assert shown.metric_names == ["fvu"]
    assert study.parse(record.spec, "stored") == study.parse(record.spec, "stored")


def test_baselines_are_in_the_metric_of_the_study_where_it_speaks_of_them(create):
    found = create(name="found", objective={"metric": "top1"}).baselines
    assert 0.0 < found["mean"] < found["pca"] <= 1.0
    assert create(name="spread", objective={"metric": "effective_rank"}).baselines == {}


@pytest.mark.usefixtures("nothing_made")
def test_a_dataset_that_is_not_there_is_named(changed_base):
    with pytest.raises(DataError, match=r"data/nosuch: no dataset there; make one with: cubeopt"):
        changed_base(dataset="nosuch")


@pytest.mark.usefixtures("nothing_made")
def test_a_dataset_of_another_width_is_refused(changed_base):
    message = r"study tiny: embedding_size is 25, but the dataset \S*tiny has embeddings of 24"
    with pytest.raises(DataError, match=message):
        changed_base(embedding_size=25)


@pytest.mark.usefixtures("nothing_made")
def test_a_task_that_the_dataset_was_not_built_for_is_refused(settings, changed_base):
    rows = torch.nn.functional.normalize(torch.randn(60, 24), dim=1)
    torch.save(rows, settings.data_dir / "bare.pt")
    folder = settings.data_dir / "bare"
    unify.build([settings.data_dir / "bare.pt"], folder, unify.BuildOptions(width=24))
    with pytest.raises(DataError, match=r"bare: no rows for the task dialogue, only for reconstr"):
        changed_base(dataset="bare", task=["reconstruct", "dialogue"])


@pytest.mark.usefixtures("nothing_made")
def test_a_damaged_dataset_is_refused(settings, create):
    file = settings.data_dir / "tiny" / dataset.EMBEDDINGS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"tiny: damaged dataset: .* build it again"):
        create()


@pytest.mark.usefixtures("nothing_made")
def test_a_lattice_that_cannot_be_wired_is_refused_before_a_trial_draws_it(create, tiny_study):
    search = {**tiny_study["search"], "distant_links": {"choices": [1, 11]}}
    with pytest.raises(ConfigError, match="distant_links"):
        create(search=search)


@pytest.mark.usefixtures("nothing_made")
def test_a_sampler_that_is_not_installed_is_refused_with_what_installs_it(create, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"sampler cmaes needs cmaes, .*cubeopt\[samplers\]'"):
        create(sampler={"name": "cmaes"})


@pytest.mark.usefixtures("nothing_made")
def test_a_lattice_that_only_a_condition_reaches_is_looked_at(create, tiny_study):
    links = {"choices": [1, 11], "when": {"gate": ["frozen"]}}
    gate = {"choices": ["learned", "frozen"]}
    with pytest.raises(ConfigError, match="distant_links"):
        create(search={**tiny_study["search"], "gate": gate, "distant_links": links})


def test_a_name_that_another_study_has_is_refused(engine, create, storage):
    first = create()
    with pytest.raises(StudyError, match=r"already .*'tiny'|'tiny' .*already"):
        create(budget={"trials": 3})
    assert records.studies(engine) == [first]
    assert names(storage) == ["tiny"]


def test_a_name_that_a_study_of_optuna_has_is_refused_and_left_alone(engine, create, storage):
    theirs = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    theirs.set_user_attr("whose", "somebody else's")
    with pytest.raises(StudyError, match=r"Optuna.* already hold a study 'tiny'; .*--name"):
        create()
    assert records.studies(engine) == []
    found = optuna.load_study(study_name="tiny", storage=storage)
    assert found.direction == optuna.study.StudyDirection.MAXIMIZE
    assert found.user_attrs == {"whose": "somebody else's"}


def test_an_equal_file_finds_its_study_and_another_file_of_its_name_does_not(
    engine, create, tiny_study
):
    spec = study.parse(tiny_study, "tiny.yaml")
    assert studies.existing(engine, spec) is None
    record = create()
    assert studies.existing(engine, spec) == record
    other = study.parse({**tiny_study, "budget": {"trials": 7}}, "other.yaml")
    with pytest.raises(StudyError, match=r"'tiny' exists already .* another file; .*--name"):
        studies.existing(engine, other)


def test_of_several_who_create_one_name_at_once_exactly_one_wins(engine, create, storage):
    gate, made, refused = threading.Barrier(4), [], []

    def one(trials):
        gate.wait()
        try:
            made.append(create(budget={"trials": trials}))
        except StudyError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records.studies(engine) == made
    assert len(refused) == 3
    assert all("'tiny'" in text and "already" in text and "--name" in text for text in refused)
    assert names(storage) == ["tiny"]


def test_a_deleted_study_is_gone_from_both_tables_and_from_the_disk(
    engine, settings, create, storage
):
    create()
    create(name="other")
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    file = settings.checkpoints_dir / "tiny" / "trial_00000" / "state"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"12345")
    gone = studies.delete(engine, settings, "tiny")
    assert (gone["trials"], gone["runs"], gone["checkpoint_bytes"]) == (4, 4, 5)
    assert not (settings.checkpoints_dir / "tiny").exists()
    assert [each.name for each in records.studies(engine)] == names(storage) == ["other"]
    coordinator.tick()
    with pytest.raises(UnknownNameError, match="no study named 'tiny'"):
        studies.delete(engine, settings, "tiny")


def test_a_deletion_that_was_interrupted_is_finished_by_the_next(engine, settings, create, storage):
    create()
    orders.delete(engine, "tiny")
    assert names(storage) == ["tiny"]
    studies.delete(engine, settings, "tiny")
    assert names(storage) == []


def test_a_study_deleted_while_the_coordinator_looks_at_it_ends_nobody(
    engine, settings, create, storage, monkeypatch
):
    create()
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    look = outcomes.standing

    def deleted_meanwhile(engine, study_id):
        studies.delete(engine, settings, "tiny")
        return look(engine, study_id)

    monkeypatch.setattr(outcomes, "standing", deleted_meanwhile)
    coordinator.tick()
    assert records.studies(engine) == []


def test_a_point_of_a_persons_own_is_the_next_trial(engine, create, storage):
    record = create()
    coordinator = Coordinator(engine, storage)
    number, params = studies.enqueue(engine, "tiny", {"learning_rate": 0.02})
    coordinator.tick()
    trial = records.trials(engine, record.id)[number]
    assert (trial.params["learning_rate"], params) == (0.02, {"learning_rate": 0.02})
    assert 0.0 <= trial.params["similarity_weight"] <= 1.0
    coordinator.tick()
    assert len(records.trials(engine, record.id)) == 4


def test_a_study_that_takes_no_more_trials_says_so(engine, create, storage):
    record = create(budget={"trials": 1})
    Coordinator(engine, storage).tick()
    with pytest.raises(StateError, match="has asked for all of its 1 trials"):
        studies.enqueue(engine, "tiny", {"learning_rate": 0.02})
    orders.end(engine, record.id, StudyState.STOPPED, "enough")
    with pytest.raises(StateError, match="'tiny' is stopped"):
        studies.enqueue(engine, "tiny", {"learning_rate": 0.02})
