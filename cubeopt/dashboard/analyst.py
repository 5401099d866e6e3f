"""Looks at cubes in a process of its own, so that the server needs no torch and stays quick.

The process begins with the first question, is niced, computes in one thread, and ends after a while
without questions. What was found is kept until the checkpoint changes.
"""

import importlib
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cubeopt.emergence import record
from cubeopt.emergence.record import Emergence
from cubeopt.errors import CubeoptError
from cubeopt.settings import Settings

logger = logging.getLogger(__name__)

_KEPT = 48  # records, of some MB each
_IDLE_SECONDS = 300.0
_NICE = 15
_FACTS = "state.json"

_Key = tuple[str, int]  # a checkpoint's folder, and when it was written


@dataclass(frozen=True)
class Answer:
    """What is known of a cube by now: one of *found* and *error*, or how far the work is."""

    found: Emergence | None = None
    error: str | None = None
    says: str = "waiting for the cubes asked for before"
    share: float = 0.0  # of the work that is done


class Analyst:
    """One for the whole server; any thread may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Condition()
        self._answers: OrderedDict[_Key, Answer] = OrderedDict()
        self._waiting: list[_Key] = []  # who asked last is looked at first: a person moves a slider
        self._works = False

    def ask(self, folder: Path) -> Answer:
        """What is known of the checkpoint *folder*; the first to ask has it looked at."""
        try:
            key = (str(folder), (folder / _FACTS).stat().st_mtime_ns)
        except OSError as error:
            return Answer(error=f"the checkpoint {folder} cannot be read: {error.strerror}")
        with self._lock:
            known = self._answers.get(key)
            if known is not None:
                self._answers.move_to_end(key)
                if known.error is not None:  # said once; who asks again wants another try
                    del self._answers[key]
                return known
            self._answers[key] = Answer()
            self._waiting.append(key)
            if not self._works:
                self._works = True
                threading.Thread(target=self._work, daemon=True).start()
            self._lock.notify()
            return self._answers[key]

    def _work(self) -> None:
        """Have one cube after another looked at, until nobody asks any more."""
        ours, worker = _started(self._settings)
        while (key := self._next()) is not None:
            try:
                ours.send(key[0])
                while (heard := ours.recv()).found is None and heard.error is None:
                    self._heard(key, heard)
                self._heard(key, heard)
            except (EOFError, OSError):
                worker.join()
                code = worker.exitcode
                self._heard(
                    key,
                    Answer(error=f"the analysis ended with exit code {code}: too little memory?"),
                )
                ours, worker = _started(self._settings)
        worker.terminate()
        worker.join()

    def _next(self) -> _Key | None:
        with self._lock:
            if not self._waiting:
                self._lock.wait_for(lambda: bool(self._waiting), _IDLE_SECONDS)
            if not self._waiting:
                self._works = False
                return None
            return self._waiting.pop()

    def _heard(self, key: _Key, answer: Answer) -> None:
        with self._lock:
            self._answers[key] = answer
            done = [each for each in self._answers if each not in self._waiting and each != key]
            for each in done[: max(0, len(self._answers) - _KEPT)]:
                del self._answers[each]


def _started(settings: Settings) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_look, args=(theirs, settings), daemon=True)
    worker.start()
    theirs.close()
    return ours, worker


def _look(pipe: Connection, settings: Settings) -> None:
    """Answer one folder after another, until the server has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    os.nice(_NICE)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    # By its name: the server itself must not load torch.
    analysis: Any = importlib.import_module("cubeopt.emergence.analysis")
    analyst = analysis.Analyst(settings)

    def tell(what: str, share: float) -> None:
        pipe.send(Answer(says=what, share=share))

    try:
        while True:
            folder = Path(pipe.recv())
            try:
                found = analyst.analyse(folder, tell)
                # As JSON and back: plain lists, whatever stands in them.
                row = json.loads(json.dumps(found.as_json(), allow_nan=False))
                pipe.send(Answer(found=record.from_json(row)))
            except CubeoptError as error:
                pipe.send(Answer(error=str(error)))
            except Exception as error:
                logger.exception("the cube %s cannot be looked at", folder)
                pipe.send(Answer(error=f"the analysis has failed: {error}"))
    except (EOFError, OSError):
        return
