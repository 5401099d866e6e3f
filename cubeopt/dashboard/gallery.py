"""What Optuna's dashboard shows of a study beside its own plots: ours, a note, files.

Made of our rows when somebody looks, kept until the study changes, written nowhere.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from threading import Lock
from time import monotonic
from typing import Any, BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA
from optuna_dashboard._note import note_str_key_prefix, note_ver_key
from optuna_dashboard.artifact._backend import ARTIFACTS_ATTR_PREFIX

from cubeopt.dashboard import note
from cubeopt.db import stamps
from cubeopt.db.engine import Engine
from cubeopt.errors import InputError
from cubeopt.report import (
    agreement,
    chart_page,
    course_charts,
    ladder,
    material,
    measure,
    promotions,
    search_charts,
    study_page,
    timeline,
    winner,
)
from cubeopt.report.chart import Chart
from cubeopt.report.material import Material
from cubeopt.report.summary import Summary
from cubeopt.search import configuration, export


@dataclass(frozen=True)
class _File:
    """An artifact: made when somebody asks for it."""

    name: str  # with the study's before it
    kind: str
    make: Callable[[Material], str]


def _exported(found: Material) -> str:
    name = found.study.name
    return configuration.text(
        winner.exported(found), winner.heading(name, None, f"{name}-best.yaml")
    )


_FILES = (
    _File(
        ".yaml", "text/yaml", lambda found: configuration.text(export.study_file(found.study.spec))
    ),
    _File("-best.yaml", "text/yaml", _exported),
    _File(
        "-report.html",
        "text/html",
        lambda found: study_page.page(study_page.report(found), study_page.Cube()),
    ),
)
_OF_A_RESULT = ("-best.yaml",)
PLOTS = ("rung-ladder", "short-and-full", "promotions", "workers-over-time")  # ids, as shown
_RESTS = 50  # times what it took: a study that many watch costs no more than 2 % of a core
_HEIGHT = 450  # pixels, of a plot of Optuna's


@dataclass(frozen=True)
class _Kept:
    stamp: str
    plots: dict[str, str]
    note: str
    files: dict[str, str]
    rests_until: float = 0.0  # on the monotonic clock: not looked at again before


class Gallery:
    """Adorns studies. Threads may share it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[str, _Kept] = {}
        self._locks: dict[str, Lock] = {}
        self._lock = Lock()

    def adorn(self, name: str, written: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes *written* in Optuna's tables for the study *name*, and ours.

        A note that a person wrote is shown instead of ours, until it is emptied. A study that is
        not ours stays as it is.
        """
        kept = self._current(name)
        if kept is None:
            return dict(written)
        adorned = {**written, **kept.plots, **kept.files}
        if not any(written[key] for key in written if key.startswith(note_str_key_prefix(None))):
            adorned[note_ver_key(None)] = written.get(note_ver_key(None), 0)
            adorned[f"{note_str_key_prefix(None)}0"] = kept.note
        return adorned

    def has(self, name: str) -> bool:
        """Whether the study called *name* is ours."""
        return stamps.stamp(self._engine, name) is not None

    def file(self, artifact_id: str) -> bytes:
        """The artifact as it is now; KeyError when there is none, or not any more."""
        for name, kept in list(self._kept.items()):
            if f"{ARTIFACTS_ATTR_PREFIX}{artifact_id}" in kept.files:
                found = material.load(self._engine, name)
                return _FILES[int(artifact_id.rpartition("-")[2], 16)].make(found).encode()
        raise KeyError(artifact_id)

    def _current(self, name: str) -> _Kept | None:
        with self._lock:
            lock = self._locks.setdefault(name, Lock())
        with lock:  # two who look at once wait for one picture
            kept, began = self._kept.get(name), monotonic()
            if kept is not None and began < kept.rests_until:
                return kept
            stamp = stamps.stamp(self._engine, name)
            if stamp is None:
                self._kept.pop(name, None)
                return None
            if kept is None or kept.stamp != stamp:
                made = _made(material.load(self._engine, name), stamp)
                rest = _RESTS * (monotonic() - began)
                kept = self._kept[name] = replace(made, rests_until=monotonic() + rest)
            return kept


def _made(found: Material, stamp: str) -> _Kept:
    short = found.summary()
    return _Kept(
        stamp=stamp,
        plots={
            f"{SYSTEM_ATTR_PLOT_DATA}{name}:0": _plotted(chart)
            for name, chart in _charts(found, short).items()
        },
        note=note.of(found, short),
        files=_listed(found, short),
    )


def _charts(found: Material, short: Summary) -> dict[str, Chart]:
    """By the id of its element."""
    judged = measure.of(short)
    pairs = agreement.pairs(found.runs)
    drawn = (
        search_charts.ladder(ladder.ladder(found), judged),
        search_charts.short_and_full(pairs, short.short_and_full, judged),
        search_charts.promotions(promotions.promotions(found), judged),
        course_charts.timeline(timeline.timeline(found), judged),
    )
    return dict(zip(PLOTS, drawn, strict=True))


def _plotted(chart: Chart) -> str:
    """With its title in it, since no page of ours is around it; no smaller than Optuna's own."""
    drawn = chart_page.drawing(chart)
    layout = {
        **drawn["layout"],
        "height": _HEIGHT,
        "title": {
            **{"text": chart.title, "font": {"size": 17}},
            **{"x": 0, "xref": "paper", "y": 0.97, "yref": "container", "yanchor": "top"},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yref": "paper", "yanchor": "bottom"},
        "margin": {"l": 80, "r": 30, "t": 84, "b": 60},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
    }
    return json.dumps({"data": drawn["data"], "layout": layout}, allow_nan=False)


def _listed(found: Material, short: Summary) -> dict[str, str]:
    """The files that there are, as Optuna's dashboard lists them."""
    resulted = short.best is not None or len(short.front) == 1
    listed = {}
    for place, file in enumerate(_FILES):
        if resulted or file.name not in _OF_A_RESULT:
            artifact_id = f"{found.study.id:x}-{place:x}"
            listed[f"{ARTIFACTS_ATTR_PREFIX}{artifact_id}"] = json.dumps(
                {
                    "artifact_id": artifact_id,
                    "filename": f"{found.study.name}{file.name}",
                    "mimetype": file.kind,
                    "encoding": None,
                }
            )
    return listed


class Shelf:
    """The gallery's files as an artifact store of Optuna's: read only."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            return BytesIO(self._gallery.file(artifact_id))
        except (KeyError, InputError) as error:
            raise ArtifactNotFound(f"there is no artifact {artifact_id}") from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        raise RuntimeError("cubeopt's studies and trials cannot be changed here")

    def remove(self, artifact_id: str) -> None:
        raise RuntimeError("cubeopt's studies and trials cannot be changed here")
