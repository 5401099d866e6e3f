"""Where a study comes from: earlier studies that teach its sampler, and its own revisions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cubeopt.db.priors import Prior
from cubeopt.db.records import StudyRecord
from cubeopt.db.revisions import Revision
from cubeopt.search import study
from cubeopt.search.inheritance import Room


@dataclass(frozen=True)
class Past:
    """What a study was given, beside its file."""

    warm_start: dict[str, int]  # by earlier study, its trials that teach the sampler now
    left: dict[str, int]  # those that did before the study was revised
    revisions: int = 0
    revised: datetime | None = None  # the last time

    def lines(self) -> list[str]:
        """For a person, one for each fact."""
        said = []
        for source, count in self.warm_start.items():
            line = f"warm start: {count} trials of {source} teach the sampler"
            if self.left[source]:
                line += f"; {self.left[source]} lie outside the space since it was revised"
            said.append(line)
        if self.revised is not None:
            times = f"{self.revisions} times, last" if self.revisions > 1 else "once,"
            said.append(f"revised {times} {self.revised.isoformat(' ', 'seconds')}")
        return said

    def as_json(self) -> dict[str, Any]:
        last = None if self.revised is None else self.revised.isoformat()
        return {
            "warm_start": self.warm_start,
            "revisions": {"count": self.revisions, "last": last},
        }


def past(record: StudyRecord, priors: Sequence[Prior], revisions: Sequence[Revision]) -> Past:
    """What of *priors* teaches the study as it is now, and when it was revised."""
    teaching, left = Counter[str](), Counter[str]()
    room = Room(study.stored(record.spec)) if priors else None
    for each in priors:
        assert room is not None
        fits = room.point(each.spec) is not None
        teaching[each.source] += fits
        left[each.source] += not fits
    last = revisions[-1].created_at if revisions else None
    return Past(dict(teaching), dict(left), len(revisions), last)
