"""What one trial is."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubeopt import trial
from cubeopt.errors import ConfigError
from cubeopt.trial import CubeShape, TrialSpec


def test_flat_values_make_the_same_trial_again() -> None:
    spec = TrialSpec().with_values(
        {"lattice_size": [4, 5, 6], "task": ["nli", "dialogue"], "learning_rate": 0.1, "seed": 7}
    )
    assert trial.from_flat(spec.flat()) == spec
    assert trial.from_flat(json.loads(json.dumps(spec.flat()))) == spec


def test_flat_has_every_name_once_and_nothing_else() -> None:
    assert set(TrialSpec().flat()) == trial.value_names()
    parts = (CubeShape, trial.CubeKnobs, trial.LossKnobs, trial.OptimKnobs, trial.Plan)
    assert len(trial.value_names()) == 1 + sum(len(part.model_fields) for part in parts)


@pytest.mark.parametrize("name", sorted(trial.value_names()))
def test_one_value_changes_itself_and_no_other(name: str) -> None:
    spec = TrialSpec()
    named = {
        **{"lattice_size": [9, 8, 8], "dataset": "other", "task": "nli"},
        **{"schedule": "cosine", "emergence": "legacy_log", "functional_radius": 3.0},
        **{"tiers": "share", "placement": "spread", "readout": "value", "experts": "local"},
        **{"gate": "frozen", "halting": "learned", "weighting": "gradnorm"},
        **dict.fromkeys(("input_noise", "dropout", "ema_decay"), 0.5),
    }
    if name.endswith("_weight_end"):
        spec, named = spec.with_values({"weighting": "annealed"}), {name: 0.5}
    before = spec.flat()
    value = named[name] if name in named else before[name] + 1
    if isinstance(before[name], float) and name not in named:
        value = before[name] / 2
    after = spec.with_values({name: value}).flat()
    assert {each for each in after if after[each] != before[each]} == {name}


@given(
    learning_rate=st.floats(1e-300, 1e3),
    weight_decay=st.floats(0.0, 10.0),
    seed=st.integers(0, 2**31 - 1),
)
def test_json_keeps_every_bit(**values: Any) -> None:
    spec = TrialSpec().with_values(values)
    assert trial.from_flat(json.loads(json.dumps(spec.flat()))) == spec


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rat": 0.1}, "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ({"xyz": 1}, "unknown key 'xyz'"),
        ({"batch_size": 0}, "batch_size: Input should be greater than or equal to 1 (got 0)"),
        ({"batch_size": "16"}, "batch_size: Input should be a valid integer (got '16')"),
        ({"batch_size": 16.0}, "batch_size: Input should be a valid integer (got 16.0)"),
        ({"batch_size": True}, "batch_size: Input should be a valid integer (got True)"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0 (got -1)"),
        (
            {"similarity_weight": -0.5},
            "similarity_weight: Input should be greater than or equal to 0 (got -0.5)",
        ),
        (
            {"learning_rate": float("nan")},
            "learning_rate: Input should be a finite number (got nan)",
        ),
        ({"emergence": "x"}, "emergence: Input should be 'mutual_information' or 'legacy_log'"),
        (
            {"task": "translate"},
            "task: expected one or more of reconstruct, dialogue, nli, sentiment, got 'translate'",
        ),
        ({"task": []}, "task: at least one task is needed"),
        ({"lattice_size": [8, 8]}, "lattice_size.2: Field required"),
        ({"lattice_size": [1, 8, 8]}, "lattice_size must be 2 to 64 cells a side, got (1, 8, 8)"),
        ({"lattice_size": [8, 8, 65]}, "lattice_size must be 2 to 64 cells a side"),
        (
            {"local_radius": 2.0},
            "functional_radius (2.0) must exceed local_radius (2.0)",
        ),
        (
            {"warmup_fraction": 0.9},
            "warmup_fraction (0.9) and decay_fraction (0.2) together must not exceed 1",
        ),
        (
            {"similarity_weight_end": 0.0},
            "similarity_weight_end needs weighting: annealed, got fixed",
        ),
        (
            {"spatial_weight_end": 0.5, "weighting": "gradnorm"},
            "spatial_weight_end needs weighting: annealed, got gradnorm",
        ),
    ],
)
def test_a_broken_rule_is_one_line_that_names_the_file_the_key_and_the_rule(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        trial.from_flat(values, "main.yaml: real_training")
    message = str(raised.value)
    assert message.startswith(f"main.yaml: real_training: {said}")
    assert "\n" not in message


def test_a_trial_cannot_be_changed() -> None:
    spec = TrialSpec()
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        spec.optim.learning_rate = 1.0  # type: ignore[misc]
    assert {spec: 1}[TrialSpec()] == 1


def test_sizes_follow_from_the_lattice() -> None:
    shape = CubeShape(lattice_size=(4, 5, 6))
    assert (shape.cells, shape.face_cells) == (120, 20)


def test_a_pack_key_is_one_for_all_knobs_and_another_for_each_shape() -> None:
    key = TrialSpec().pack_key("data")
    shapes = set(CubeShape.model_fields)
    for name, value in {
        **{"learning_rate": 0.1, "diversity_weight": 0.0, "emergence": "legacy_log", "seed": 3},
        **{"lattice_size": [4, 4, 4], "state_size": 16, "lattice_steps": 2, "batch_size": 8},
        **{"embedding_size": 64, "local_radius": 1.5, "functional_radius": 3.0},
        **{"distant_links": 2},
    }.items():
        changed = TrialSpec().with_values({name: value}).pack_key("data")
        assert (changed != key) is (name in shapes), name
    assert TrialSpec().pack_key("other data") != key
    assert TrialSpec().with_values({"task": "nli"}).pack_key("data") != key


def test_a_pack_key_is_the_same_in_every_process() -> None:
    program = "from cubeopt.trial import TrialSpec; print(TrialSpec().pack_key('data'))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert said.stdout.decode().strip() == TrialSpec().pack_key("data")


def test_tasks_are_one_name_or_several_in_one_order_each_once() -> None:
    spec = TrialSpec().with_values({"task": ["nli", "reconstruct", "nli"]})
    assert spec.plan.task == (trial.Task.RECONSTRUCT, trial.Task.NLI)
    assert spec.flat()["task"] == ["reconstruct", "nli"]
    assert trial.from_flat(spec.flat()) == spec
    assert TrialSpec().with_values({"task": ["nli"]}).flat()["task"] == "nli"
    same = TrialSpec().with_values({"task": ["reconstruct", "nli"]})
    assert spec.pack_key("data") == same.pack_key("data")
