"""Which studies a worker works on: those whose data it has, and whose code where they insist on it.

A study that is refused is left to other workers, and said once. It is looked at again when its
dataset's files have changed; the code of a process does not change.
"""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cubeopt.data import dataset
from cubeopt.db import records
from cubeopt.db.engine import Engine
from cubeopt.db.records import StudyRecord
from cubeopt.errors import ConfigError, DataError, RefusedError
from cubeopt.provenance import source_of
from cubeopt.settings import Settings

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0  # between two looks at the datasets of refused studies
_Stamp = tuple[tuple[int, int, int] | None, ...]  # inode, size and time of each file of a dataset


@dataclass(frozen=True)
class _Refused:
    """A study that this worker leaves alone, and the files that it was judged by."""

    record: StudyRecord
    reason: str
    stamp: _Stamp


class Admission:
    """Judges every running study once, before this worker claims anything of it."""

    def __init__(
        self, engine: Engine, settings: Settings, code_version: str, only: str | None = None
    ) -> None:
        self._engine, self._settings, self._code = engine, settings, code_version
        self._only = only  # the name of the one study that is worked on
        self._admitted: dict[int, StudyRecord] = {}
        self._refused: dict[int, _Refused] = {}
        self._said: dict[int, str] = {}
        self._looked = time.monotonic()

    def studies(self) -> list[int]:
        """The ids of the studies to claim from, some of which may not run any more.

        Raises RefusedError when the only study to work on is refused.
        """
        self._look_again()
        known = {*self._admitted, *self._refused}
        for record in records.running(self._engine, self._only, known):
            self._judge(record)
        return list(self._admitted)

    def refuse(self, study_id: int, reason: str) -> None:
        """Work no more on an admitted study, whose data turned out not to be as they should."""
        record = self._admitted.pop(study_id)
        self._refused[study_id] = _Refused(record, reason, self._stamp(record))
        sentence = f"study {record.name} is left to other workers: {reason}"
        if self._only is not None:
            raise RefusedError(sentence)
        if self._said.get(study_id) != reason:
            logger.warning(sentence)
        self._said[study_id] = reason

    def refused(self, running: Collection[int]) -> list[str]:
        """Why each of the *running* studies that are refused is left to others, in sentences."""
        return [
            f"study {each.record.name} was left to other workers: {each.reason}"
            for study_id, each in self._refused.items()
            if study_id in running
        ]

    def _look_again(self) -> None:
        """At the refused studies whose files are not those that they were refused for."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for study_id, each in list(self._refused.items()):
            if self._stamp(each.record) != each.stamp:
                del self._refused[study_id]

    def _judge(self, record: StudyRecord) -> None:
        self._admitted[record.id] = record
        reason = self._other_data(record) or self._other_code(record)
        if reason is not None:
            self.refuse(record.id, reason)

    def _other_data(self, record: StudyRecord) -> str | None:
        """What is wrong with the data by their manifest; who reads them checks every number."""
        wanted = record.dataset_fingerprint
        try:
            folder = self._settings.dataset_dir(record.dataset)
            found = str(dataset.read_manifest(folder)["fingerprint"])
        except (DataError, ConfigError) as error:
            return f"{error} (it needs the one with fingerprint {wanted[:12]})"
        return None if found == wanted else other_fingerprint(folder, found, wanted)

    def _other_code(self, record: StudyRecord) -> str | None:
        """Why the code is refused; a word of warning where it is only another."""
        rule = record.spec.get("code", "warn")
        if rule == "ignore" or source_of(record.code_version) == source_of(self._code):
            return None
        differ = f"it was created with the code {record.code_version}, and this is {self._code}"
        if rule == "strict":
            return f"{differ}; its file says code: strict, so start a worker of that code"
        if self._said.get(record.id) != differ:
            logger.warning("study %s: %s; their numbers may not compare", record.name, differ)
            self._said[record.id] = differ
        return None

    def _stamp(self, record: StudyRecord) -> _Stamp:
        try:
            folder = self._settings.dataset_dir(record.dataset)
        except ConfigError:
            return ()
        return tuple(_stamp(folder / name) for name in dataset.FILES)


def other_fingerprint(folder: Path, found: str, wanted: str) -> str:
    """What is to be said of a dataset that is not the study's."""
    return (
        f"the dataset in {folder} has fingerprint {found[:12]}, but the study was created with "
        f"{wanted[:12]}; put that dataset there, or create a new study"
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
