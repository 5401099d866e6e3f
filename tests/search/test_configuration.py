"""YAML files, read and written."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubeopt.errors import ConfigError
from cubeopt.search import configuration

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
    st.from_regex(r"[-+]?[0-9.]{1,4}[eE][-+]?[0-9]{1,3}", fullmatch=True),
)
CONTENTS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=8),
    max_size=8,
)


def _read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return configuration.read_mapping(path)


@given(content=CONTENTS)
def test_what_is_written_is_read_back_with_types_and_order(
    tmp_path_factory: Any, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"
    configuration.write(content, path, header="about this file\n# and more")
    read = configuration.read_mapping(path)
    assert repr(read) == repr(content)  # repr, for True == 1 == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("+.5e1", 5.0), ("1.e-3", 1e-3), ("1.0e-3", 1e-3)],
)
def test_a_number_may_be_written_as_people_write_it(
    tmp_path: Path, text: str, value: float
) -> None:
    read = _read(tmp_path, f"rate: {text}")["rate"]
    assert (type(read), read) == (float, value)


def test_values_may_be_shared_and_overruled(tmp_path: Path) -> None:
    text = "one: &one {a: 1, b: 2}\ntwo: &two {<<: *one, b: 3}\nthree: {<<: *two, c: 4}"
    assert _read(tmp_path, text)["three"] == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "file.yaml: line 3 key 'a' stands there twice"),
        ("base:\n  a: 1\n  a: 2", "file.yaml: line 3 key 'a' stands there twice"),
        ("a: [1", "file.yaml: line 1 expected ',' or ']'"),
        ("a: !!python/object:os.system {}", "file.yaml: line 1 could not determine a constructor"),
        ("a: 2026-13-45", "file.yaml: not YAML: month must be in 1..12"),
        ("a: " + "9" * 5000, "file.yaml: not YAML: Exceeds the limit"),
        ("[" * 1200, "file.yaml: "),
        ("a: \x07", "file.yaml: not YAML: "),
        ("", "file.yaml: expected a mapping of names to values at the top"),
        ("- a", "file.yaml: expected a mapping of names to values at the top"),
        ("1: a", "file.yaml: expected a mapping of names to values at the top"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        _read(tmp_path, text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read .*none\.yaml: No such file"):
        configuration.read_mapping(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"^cannot read .*: Is a directory"):
        configuration.read_mapping(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        configuration.read_mapping(tmp_path / "latin.yaml")


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.yaml"
    configuration.write({"a": 1}, path)
    configuration.write({"b": 2}, path, header="two\nlines")
    assert path.read_text() == "# two\n# lines\nb: 2\n"
    assert [each.name for each in path.parent.iterdir()] == ["file.yaml"]


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^cannot write .*best\.yaml: "):
        configuration.write({"a": 1}, tmp_path / "file" / "best.yaml")
    (tmp_path / "best.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^cannot write .*best\.yaml: "):
        configuration.write({"a": 1}, tmp_path / "best.yaml")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["best.yaml", "file"]


def test_the_training_section_is_found_among_those_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "main.yaml"
    path.write_text("other: {x: 1}\nreal_training: {epochs: 7}\nprovenance: {trial: 3}\n")
    spec, provenance = configuration.read_training(path)
    assert (spec.plan.epochs, provenance) == (7, {"trial": 3})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {epochs: 7}", "expected a section 'real_training'"),
        ("real_training: 5", "expected a section 'real_training'"),
        ("real_training: {}\nprovenance: [1]", "provenance must be a mapping, got [1]"),
        ("real_training: {epoch: 7}", "real_training: unknown key 'epoch'; did you mean 'epochs'?"),
        ("real_training: {1: 7}", "real_training: unknown key 1"),
    ],
)
def test_a_training_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "main.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        configuration.read_training(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)
