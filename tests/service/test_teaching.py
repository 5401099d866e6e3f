"""Trials of an earlier study teach the sampler of a later one, or one error says why not."""

import shutil

import pytest
import torch

from cubeopt.data.building import unify
from cubeopt.db import orders, priors, records
from cubeopt.db.engine import optuna_url
from cubeopt.db.tables import RunState, StudyState
from cubeopt.errors import StudyError, UnknownNameError
from cubeopt.report import summary
from cubeopt.search import mirror, study
from cubeopt.service import studies, teaching
from cubeopt.service.coordinator import Coordinator

from .conftest import coordinating

TPE = {"name": "tpe", "startup_trials": 4}


@pytest.fixture
def storage(engine):
    opened = mirror.open_storage(optuna_url(engine))
    yield opened
    opened.engine.dispose()


@pytest.fixture
def spec(tiny_study):
    """The tiny study with *changes* put in, called "new", with a sampler that learns."""

    def made(base=None, **changes):
        content = {**tiny_study, "name": "new", "sampler": TPE, **changes}
        return study.parse({**content, "base": {**tiny_study["base"], **(base or {})}}, "new.yaml")

    return made


def test_what_an_earlier_study_found_teaches_a_later_one_and_nothing_else(
    engine, settings, create, work, spec, storage
):
    old = create(budget={"trials": 8}, promotion={"top": 1})
    with coordinating(engine):
        work()
    trials = records.trials(engine, old.id)
    middle = sorted(each.params["learning_rate"] for each in trials)[3]
    search = {"learning_rate": {"low": 1e-4, "high": middle, "log": True}}
    similarity = {"similarity_weight": {"low": 0.0, "high": 1.0}}
    wanted = spec(search={**search, **similarity}, budget={"trials": 3})
    (found,) = teaching.taught(engine, wanted, ["tiny"])
    inside = {each.number: each for each in trials if each.params["learning_rate"] <= middle}
    assert (len(inside), len(found.priors)) == (4, 4)
    assert found.left_out == {"outside the space (learning_rate)": 4}
    assert str(found) == (
        "4 trials of tiny teach the sampler; left out: 4 outside the space (learning_rate)"
    )
    for prior in found.priors:
        trial = inside[prior.number]
        assert (prior.state, prior.value) == (trial.state, trial.value)
        assert prior.values[max(prior.values)] == trial.value
        assert max(prior.values) == trial.epoch <= 3

    new = studies.create(engine, settings, wanted, [found])
    orders.delete(engine, "tiny")
    assert priors.read(engine, new.id) == found.priors
    told = summary.load(engine, "new").past
    assert told.lines() == ["warm start: 4 trials of tiny teach the sampler"]
    coordinator = Coordinator(engine, storage)
    coordinator.tick()
    optunas = coordinator._studies[new.id].memory._study.get_trials()
    assert [each.params for each in optunas[:4]] == [
        inside[prior.number].params for prior in found.priors
    ]
    assert len(optunas) == 4 + 3
    with coordinating(engine):
        work()
    ended = records.study(engine, "new")
    assert (ended.state, ended.state_reason) == (StudyState.COMPLETE, "all 3 trials have ended")
    assert [each.number for each in records.trials(engine, new.id)] == [0, 1, 2]
    whole = summary.load(engine, "new")
    best = summary.summarize(whole.study, whole.trials, whole.runs).best
    assert best is not None
    assert best.trial in {0, 1, 2}


def test_shorter_and_longer_short_runs_take_the_value_where_they_end(engine, create, work, spec):
    old = create(budget={"trials": 4}, rungs={"epochs": [2], "rule": "none"})
    with coordinating(engine):
        work()
    by_trial = {}
    for each in records.epochs(engine, old.id):
        by_trial.setdefault(each.trial_number, {})[each.epoch] = each.value
    (shorter,) = teaching.taught(engine, spec(rungs={"epochs": [1]}), ["tiny"])
    assert [(each.state, each.value, each.values) for each in shorter.priors] == [
        (RunState.COMPLETE, values[1], {1: values[1]}) for _, values in sorted(by_trial.items())
    ]
    (longer,) = teaching.taught(engine, spec(rungs={"epochs": [5]}), ["tiny"])
    (promoted,) = [number for number, values in by_trial.items() if len(values) == 6]
    for prior in longer.priors:
        went_on = prior.number == promoted
        assert prior.state == (RunState.COMPLETE if went_on else RunState.PRUNED)
        assert prior.value == by_trial[prior.number][5 if went_on else 2]
    assert longer.left_out == {}


