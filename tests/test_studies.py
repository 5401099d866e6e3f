"""Every study file that ships with the project, and the training file beside them."""

from pathlib import Path

import pytest

from cubeopt.search import configuration, study
from cubeopt.search.memory import Memory
from cubeopt.trial import TrialSpec

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
MAIN_CONFIG = ROOT / "config" / "main_config.yaml"


def test_the_two_studies_of_the_readme_are_there() -> None:
    assert {"quickstart", "cube8"} <= {path.stem for path in STUDIES}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_file_loads_under_its_own_name(path: Path) -> None:
    assert study.load(path).name == path.stem


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_point_that_optuna_draws_is_a_trial(path: Path) -> None:
    spec = study.load(path)
    specs = [spec.trial(each.params, each.number) for each in Memory(spec, []).ask(50)]
    assert all(isinstance(each, TrialSpec) for each in specs)
    assert len(set(specs)) == 50


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_read_back_from_the_storage_is_the_study(path: Path) -> None:
    spec = study.load(path)
    assert study.parse(spec.model_dump(mode="json"), "storage") == spec


def test_cube8_searches_what_it_promises() -> None:
    spec = study.load(ROOT / "studies" / "cube8.yaml")
    assert set(spec.search) == {
        *("reconstruction_weight", "similarity_weight", "diversity_weight", "emergence_weight"),
        *("learning_rate", "weight_decay", "state_size", "lattice_steps"),
    }
    assert spec.search["state_size"].choices == (32, 64, 128)
    assert spec.search["lattice_steps"].choices == (5, 10)
    assert spec.rungs.epochs == (1, 2, 5)
    assert (spec.promotion.top, spec.full_epochs) == (1, 50)


def test_cube8_is_the_cube_of_the_main_config_trained_as_it_learns_best() -> None:
    section = configuration.read_mapping(MAIN_CONFIG)["real_training"]
    base = dict(study.load(ROOT / "studies" / "cube8.yaml").base)
    learned = {
        **{"learning_rate": 0.004, "weight_decay": 0.3, "ema_decay": 0.999},
        "input_noise": 0.5,
        **{"similarity_weight": 0.0, "diversity_weight": 0.0, "emergence_weight": 0.02},
    }
    assert {**section, "task": "reconstruct", **learned} == base


def test_the_main_config_is_the_one_that_users_know() -> None:
    content = configuration.read_mapping(MAIN_CONFIG)
    assert list(content) == ["real_training"]
    assert list(content["real_training"].items()) == [
        ("lattice_size", [8, 8, 8]),
        ("dataset", "dialogue_combined"),
        ("batch_size", 16),
        ("epochs", 50),
        ("learning_rate", 0.001),
        ("reconstruction_weight", 1.0),
        ("similarity_weight", 0.5),
        ("diversity_weight", 0.2),
        ("emergence_weight", 0.1),
        ("save_checkpoint_every", 5),
        ("log_interval", 10),
        ("validation_interval", 1),
    ]
    spec, provenance = configuration.read_training(MAIN_CONFIG)
    assert provenance is None
    assert spec.plan.epochs == 50
