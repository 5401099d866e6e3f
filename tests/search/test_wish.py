"""A point of a person's own is checked against the study, with one clear error."""

import pytest

from cubeopt.errors import ConfigError
from cubeopt.search import study, wish


@pytest.fixture
def spec(tiny_study):
    search = {
        "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
        "lattice_steps": {"low": 2, "high": 4},
        "state_size": {"choices": [4, 8]},
    }
    return study.parse({**tiny_study, "search": search}, "tiny.yaml")


def test_values_are_read_as_numbers_where_they_are(spec):
    words = ["learning_rate=1e-2", "lattice_steps=3", "state_size=8"]
    params = wish.checked(spec, wish.read(words))
    assert params == {"learning_rate": 0.01, "lattice_steps": 3, "state_size": 8}
    assert [type(value) for value in params.values()] == [float, int, int]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learning_rate"], "expected NAME=VALUE, got 'learning_rate'"),
        (["state_size=4", "state_size=8"], "state_size is given twice"),
        (["learning_rat=0.01"], "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        (["batch_size=8"], "batch_size is not searched; it is 16 for all"),
        (["learning_rate=0.5"], "learning_rate is searched from 0.001 to 0.03, got 0.5"),
        (["learning_rate=fast"], "learning_rate is searched from 0.001 to 0.03, got 'fast'"),
        (["learning_rate=nan"], "learning_rate is searched from 0.001 to 0.03, got nan"),
        (["lattice_steps=2.5"], "lattice_steps is searched from 2 to 4, got 2.5"),
        (["state_size=5"], r"state_size is searched one of \[4, 8\], got 5"),
    ],
)
def test_what_the_study_rules_out_is_one_line(spec, words, said):
    with pytest.raises(ConfigError, match=said):
        wish.checked(spec, wish.read(words))


def test_a_value_that_needs_another_is_given_with_it(tiny_study):
    search = {
        "gate": {"choices": ["learned", "frozen"]},
        "state_size": {"choices": [4, 8], "when": {"gate": ["frozen"]}},
    }
    spec = study.parse({**tiny_study, "search": search}, "tiny.yaml")
    both = {"gate": "frozen", "state_size": 8}
    assert wish.checked(spec, both) == both
    for lacking in ({"state_size": 8}, {"gate": "learned", "state_size": 8}):
        with pytest.raises(ConfigError, match=r"only where gate is among .*give gate=frozen, too"):
            wish.checked(spec, lacking)
