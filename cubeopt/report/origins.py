"""Where numbers come from: which trials or attempts have another origin than their neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cubeopt.db.records import AttemptRecord
from cubeopt.provenance import source_of
from cubeopt.report import wording

_Groups = list[tuple[str, list[AttemptRecord]]]  # a name, and the attempts of that origin


def unlike(attempts: Sequence[AttemptRecord]) -> list[str]:
    """A line for each of code, torch and kind of device of which a study's attempts have several.

    It names the trials of each, the fewest first.
    """
    return [
        f"unlike trials, by {len(groups)} {what}: " + "; ".join(map(_trials, groups))
        for what, groups in _several(attempts)
    ]


def unlike_attempts(attempts: Sequence[AttemptRecord]) -> list[str]:
    """The same for the attempts of one trial, which are named by kind and number."""
    return [
        f"unlike attempts, by {len(groups)} {what}: " + "; ".join(map(_attempts, groups))
        for what, groups in _several(attempts)
    ]


def code(attempt: AttemptRecord) -> str:
    """The version of the code that trained here."""
    return str(attempt.provenance.get("code_version", "unknown"))


def torch_version(attempt: AttemptRecord) -> str:
    """The version of torch that trained here."""
    return str(attempt.provenance.get("torch_version", "unknown"))


def device_kind(attempt: AttemptRecord) -> str:
    """The model of the device: of a GPU without its number, of a CPU the processor's."""
    name, _, model = attempt.device.partition(" ")
    if name.startswith("cuda") and model:
        return model
    processor = attempt.provenance.get("hardware", {}).get("cpu")
    return f"{attempt.device} ({processor})" if processor else attempt.device


@dataclass(frozen=True)
class _Origin:
    """One side of where a number comes from."""

    plural: str
    name: Callable[[AttemptRecord], str]
    same: Callable[[str], str] = str  # names that it gives the same are of one origin


_ORIGINS = (
    _Origin("versions of the code", code, source_of),
    _Origin("versions of torch", torch_version),
    _Origin("kinds of device", device_kind),
)


def _several(attempts: Sequence[AttemptRecord]) -> list[tuple[str, _Groups]]:
    found = [(origin.plural, _groups(origin, attempts)) for origin in _ORIGINS]
    return [(what, groups) for what, groups in found if len(groups) > 1]


def _groups(origin: _Origin, attempts: Sequence[AttemptRecord]) -> _Groups:
    groups: dict[str, tuple[str, list[AttemptRecord]]] = {}
    for attempt in attempts:
        name = origin.name(attempt)
        groups.setdefault(origin.same(name), (name, []))[1].append(attempt)
    return sorted(groups.values(), key=lambda group: (len(group[1]), group[0]))


def _trials(group: tuple[str, list[AttemptRecord]]) -> str:
    name, attempts = group
    return f"{name}: {wording.trials(sorted({each.trial_number for each in attempts}))}"


def _attempts(group: tuple[str, list[AttemptRecord]]) -> str:
    name, attempts = group
    return f"{name}: {', '.join(f'{each.kind} {each.token}' for each in attempts)}"
