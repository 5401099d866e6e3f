"""The table of learning curves: the one that ships, and what makes one unreadable."""

import lzma
import math
from pathlib import Path

import pytest

from cubeopt.bench import curves
from cubeopt.bench.curves import COMMITTED, Curve, Curves
from cubeopt.errors import InputError
from cubeopt.search import study

ROOT = Path(__file__).parent.parent.parent


def test_the_table_that_ships_has_every_epoch_of_at_least_200_configurations() -> None:
    table = curves.read(COMMITTED)
    assert COMMITTED.stat().st_size < 300_000
    assert len(table.rows) >= 200
    assert table.epochs == 27
    for row in table.rows:
        assert len(row.values) == 27
        finite = [math.isfinite(value) for value in row.values]
        assert finite == sorted(finite, reverse=True)  # from where it diverged on there is nothing
        assert row.epoch_seconds > 0
    assert len({tuple(row.point.items()) for row in table.rows}) == len(table.rows)


def test_the_table_that_ships_is_of_the_study_that_ships_and_says_how_it_was_made() -> None:
    table = curves.read(COMMITTED)
    assert table.spec == study.load(ROOT / "studies" / "curves.yaml")
    assert table.facts["command"] == "cubeopt bench curves curves"
    assert table.facts["study"] == "studies/curves.yaml"
    for row in table.rows:
        table.spec.trial(row.point, 0)  # every point is a trial of it


def _small() -> Curves:
    spec = study.parse(
        {
            "name": "small",
            "base": {"epochs": 2},
            "search": {
                "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "dropout": {"low": 0.0, "high": 0.5},
                "state_size": {"choices": [8, 16]},
            },
            "rungs": {"epochs": [2], "rule": "none"},
        },
        "small",
    )
    points = [(1e-4, 0.5, 8), (1e-3, 0.5, 8), (1e-2, 0.0, 8), (1e-3, 0.0, 16)]
    names = ("learning_rate", "dropout", "state_size")
    return Curves(
        spec,
        tuple(
            Curve(dict(zip(names, point, strict=True)), (1 / 3, math.nan), 0.1 * number)
            for number, point in enumerate(points)
        ),
        {"command": "by hand"},
    )


def test_what_is_written_is_read_back_to_seven_digits(tmp_path: Path) -> None:
    table = _small()
    curves.write(table, tmp_path / "small.json.xz")
    again = curves.read(tmp_path / "small.json.xz")
    assert again.spec == table.spec
    assert again.facts == table.facts
    assert [row.point for row in again.rows] == [row.point for row in table.rows]
    assert [row.epoch_seconds for row in again.rows] == [row.epoch_seconds for row in table.rows]
    assert again.rows[0].values[0] == 0.3333333
    assert math.isnan(again.rows[0].values[1])


def test_the_nearest_row_goes_by_shares_of_the_intervals_on_their_own_scale() -> None:
    table, everyone = _small(), range(4)
    # 2e-3 lies .65 along the logarithmic interval: .15 from 1e-3, .35 from 1e-2.
    near = {"learning_rate": 2e-3, "dropout": 0.5, "state_size": 8}
    assert table.nearest(near, everyone) == 1
    # Half of the dropout's interval is nearer than another choice, which is 1 away.
    between = {"learning_rate": 1e-3, "dropout": 0.2, "state_size": 8}
    assert table.nearest(between, everyone) == 1  # .6 away; the last row .4 and a choice
    assert table.nearest({**between, "state_size": 16}, everyone) == 3
    assert table.nearest({**between, "state_size": 16}, [0, 2]) == 2  # .5, .4, 1 against .5, .6, 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"values", "Input format not supported by decoder"),
        (lzma.compress(b"values"), "Expecting value: line 1 column 1"),
        (lzma.compress(b'{"format": 99}'), "in format 1; make it again"),
        (lzma.compress(b"[]"), "in format 1; make it again"),
    ],
)
def test_another_file_is_one_error_that_names_it(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "table.json.xz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is no table of `cubeopt bench curves`") as raised:
        curves.read(path)
    assert reason in str(raised.value)


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json\.xz: No such file"):
        curves.read(tmp_path / "none.json.xz")
