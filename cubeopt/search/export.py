"""Files as users know them: the best configuration, whole, with where it came from; a study's."""

from collections.abc import Mapping
from typing import Any

from cubeopt.search.configuration import PROVENANCE_SECTION, TRAINING_SECTION
from cubeopt.search.space import Range
from cubeopt.search.study import StudySpec
from cubeopt.trial import TrialSpec

# The order in which users know these values; every other value follows.
_FIRST = (
    *("lattice_size", "dataset", "batch_size", "epochs", "learning_rate"),
    *("reconstruction_weight", "similarity_weight", "diversity_weight", "emergence_weight"),
    *("state_size", "lattice_steps", "save_checkpoint_every", "log_interval"),
    "validation_interval",
)
PROVENANCE = (
    *("study", "trial", "metric", "value", "test_value", "epochs", "seed", "pack_width"),
    *("dataset_fingerprint", "code_version", "torch_version", "hardware", "threads", "date"),
)


def best_config(spec: TrialSpec, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The content of an exported file; *provenance* has every name of PROVENANCE, and may more.

    `configuration.write` puts it on disk, `configuration.read_training` gives *spec* back.
    """
    missing = [name for name in PROVENANCE if name not in provenance]
    assert not missing, f"provenance lacks {missing}"
    return {
        TRAINING_SECTION: _ordered(spec.flat(), _FIRST),
        PROVENANCE_SECTION: _ordered(provenance, PROVENANCE),
    }


def study_file(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a study's file, as the tables have it, in the order in which it is written.

    Of a searched value without what it would be anyway.
    """
    content = {name: spec[name] for name in (*StudySpec.model_fields, *spec) if name in spec}
    content["base"] = _ordered(spec.get("base", {}), _FIRST)
    content["search"] = {name: _written(each) for name, each in spec.get("search", {}).items()}
    return content


def _written(searched: Mapping[str, Any]) -> dict[str, Any]:
    """A `Range` as its file has it."""
    given = Range.model_validate(searched).model_dump(exclude_defaults=True, mode="json")
    return {name: given[name] for name in Range.model_fields if name in given}


def _ordered(values: Mapping[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in dict.fromkeys((*first, *values)) if name in values}
