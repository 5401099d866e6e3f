"""The report of a study as one page that can be mailed: it needs no network and no database."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup

from cubeopt import atomic
from cubeopt.db.engine import Engine
from cubeopt.db.tables import RunKind
from cubeopt.emergence.record import Emergence
from cubeopt.errors import CubeoptError, StudyError
from cubeopt.report import (
    chart_page,
    compared,
    course_charts,
    cube_page,
    cube_runs,
    headlines,
    material,
    measure,
    multiples,
    multiples_page,
    progress,
    protocol,
    shell,
    study_charts,
    training,
    training_figures,
)
from cubeopt.report.chart import Chart
from cubeopt.report.compared import Compared
from cubeopt.report.material import Material
from cubeopt.report.multiples import Panel
from cubeopt.report.protocol import Protocol
from cubeopt.report.study_charts import Findings
from cubeopt.report.summary import Summary
from cubeopt.report.training import Choice, Trainings
from cubeopt.report.training_figures import Section

_SECTIONS = ("losses", "validation", "usage", "gradient-norm", "knobs")  # of a training
_SEEDS = 4  # beside the winner's own
_STYLE = """
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr));
  gap: 0 20px; }
.panels > * { min-width: 0; }
.panels h5 { margin: .8em 0 0; font-size: .9rem; }
h4 { font-size: .95rem; margin: 1.4em 0 0; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; 
  margin: 0 .35em 0 .9em; }
