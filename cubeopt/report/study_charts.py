"""All charts of a study, by the name under which pages and files know them."""

from dataclasses import dataclass
from typing import Any

from cubeopt.report import (
    agreement,
    coordinates,
    course_charts,
    importance,
    ladder,
    measure,
    progress,
    promotions,
    search_charts,
    space_charts,
    timeline,
    tradeoff,
)
from cubeopt.report.agreement import Agreement, Pair
from cubeopt.report.chart import Chart
from cubeopt.report.coordinates import Coordinates
from cubeopt.report.importance import Importances
from cubeopt.report.ladder import Rung
from cubeopt.report.material import Material
from cubeopt.report.progress import Curve, Result
from cubeopt.report.promotions import Promoted
from cubeopt.report.summary import Summary
from cubeopt.report.timeline import Timeline
from cubeopt.report.tradeoff import Tradeoff

_THREADS = 200  # trials between parallel coordinates


@dataclass(frozen=True)
class Findings:
    """The rows of a study's charts."""

    results: list[Result]
    curves: list[Curve]  # as many as are drawn
    runs: int  # that have a curve
    rungs: list[Rung]
    short_and_full: Agreement
    pairs: list[Pair]
    promoted: list[Promoted]
    timeline: Timeline
    importances: Importances
    coordinates: Coordinates
    tradeoff: Tradeoff | None  # with two objectives

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        ends = agreement.interval(self.short_and_full)
        since = self.timeline.since
        return {
            "history": [row.as_json() for row in self.results],
            "curves": [row.as_json() for row in self.curves],
            "ladder": [row.as_json() for row in self.rungs],
            "short_and_full": {
                **vars(self.short_and_full),
                "interval": list(ends) if ends else None,
                "rows": [vars(row) for row in self.pairs],
            },
            "promotions": [row.as_json() for row in self.promoted],
            "timeline": {
                "since": since.isoformat() if since else None,
                "until_seconds": self.timeline.until,
                "rows": [row.as_json() for row in self.timeline.stretches],
            },
            "importances": {
                "trials": self.importances.trials,
                "used": self.importances.used,
                "best": self.importances.best,
                "rows": [row.as_json() for row in self.importances.rows],
            },
            "coordinates": {
                "complete": self.coordinates.complete,
                "scales": [row.as_json() for row in self.coordinates.scales],
                "rows": [row.as_json() for row in self.coordinates.threads],
            },
            "tradeoff": None if self.tradeoff is None else self.tradeoff.as_json(),
        }


def findings(found: Material) -> Findings:
    return Findings(
        results=progress.results(found),
        curves=progress.curves(found, course_charts.CURVES),
        runs=sum(bool(course) for course in found.courses.values()),
        rungs=ladder.ladder(found),
        short_and_full=agreement.agreement(found.runs),
        pairs=agreement.pairs(found.runs),
        promoted=promotions.promotions(found),
        timeline=timeline.timeline(found),
        importances=importance.importances(found),
        coordinates=coordinates.coordinates(found, _THREADS),
        tradeoff=tradeoff.tradeoff(found),
    )


def charts_of(found: Material) -> dict[str, Chart]:
    """Every chart of a study by name, in the order in which a page shows them.

    All that a gallery needs: ``charts_of(material.load(engine, name))``, and of each chart
    ``chart_page.figure(chart)`` for plotly or ``chart_image.png(chart)``. A chart of what is not
    there yet has ``empty`` set, and says what to do. Sizes are bounded: of thousands of trials a
    chart draws some thousand points, and its notes say what is left out.
    """
    return drawn(findings(found), found.summary())


def drawn(rows: Findings, short: Summary) -> dict[str, Chart]:
    """The charts of *rows*, which are all that they are made of."""
    judged = measure.of(short)
    both = rows.tradeoff
    return {
        "history": course_charts.history(rows.results, rows.promoted, judged),
        **({} if both is None else {"tradeoff": space_charts.tradeoff(both, judged)}),
        "ladder": search_charts.ladder(rows.rungs, judged),
        "promotions": search_charts.promotions(rows.promoted, judged),
        "short-and-full": search_charts.short_and_full(rows.pairs, rows.short_and_full, judged),
        "importances": space_charts.importances(rows.importances),
        "coordinates": space_charts.coordinates(rows.coordinates, judged),
        "curves": course_charts.curves(rows.curves, rows.runs, short.rungs, judged),
        "timeline": course_charts.timeline(rows.timeline, judged),
    }
