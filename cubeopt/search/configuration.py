"""YAML files: read as plain mappings, written back atomically; and the config of one training."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cubeopt import atomic, trial
from cubeopt.errors import ConfigError, InputError
from cubeopt.trial import TrialSpec

TRAINING_SECTION = "real_training"
PROVENANCE_SECTION = "provenance"


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads 1e-3 as a number (YAML 1.2) and refuses a key given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes the strings which _Loader would read as something else."""


def _list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    """In one line, as people write lattice_size."""
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Raw, unusual line ends would be read back as spaces; in double quotes they are escaped.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)
_Dumper.add_representer(list, _list)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at *path*; ConfigError names the file and the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}:{line} {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a 13th month
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected a mapping of names to values at the top")
    return content


def write(content: Mapping[str, Any], path: Path, header: str = "") -> None:
    """Write *content* as YAML to *path*, whole or not at all; *header* becomes comment lines."""
    try:
        atomic.write(text(content, header).encode(), path)
    except InputError as error:
        raise ConfigError(str(error)) from error


def text(content: Mapping[str, Any], header: str = "") -> str:
    """*content* as YAML; *header* becomes comment lines."""
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_training(path: Path) -> tuple[TrialSpec, dict[str, Any] | None]:
    """The trial of a file with a real_training section, and its provenance if it has one.

    Other sections belong to other programs and are left alone.
    """
    content = read_mapping(path)
    section = content.get(TRAINING_SECTION)
    if not isinstance(section, dict):
        raise ConfigError(
            f"{path}: expected a section {TRAINING_SECTION!r} with the training's values"
        )
    provenance = content.get(PROVENANCE_SECTION)
    if provenance is not None and not isinstance(provenance, dict):
        raise ConfigError(f"{path}: {PROVENANCE_SECTION} must be a mapping, got {provenance!r}")
    return trial.from_flat(section, f"{path}: {TRAINING_SECTION}"), provenance
