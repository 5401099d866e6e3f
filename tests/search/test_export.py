"""The best configuration as a file."""

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from cubeopt import trial
from cubeopt.search import configuration, study
from cubeopt.search.export import PROVENANCE, best_config, study_file
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


def test_a_studys_file_is_as_short_as_a_person_would_write_it_and_says_the_same() -> None:
    written = {
        "name": "shorter",
        "base": {"dataset": "sentences", "epochs": 20, "dropout": 0.1},
        "search": {
            "learning_rate": {"low": 0.001, "high": 0.02, "log": True},
            "halting": {"choices": ["fixed", "threshold"]},
            "halting_threshold": {"low": 0.01, "high": 1.0, "when": {"halting": ["threshold"]}},
        },
    }
    whole = study.parse(written, "shorter.yaml")
    stored = whole.model_dump(mode="json")
    stored["base"] = dict(sorted(written["base"].items()))  # jsonb has an order of its own
    stored["search"] = {
        name: dict(sorted(each.items(), reverse=True)) for name, each in stored["search"].items()
    }
    text = configuration.text(study_file(stored))
    assert study.parse(yaml.safe_load(text), "again.yaml") == whole
    assert "  learning_rate:\n    low: 0.001\n    high: 0.02\n    log: true\n  halting:" in text
    assert "base:\n  dataset: sentences\n  epochs: 20\n  dropout: 0.1\n" in text
    assert text.count("when:") == 1