def test_another_base_and_trials_without_a_result_are_counted_by_reason(
    engine, create, spec, storage
):
    create()
    Coordinator(engine, storage).tick()
    (waiting,) = teaching.taught(engine, spec(), ["tiny"])
    assert (waiting.priors, waiting.left_out) == ([], {"not at epoch 3": 4})
    (other,) = teaching.taught(engine, spec(base={"dropout": 0.5, "batch_size": 8}), ["tiny"])
    assert other.left_out == {"other base values (batch_size, dropout)": 4}
    assert str(other).startswith("0 trials of tiny teach the sampler; left out: 4 other base")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"objective": {"metric": "cosine"}},
            "study new: --from tiny: its metric is fvu, that of this study cosine; results of the "
            "two do not compare",
        ),
        (
            {"objective": {"metrics": ["fvu", "parameters"]}},
            "study new: --from tiny: its metric is fvu, that of this study fvu and parameters; "
            "results of the two do not compare",
        ),
        (
            {"base": {"task": ["reconstruct", "dialogue"]}},
            "study new: --from tiny: its task is reconstruct, that of this study reconstruct, "
            "dialogue; results of the two do not compare",
        ),
        (
            {"base": {"epochs": 7}},
            "study new: --from tiny: its base.epochs is 6, that of this study 7; results of the "
            "two do not compare",
        ),
        *(
            (
                {"sampler": sampler},
                f"study new: --from tiny: the sampler {sampler['name']} does not learn from trials "
                "that it did not ask for; take tpe, gp, mfgp or nsgaii",
            )
            for sampler in (
                {"name": "random"},
                {"name": "qmc"},
                {"name": "cmaes"},
                {"name": "grid", "points": {"learning_rate": 2, "similarity_weight": 2}},
            )
        ),
    ],
)
def test_what_does_not_compare_or_learn_is_one_error(engine, create, spec, changes, said):
    create()
    with pytest.raises(StudyError) as error:
        teaching.taught(engine, spec(**changes), ["tiny"])
    assert str(error.value) == said


def test_a_source_given_twice_or_unknown_is_an_error(engine, create, spec):
    create()
    with pytest.raises(StudyError, match=r"^study new: --from tiny is given twice$"):
        teaching.taught(engine, spec(), ["tiny", "tiny"])
    with pytest.raises(UnknownNameError, match="no study named 'tinny'; did you mean 'tiny'"):
        teaching.taught(engine, spec(), ["tinny"])


def test_other_data_teach_nothing_and_leave_no_study(engine, settings, create, spec):
    old = create()
    rows = torch.nn.functional.normalize(torch.randn(60, 24), dim=1)
    torch.save(rows, settings.data_dir / "bare.pt")
    folder = settings.data_dir / "bare"
    unify.build([settings.data_dir / "bare.pt"], folder, unify.BuildOptions(width=24))
    other = spec(base={"dataset": "bare"})
    found = teaching.taught(engine, other, ["tiny"])
    with pytest.raises(StudyError) as error:
        studies.create(engine, settings, other, found)
    mine = old.dataset_fingerprint[:12]
    assert str(error.value).startswith(
        f"study new: --from tiny: its dataset has the fingerprint {mine}, that of this study "
    )
    assert [each.name for each in records.studies(engine)] == ["tiny"]
    shutil.copytree(settings.data_dir / "tiny", settings.data_dir / "copy")
    studies.create(engine, settings, spec(base={"dataset": "copy"}), found)
