"""The best configuration as a file."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cubeopt import trial
from cubeopt.search import configuration
from cubeopt.search.export import PROVENANCE, best_config
from cubeopt.trial import TrialSpec

# Strings that a careless YAML writer turns into numbers, dates and truth values.
TRICKY = ["1e23456", "12345", "0x1f", "2026-11-05", "on", "null", "1:30", "~", "a: b", "# c", "é\n"]


def _provenance(**values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(PROVENANCE, "x"), **values}


def test_the_section_stands_in_the_order_of_users_and_is_whole() -> None:
    section = best_config(TrialSpec(), _provenance())["real_training"]
    assert list(section)[:14] == [
        *("lattice_size", "dataset", "batch_size", "epochs", "learning_rate"),
        *("reconstruction_weight", "similarity_weight", "diversity_weight", "emergence_weight"),
        *("state_size", "lattice_steps", "save_checkpoint_every", "log_interval"),
        "validation_interval",
    ]
    assert set(section) == trial.value_names()


def test_the_provenance_keeps_what_it_is_given() -> None:
    given_values = _provenance(trial=7, value=0.5, extra="kept")
    assert best_config(TrialSpec(), given_values)["provenance"] == given_values


@given(
    learning_rate=st.floats(1e-12, 1e3),
    emergence_weight=st.floats(0.0, 1e6),
    state_size=st.integers(1, 4096),
    seed=st.integers(0, 2**31 - 1),
    dataset=st.one_of(st.sampled_from(TRICKY), st.text(st.characters(codec="utf-8"), min_size=1)),
)
def test_what_is_written_is_read_back_to_the_bit(
    tmp_path_factory: Any, dataset: str, **values: Any
) -> None:
    spec = TrialSpec().with_values({"dataset": dataset, **values})
    path = tmp_path_factory.mktemp("export") / "best.yaml"
    provenance = _provenance(code_version=dataset, value=values["learning_rate"], test_value=None)
    configuration.write(best_config(spec, provenance), path)
    assert configuration.read_training(path) == (spec, provenance)


def test_a_second_export_of_the_read_back_is_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    spec = TrialSpec().with_values({"lattice_size": [4, 5, 6], "task": ["nli", "dialogue"]})
    configuration.write(best_config(spec, _provenance()), first)
    read, provenance = configuration.read_training(first)
    assert provenance is not None
    configuration.write(best_config(read, provenance), second)
    assert second.read_bytes() == first.read_bytes()
