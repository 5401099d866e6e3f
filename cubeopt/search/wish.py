"""A point that a person wishes to have tried, checked against the study before it is queued."""

from collections.abc import Mapping
from typing import Any

from cubeopt import trial
from cubeopt.errors import ConfigError
from cubeopt.search import space
from cubeopt.search.study import StudySpec


def read(words: list[str]) -> dict[str, Any]:
    """The values of *words*, each NAME=VALUE."""
    values: dict[str, Any] = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found or not name or not value:
            raise ConfigError(f"expected NAME=VALUE, got {word!r}")
        if name in values:
            raise ConfigError(f"{name} is given twice")
        values[name] = _number(value)
    return values


def checked(spec: StudySpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* as the sampler would have drawn them; ConfigError for what the study rules out."""
    where, base = f"study {spec.name}", spec.base_trial.flat()
    params: dict[str, Any] = {}
    for name, value in values.items():
        if name not in base:
            raise ConfigError(f"{where}: unknown key {name!r}{trial.did_you_mean(name, base)}")
        if name not in spec.search:
            raise ConfigError(f"{where}: {name} is not searched; it is {base[name]!r} for all")
        params[name] = _inside(spec, name, value)
    _check_conditions(spec, params)
    spec.trial(params, 0)  # the rules that tie values together
    return params


def _check_conditions(spec: StudySpec, params: Mapping[str, Any]) -> None:
    for name in params:
        for other, allowed in spec.search[name].when.items():
            if params.get(other) not in allowed:
                some = " or ".join(f"{other}={value}" for value in allowed)
                raise ConfigError(
                    f"study {spec.name}: {name} is searched only where {other} is among "
                    f"{list(allowed)}; give {some}, too"
                )


def _inside(spec: StudySpec, name: str, value: Any) -> Any:
    searched, distribution = spec.search[name], spec.distributions()[name]
    if not space.holds(distribution, value):
        allowed = (
            f"one of {list(searched.choices)}"
            if searched.choices is not None
            else f"from {searched.low} to {searched.high}"
        )
        raise ConfigError(f"study {spec.name}: {name} is searched {allowed}, got {value!r}")
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
