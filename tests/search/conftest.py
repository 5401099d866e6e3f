"""A search without a database: its trials are kept as the tables would keep them."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cubeopt.db.outcomes import Outcome, Wish
from cubeopt.db.priors import Prior
from cubeopt.db.tables import RunState
from cubeopt.search import study
from cubeopt.search.inheritance import Room
from cubeopt.search.memory import Drawn, Memory
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Search:
    """A study's memory, and what stands in the tables beside it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.spec = study.parse({"name": "s", "budget": {"trials": 1000}, **content}, "s.yaml")
        self.outcomes: list[Outcome] = []
        self.priors: list[Prior] = []
        self.revision = 0
        self.restart()

    def restart(self) -> None:
        """As a coordinator that starts again."""
        self.memory = Memory(self.spec, self.outcomes, priors=self.priors, revision=self.revision)

    def teach(self, *priors: Prior) -> None:
        """As if the study had been created with *priors*."""
        self.priors += priors
        self.restart()

    def revise(self, **changes: Any) -> None:
        """As a coordinator that sees another file."""
        content = self.spec.model_dump(mode="json", exclude_none=True)
        self.spec = study.parse({**content, **changes}, "s.yaml")
        self.revision += 1
        self.restart()

    def ask(self, count: int, *wishes: Wish) -> list[tuple[int, Point]]:
        drawn = self.memory.ask(count, wishes)
        self.outcomes += [_waiting(each) for each in drawn]
        return [(each.number, each.params) for each in drawn]

    def end(
        self,
        number: int,
        value: float | None,
        state: RunState = RunState.COMPLETE,
        **metrics: float,
    ) -> None:
        """*metrics* by name, with a double underscore for a slash."""
        place = [each.number for each in self.outcomes].index(number)
        reached = {name.replace("__", "/"): each for name, each in metrics.items()}
        ended = replace(
            self.outcomes[place],
            state=state,
            epoch=1,
            value=value,
            values={} if value is None else {1: value},
            metrics=reached,
        )
        self.outcomes[place] = ended
        self.memory.learn([ended])

    def told(self, asked: list[tuple[int, Point]], loss: Callable[[Point], float]) -> None:
        """Every fourth trial is pruned, every other one complete."""
        for number, point in asked:
            state = RunState.PRUNED if number % 4 == 3 else RunState.COMPLETE
            self.end(number, loss(point), state)


def _waiting(drawn: Drawn) -> Outcome:
    params, notes = json.loads(json.dumps([drawn.params, drawn.notes], sort_keys=True))
    return Outcome(
        number=drawn.number,
        params=params,
        notes=notes,
        state=RunState.WAITING,
        epoch=0,
        value=None,
        values={},
        metrics={},
        mirrored_epoch=-1,
        begun_at=MOMENT,
        finished_at=None,
    )


def prior(number: int, spec: StudySpec, value: float | None, **params: Any) -> Prior:
    """A trial of a study "old" with *params* over the base of *spec*; diverged without a value."""
    return Prior(
        source="old",
        number=number,
        spec=Room(spec).values(params, number),
        state=RunState.PRUNED if value is None else RunState.COMPLETE,
        value=value,
        values={} if value is None else {1: value},
        metrics={},
    )