.chart { margin: 1.4em 0 2em; }
.ongoing { background: #e8f2fa; border-radius: 4px; padding: .6em 1em; max-width: none; }
dl.pairs { display: grid; grid-template-columns: minmax(8em, max-content) 1fr; gap: .25em 1.2em;
  margin: .8em 0; }
dl.pairs dt { color: #595959; } dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
pre { background: #f5f6f7; border-radius: 6px; padding: .8em 1em; overflow-x: auto;
  font-size: .85rem; line-height: 1.45; }
pre:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
@media (max-width: 480px) { dl.pairs { grid-template-columns: 1fr; }
  dl.pairs dt { margin-top: .4em; } }
"""
NO_CUBE = (
    "It is not in this file; 'cubeopt study report' without --no-cube puts it there, and so does "
    "the download of the dashboard's page of this study."
)


@dataclass(frozen=True)
class Report:
    """All that a page of a study shows."""

    protocol: Protocol
    findings: Findings
    charts: Mapping[str, Chart]
    compared: Compared | None
    training: Trainings | None = None  # of the winner, epoch by epoch

    def as_json(self) -> dict[str, Any]:
        """Every number of the page, and more: the rows of all trials."""
        return {
            **self.protocol.as_json(),
            "rows": self.findings.as_json(),
            "compared": None if self.compared is None else self.compared.as_json(),
            "training": None if self.training is None else self.training.as_json(),
        }


@dataclass(frozen=True)
class Cube:
    """What the winner's cube does, or why that is not there."""

    found: Emergence | None = None
    reason: str = NO_CUBE


def winners_checkpoint(engine: Engine, folder: Path, whole: Report) -> Path:
    """The newest checkpoint below *folder* of the winner, of a front of its first trial.

    CubeoptError when it is not there, or there is no winner.
    """
    told = whole.protocol
    if not told.winners:
        raise StudyError("there is no winner yet")
    return cube_runs.newest(engine, folder, told.name, told.winners[0].trial)


def no_cube(error: CubeoptError | str) -> Cube:
    """That it could not be looked into on this machine, because of *error*."""
    return Cube(reason=f"It cannot be looked into here: {error}.")


def read(engine: Engine, name: str, against: Compared | None = None) -> Report:
    """The report of the study called *name*, with the training of its winner."""
    found = material.load(engine, name)
    whole = report(found, against)
    if not whole.protocol.winners:
        return whole
    trial = whole.protocol.winners[0].trial
    seeds = [run.replicate for run in found.runs if run.trial_number == trial and run.replicate]
    chosen = [Choice(trial), *(Choice(trial, RunKind.FULL, nth) for nth in seeds[:_SEEDS])]
    return replace(whole, training=training.load(engine, name, chosen))


def report(found: Material, against: Compared | None = None) -> Report:
    """All of a study; *against* is a comparison that belongs to it."""
    short, rows = found.summary(), study_charts.findings(found)
    charts = study_charts.drawn(rows, short)
    told = protocol.protocol(found, short, rows.timeline)
    if told.winners:
        charts["winner"] = _winner(found, short, told.winners[0].trial)
    if against is not None:
        charts |= compared.charts(against)
    return Report(told, rows, charts, against)


def _winner(found: Material, short: Summary, trial: int) -> Chart:
    """The learning curves of the winner, all its seeds."""
    runs = [run for run in found.runs if run.trial_number == trial]
    own = replace(found, runs=runs)
    rows = progress.curves(own, len(runs))
    judged = measure.of(short)
    drawn = course_charts.curves(rows, len(rows), found.rungs.epochs, judged)
    return replace(drawn, title=f"Learning curves of trial {trial}")


def write(whole: Report, path: Path, cube: Cube | None = None) -> None:
    """Write the page, whole or not at all."""
    atomic.write(page(whole, cube or Cube()).encode(), path)


def page(whole: Report, cube: Cube) -> str:
    """The page; all that came from people is text in it."""
    told = whole.protocol
    mood, verdict = headlines.verdict(whole.protocol)
    body = _TEMPLATES.get_template("study.html").render(
        p=told,
        charts=whole.charts,
        figures={
            name: Markup(shell.figure(chart_page.figure(chart), chart.title))
            for name, chart in whole.charts.items()
        },
        mood=mood,
        verdict=verdict,
        tiles=headlines.tiles(whole.protocol, whole.findings.short_and_full),
        scores=_scores(told),
        front=[
            (w.trial, w.value, _whole(w.second_value), w.test_value, w.epochs, w.seeds)
            for w in told.winners
        ],
        space=[(each.name, each.values, each.scale, each.when) for each in told.space],
        data=_data(told),
        tried=_tried(told),
        origins=_origins(told),
        compared=whole.compared,
        training=whole.training,
        sections=_drawn(whole.training),
        cube=Markup(cube_page.fragment(cube.found)) if cube.found else None,
        no_cube=cube.reason,
    )
    return shell.document(
        f"Study {told.name}", body, plotly=True, style=_STYLE + cube_page.PLAYER_STYLE
    )


def sections(shown: Trainings) -> list[Section]:
    """The parts of the winner's training that a report has."""
    return [each for each in training_figures.sections(shown) if each.id in _SECTIONS]


def _drawn(shown: Trainings | None) -> list[dict[str, Any]]:
    """The parts of the winner's training, drawn."""
    if shown is None:
        return []
    return [
        {
            "title": section.title,
            "about": section.about,
            "legend": section.legend,
            "panels": [
                (panel.title, panel.lacks, _panel(panel))
                for panel in section.panels
                if panel.curves
            ],
        }
        for section in sections(shown)
    ]


def _panel(panel: Panel) -> Markup:
    drawn = go.Figure(multiples_page.figure(panel)).update_layout(template="none")
    return Markup(shell.figure(drawn, panel.title))


def _scores(told: Protocol) -> list[tuple[str, str, str | None]]:
    """The winner between the baselines, with as many digits as the page has at its top."""
    if len(told.winners) != 1:
        return []
    best = told.winners[0]
    rows: list[tuple[str, str, str | None]] = [
        (f"trial {best.trial}, {name}", f"{value:.4f}", None)
        for name, value in (("validation", best.value), ("test", best.test_value))
        if value is not None
    ]
    if best.spread is not None:
        rows.insert(1, ("its standard deviation over the seeds", f"{best.spread:.4f}", None))
    return rows + [
        (each.label, f"{each.value:.4f}", f"{each.difference:+.4f}")
        for each in told.baselines
        if each.difference is not None
    ]


def _whole(value: float | None) -> float | int | None:
    """A count as one."""
    return int(value) if value is not None and value.is_integer() else value


def _data(told: Protocol) -> list[tuple[str, str]]:
    data = told.data
    rows = ", ".join(
        f"{split} {data[f'{split}_rows']:,}"
        for split in ("train", "validation", "test")
        if data.get(f"{split}_rows") is not None
    )
    levels = ", ".join(f"{each.label} {each.value:.4g}" for each in told.baselines)
    return [
        ("dataset", str(data["name"])),
        ("fingerprint", str(data["fingerprint"])),
        ("rows", rows),
        ("baselines", levels or "none is known"),
    ]


def _tried(told: Protocol) -> list[tuple[str, str]]:
    tried = told.tried
    ends = ", ".join(
        f"{count:,} {course_charts.ENDS.get(end, end)}" for end, count in tried.ends.items()
    )
    return [
        ("attempts", f"{tried.attempts:,}" + (f": {ends}" if ends else "")),
        *(("budget", str(each)) for each in told.budgets),
        *(("before", line) for line in told.past),
        ("devices", ", ".join(tried.devices) or "none yet"),
        ("code", ", ".join(tried.codes) or "none yet"),
        ("torch", ", ".join(tried.torches) or "none yet"),
    ]


def _origins(told: Protocol) -> list[tuple[str, list[tuple[str, int]]]]:
    tried = told.tried
    return [
        ("kinds of device", list(tried.devices.items())),
        ("versions of the code", list(tried.codes.items())),
        ("versions of torch", list(tried.torches.items())),
    ]


def _pre(text: str) -> Markup:
    return Markup(f'<pre tabindex="0">{html.escape(text)}</pre>')


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("cubeopt.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {
    "moment": headlines.moment,
    "color": multiples.color,
    "details": lambda summary, body: Markup(shell.details(summary, body)),
    "table": lambda columns, rows: Markup(shell.table(columns, rows)),
    "pre": _pre,
}
