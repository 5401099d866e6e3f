"""Numbers and times as pages write them."""

import pytest

from cubeopt.dashboard import wording


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (0, "0"),
        (12, "12"),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (-0.5, "-0.5"),
        (1234.56, "1235"),
        (123456.7, "123457"),
        (1e-5, "1.00e-05"),
        (2.5e9, "2.50e+09"),
    ],
)
def test_numbers_have_four_digits(value: float | None, said: str) -> None:
    assert wording.number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_spans_have_two_units_at_most(value: float, said: str) -> None:
    assert wording.seconds(value) == said


def test_a_moment_has_its_zone() -> None:
    assert wording.moment("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04:05 UTC"
