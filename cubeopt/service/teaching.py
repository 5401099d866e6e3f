"""A study is taught by earlier ones: which of their trials fit, and why the others do not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cubeopt.db import priors, records
from cubeopt.db.engine import Engine
from cubeopt.db.priors import Earlier, Prior
from cubeopt.db.records import StudyRecord
from cubeopt.errors import StudyError
from cubeopt.search import inheritance, samplers, study
from cubeopt.search.inheritance import Misfit, Room
from cubeopt.search.study import StudySpec


@dataclass(frozen=True)
class Taught:
    """What comes from one earlier study."""

    study: str
    dataset_fingerprint: str
    priors: list[Prior]
    left_out: dict[str, int]  # trials by reason

    def check_data(self, name: str, fingerprint: str) -> None:
        """StudyError unless the data of the study *name* are the same."""
        if self.dataset_fingerprint != fingerprint:
            raise StudyError(
                f"study {name}: --from {self.study}: its dataset has the fingerprint "
                f"{self.dataset_fingerprint[:12]}, that of this study {fingerprint[:12]}; results "
                "on other data teach nothing here"
            )

    def __str__(self) -> str:
        count = len(self.priors)
        said = f"{count} trial{'s' * (count != 1)} of {self.study} "
        said += f"teach{'es' * (count == 1)} the sampler"
        out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{said}; left out: {out}" if out else said


def taught(engine: Engine, spec: StudySpec, sources: Sequence[str]) -> list[Taught]:
    """What the trials of the studies *sources* can teach the sampler of *spec*.

    Raises StudyError when the sampler does not learn, or when results do not compare.
    """
    if sources and not samplers.learns(spec.sampler):
        raise StudyError(
            f"study {spec.name}: --from {sources[0]}: the sampler {spec.sampler.name} does not "
            "learn from trials that it did not ask for; take tpe, gp, mfgp or nsgaii"
        )
    for place, name in enumerate(sources):
        if name in sources[:place]:
            raise StudyError(f"study {spec.name}: --from {name} is given twice")
    return [_taught(engine, spec, records.study(engine, name)) for name in sources]


def _taught(engine: Engine, spec: StudySpec, source: StudyRecord) -> Taught:
    _check(spec, source)
    room, found, left_out = Room(spec), list[Prior](), Counter[str]()
    for each in priors.earlier(engine, source.id, spec.goal.keys):
        prior = _prior(spec, room, source.name, each)
        if isinstance(prior, str):
            left_out[prior] += 1
        else:
            found.append(prior)
    return Taught(source.name, source.dataset_fingerprint, found, dict(left_out.most_common()))


def _prior(spec: StudySpec, room: Room, source: str, earlier: Earlier) -> Prior | str:
    place = room.place(earlier.spec)
    if isinstance(place, Misfit):
        return str(place)
    return inheritance.prior(source, earlier, spec.short_epochs)


def _check(spec: StudySpec, source: StudyRecord) -> None:
    """Results of both studies have to mean the same."""
    other = study.stored(source.spec)
    ours, theirs = spec.base_trial.plan, other.base_trial.plan
    for what, mine, its in (
        ("metric", " and ".join(spec.objective.names), " and ".join(other.objective.names)),
        ("task", ", ".join(ours.task), ", ".join(theirs.task)),
        ("base.epochs", ours.epochs, theirs.epochs),
    ):
        if mine != its:
            raise StudyError(
                f"study {spec.name}: --from {source.name}: its {what} is {its}, that of this study "
                f"{mine}; results of the two do not compare"
            )
