"""What a worker tells its caller of the runs it holds."""

from dataclasses import dataclass
from enum import StrEnum

from cubeopt.db.queue import Claim


class Happening(StrEnum):
    """What happened to a run."""

    STARTED = "started"
    EPOCH = "epoch"
    PRUNED = "pruned"
    COMPLETE = "complete"
    DIVERGED = "diverged"
    LOST = "lost"
    ERROR = "error"
    RELEASED = "released"
    LET_GO = "let_go"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Event:
    """Something happened to a run that this worker holds."""

    what: Happening
    claim: Claim
    epoch: int
    value: float | None = None
    detail: str = ""
