"""Trainings as rows and as panels: numbers by hand, and a planted case of every finding."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from cubeopt.db import queue
from cubeopt.errors import ConfigError, UnknownNameError
from cubeopt.report import multiples, training, training_figures
from cubeopt.report.multiples import Panel
from cubeopt.report.multiples_page import figure
from cubeopt.report.training import Choice, Track, Trainings
from cubeopt.report.training_figures import Section
from cubeopt.training.diagnosis import Kind

from ..db.conftest import DEVICE, Hands

EPOCHS = 12
FALLING = [0.9 * 0.9**epoch for epoch in range(EPOCHS)]
STUCK = [0.5, *[0.52, 0.53] * 6][:EPOCHS]
FLAT = [*FALLING[:6], *(FALLING[5] * (1 - 0.0005 * k) for k in range(1, 7))]
RISING = [*FALLING[:5], *(FALLING[4] * (1 + 0.02 * k) for k in range(1, 8))]

# What shows each finding: (series that a healthy training is changed by, panel, subject, epochs).
PLANTED: dict[Kind, tuple[dict[str, Any], str, str, tuple[int, int]]] = {
    Kind.DIVERGED: (
        {"train/loss/total": [*FALLING[:8], None, None, None, None]},
        *("losses-train-loss-total", "", (9, 12)),
    ),
    Kind.DIVERGING: (
        {"train/loss/reconstruction": [*FALLING[:8], 1.2, 3.0, 9.0, 40.0]},
        *("losses-train-loss-reconstruction", "", (9, 12)),
    ),
    Kind.WORSE_THAN_MEAN: (
        {"validation/fvu": [1.2, 1.1, 1.05, 1.0, *FALLING[:8]]},
        *("objective-validation-fvu", "", (3, 4)),
    ),
    Kind.OVERFITTING: ({"validation/fvu": RISING}, "objective-validation-fvu", "", (10, 12)),
    Kind.PLATEAU: (
        {"validation/fvu": STUCK, "train/loss/reconstruction": STUCK},
        *("objective-validation-fvu", "", (6, 12)),
    ),
    Kind.CONVERGED: (
        {"validation/fvu": FLAT, "train/loss/reconstruction": FLAT},
        *("objective-validation-fvu", "", (11, 12)),
    ),
    Kind.DEAD_EXPERT: (
        {"validation/usage/local": [30.0] * 4 + [0.2] * 8},
        *("usage-0", "local", (7, 12)),
    ),
    Kind.DEAD_GRADIENT: (
        {"train/gradient_norm/gate": [0.01] * 9 + [1e-7] * 3},
        *("gradient-norm-train-gradient_norm-gate", "gate", (10, 12)),
    ),
}


def healthy(**changes: Any) -> dict[str, list[float | None]]:
    """Twelve epochs of a training without findings, with *changes* put in."""
    values: dict[str, Any] = {
        "train/loss/total": FALLING,
        "train/loss/reconstruction": FALLING,
        "train/weighted/reconstruction": [2.0 * each for each in FALLING],
        "train/weight/reconstruction": 2.0,
        "train/loss/ponder": 0.5,
        "train/weighted/ponder": 0.0,
        "train/weight/ponder": 0.0,
        "train/gradient_norm/all": 1.0,
        "train/gradient_norm/gate": 0.01,
        "train/update_ratio/all": 0.002,
        "learning_rate": 1e-3,
        "samples_per_second": 250.0,
        "epoch_seconds": 4.0,
        "peak_memory_bytes": 1.5e9,
        "device_utilisation": 87.5,
        "validation/fvu": FALLING,
        "validation/loss/reconstruction": [1.1 * each for each in FALLING],
        "validation/cosine": 0.5,
        "validation/usage/local": 30.0,
        "validation/usage/distant": 70.0,
        **changes,
    }
    return {n: each if isinstance(each, list) else [each] * EPOCHS for n, each in values.items()}


@pytest.fixture
def hands(engine: Engine) -> Hands:
    return Hands(engine, queue.register(engine, "lab-1", "lab", 1, DEVICE, {"torch": "0"}))


Plant = Callable[..., None]


@pytest.fixture
def plant(hands: Hands) -> Plant:
    """Let a worker record a training of trial 0, 1, ... of the study "study"."""
    study = hands.study()

    def planted(number: int, series: dict[str, list[float | None]], epochs: int = EPOCHS) -> None:
        hands.enqueue(study, [number], target=EPOCHS)
        (claim,) = hands.claim(1)
        for nth in range(epochs):
            metrics = {name: values[nth] for name, values in series.items()}
            hands.report(claim, nth + 1, metrics.get("validation/fvu"), metrics=metrics)

    return planted


def only(shown: Trainings) -> Track:
    (track,) = shown.tracks
    return track


def sections(shown: Trainings, weighted: bool = False) -> dict[str, Section]:
    return {each.id: each for each in training_figures.sections(shown, weighted)}


def panels(shown: Trainings, weighted: bool = False) -> dict[str, Panel]:
    return {panel.id: panel for each in sections(shown, weighted).values() for panel in each.panels}


def test_choices_are_read_and_written_alike() -> None:
    text = "3,17f,17f1,4s"
    found = training.parse(f" {text}, 3,")
    assert [each.key for each in found] == text.split(",")
    words = [training.label(each) for each in found]
    assert words == ["trial 3", "trial 17, full run", "trial 17, seed +1", "trial 4, short run"]
    assert training.label(found[2], seed=8) == "trial 17, seed 8"
    assert training.watched(found) == [3, 4, 17]
    assert training.parse("") == []
    assert training.watched([]) is None


@pytest.mark.parametrize("text", ["x", "3g", "-1", "3f-1", "<script>", "1;2", "9" * 10])
def test_what_is_no_run_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"runs names .*; a run is a trial's number as in 3"):
        training.parse(text)


def test_more_than_can_be_told_apart_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="runs names 13 of them; at most 12"):
        training.parse(",".join(map(str, range(13))))


def test_a_track_has_every_number_and_what_it_comes_to(engine: Engine, plant: Plant) -> None:
    plant(0, healthy(**{"validation/fvu": [0.9, None, 0.5, 0.7, *[0.6] * 8]}), epochs=4)
    track = only(training.load(engine, "study", [Choice(0)]))
    assert (track.key, track.label, track.state, track.worker) == (
        *("0", "trial 0", "running", "lab-1"),
    )
    assert (track.epoch, track.target_epochs, track.promoted_after) == (4, 12, None)
    assert track.epochs == [1, 2, 3, 4]
    assert track.metrics["validation/fvu"] == [0.9, None, 0.5, 0.7]
    assert track.metrics["learning_rate"] == [1e-3] * 4
    assert (track.value, track.best, track.best_epoch) == (0.7, 0.5, 3)
    assert track.last("train/loss/total") == FALLING[3]


def test_a_short_run_and_the_full_one_are_one_track(
    engine: Engine, hands: Hands, plant: Plant
) -> None:
    plant(0, healthy())
    study = training.records.study(engine, "study")
    queue.promote(engine, study.id, [0], 50, seeds=2)
    claims = {claim.replicate: claim for claim in hands.claim(2)}
    hands.report(claims[0], 13, 0.25, metrics={"validation/fvu": 0.25})
    hands.report(claims[1], 1, 0.75, metrics={"validation/fvu": 0.75})
    track = only(training.load(engine, "study", training.parse("0")))
    assert track.epochs == list(range(1, 14))
    assert track.metrics["validation/fvu"] == [*FALLING, 0.25]
    assert track.metrics["learning_rate"] == [*[1e-3] * 12, None]
    assert (track.promoted_after, track.target_epochs, track.value) == (12, 50, 0.25)
    short, full, other = training.load(engine, "study", training.parse("0s,0f,0f1")).tracks
    assert (short.epochs, short.state) == (list(range(1, 13)), "complete")
    assert (full.epochs, full.promoted_after) == ([13], None)
    assert (other.epochs, other.label, other.value) == ([1], "trial 0, seed 1", 0.75)
    shown = training.load(engine, "study", training.parse("0"))
    shapes = figure(panels(shown)["objective-validation-fvu"])["layout"]["shapes"]
    assert [shape["x0"] for shape in shapes if shape["line"].get("dash") == "longdash"] == [12.5]


def test_what_is_shown_first_is_what_is_trained_now_and_then_the_best(
    engine: Engine, plant: Plant
) -> None:
    shown = training.load(engine, "study")
    assert (shown.tracks, shown.chosen_by) == ([], "nothing has been trained yet")
    assert training_figures.sections(shown) == []
    plant(0, healthy())
    plant(1, healthy(**{"validation/fvu": [each / 2 for each in FALLING]}))
    shown = training.load(engine, "study")
    assert (only(shown).trial, shown.chosen_by) == (1, "the best so far")
    plant(2, healthy(), epochs=1)
    shown = training.load(engine, "study")
    assert (only(shown).trial, shown.chosen_by) == (2, "training now")


def test_what_is_not_there_is_said(engine: Engine, plant: Plant) -> None:
    plant(0, healthy())
    shown = training.load(engine, "study", training.parse("0,5,0f"))
    assert [track.key for track in shown.tracks] == ["0"]
    assert shown.missing == [
        "there is no trial 5 in this study",
        "trial 0, full run: there is no such run; the trial was not promoted to it",
    ]
    with pytest.raises(UnknownNameError, match=r"no study named 'studdy'.*'study'"):
        training.load(engine, "studdy")


def test_what_a_run_lacks_is_said_and_not_drawn_as_zero(engine: Engine, plant: Plant) -> None:
    plant(0, healthy())
    without = healthy()
    del without["device_utilisation"]
    plant(1, without)
    shown = training.load(engine, "study", training.parse("0,1"))
    panel = panels(shown)["speed-device_utilisation"]
    assert panel.lacks == "not measured: trial 1"
    assert [(trace["name"], trace["y"]) for trace in figure(panel)["data"]] == [
        ("trial 0", [87.5] * 12)
    ]
    rows = {row[0]: row[1:] for row in sections(shown)["speed"].rows}
    assert rows["device utilisation (%)"] == [87.5, None]
    assert rows["peak memory (GB)"] == [1.5, 1.5]


def test_losses_are_shown_as_they_are_or_weighted(engine: Engine, plant: Plant) -> None:
    plant(0, healthy())
    shown = training.load(engine, "study", [Choice(0)])
    plain = figure(panels(shown)["losses-train-loss-reconstruction"])["data"]
    assert [trace["name"] for trace in plain] == ["trial 0", "trial 0, validation"]
    assert plain[0]["y"][:2] == [0.9, 0.81]
    assert plain[1]["y"][:2] == [0.99, 0.891]
    assert "losses-train-loss-ponder" in panels(shown)
    weighted = panels(shown, weighted=True)
    assert figure(weighted["losses-train-weighted-reconstruction"])["data"][0]["y"][0] == 1.8
    assert "losses-train-weighted-ponder" not in weighted
    about = sections(shown, weighted=True)["losses"].about
    assert about.endswith("Always 0, and not drawn: ponder.")


def test_axes_have_units_and_norms_are_logarithmic(engine: Engine, plant: Plant) -> None:
    plant(0, healthy(**{"train/gradient_norm/gate": [0.0] * EPOCHS}))
    shown = training.load(engine, "study", [Choice(0)])
    for panel in panels(shown).values():
        layout = figure(panel)["layout"]
        assert layout["xaxis"]["title"]["text"] == "epoch"
        assert layout["yaxis"]["title"]["text"]
    norms = figure(panels(shown)["gradient-norm-train-gradient_norm-gate"])
    assert norms["layout"]["yaxis"]["type"] == "log"
    assert norms["data"][0]["y"] == [1e-12] * EPOCHS  # where 0 would leave the axis
    usage = figure(panels(shown)["usage-0"])
    assert usage["layout"]["yaxis"]["range"] == [0, 100]
    colors = {trace["name"]: trace["line"]["color"] for trace in usage["data"]}
    assert colors == {"local": "#0072B2", "distant": "#009E73"}


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_found_is_said_and_marked_where_it_shows(
    engine: Engine, plant: Plant, kind: Kind
) -> None:
    changes, where, subject, (first, last) = PLANTED[kind]
    plant(0, healthy(**changes))
    shown = training.load(engine, "study", [Choice(0)])
    signs = [sign for sign in only(shown).signs if sign.kind == kind]
    assert [(each.subject, each.first, each.last) for each in signs] == [(subject, first, last)]
    assert (signs[0].track, signs[0].label) == ("0", "trial 0")
    layout = figure(panels(shown)[where])["layout"]
    marks = [each for each in layout["annotations"] if each.get("name") == "sign"]
    assert f"{signs[0].number} {kind}" in [each["text"] for each in marks]
    assert [each["x"] for each in marks if str(kind) in each["text"]] == [first]
    lines = [each["x0"] for each in layout["shapes"] if each["type"] == "line"]
    bands = [(each["x0"], each["x1"]) for each in layout["shapes"] if each["type"] == "rect"]
    assert first in lines
    assert (first, last) in bands


def test_a_healthy_training_has_no_marks(engine: Engine, plant: Plant) -> None:
    plant(0, healthy())
    shown = training.load(engine, "study", [Choice(0)])
    assert shown.signs == []
    for panel in panels(shown).values():
        assert [each["name"] for each in figure(panel)["layout"]["annotations"]] in (
            [],
            ["baseline", "baseline"],
        )


def test_one_that_diverges_leaves_the_picture_and_the_others_stay_readable(
    engine: Engine, plant: Plant
) -> None:
    plant(0, healthy())
    far = [*FALLING[:8], 1.2, 3.0, 9.0, 40.0]
    plant(1, healthy(**{"train/loss/reconstruction": far}))
    shown = training.load(engine, "study", training.parse("0,1"))
    panel = panels(shown)["losses-train-loss-reconstruction"]
    assert panel.lacks == "trial 1 leaves the picture, to 40"
    # The others lie between .2542 (validation .2824) and .99: the axis has as much again above.
    low, high = figure(panel)["layout"]["yaxis"]["range"]
    lowest, highest = FALLING[11], 0.99
    span = highest - lowest
    assert (low, high) == (
        pytest.approx(lowest - 0.05 * span, rel=1e-4),
        pytest.approx(highest + 1.05 * span, rel=1e-4),
    )
    assert "range" not in figure(panels(shown)["speed-epoch_seconds"])["layout"]["yaxis"]


def test_findings_are_counted_through(engine: Engine, plant: Plant) -> None:
    plant(0, healthy(**PLANTED[Kind.PLATEAU][0]))
    plant(1, healthy(**PLANTED[Kind.DEAD_EXPERT][0], **PLANTED[Kind.DIVERGING][0]))
    signs = training.load(engine, "study", training.parse("0,1")).signs
    assert [(each.number, each.track) for each in signs] == [(1, "0"), (2, "1"), (3, "1")]


def test_rows_are_json_without_nan(engine: Engine, plant: Plant) -> None:
    plant(0, healthy(**PLANTED[Kind.DIVERGED][0]))
    shown = training.load(engine, "study", [Choice(0)])
    content = json.loads(json.dumps(shown.as_json(), allow_nan=False))
    assert content["tracks"][0]["metrics"]["train/loss/total"][8:] == [None] * 4
    assert content["baselines"] == {"predict the mean": 1.0, "PCA with 16 components": 0.8}
    assert content["rungs"] == [1, 2, 5]


def test_a_long_training_is_thinned_and_keeps_its_ends() -> None:
    points = [(epoch, float(epoch)) for epoch in range(1, 5001)]
    thin = multiples.thinned(points, lines=1)
    assert len(thin) <= 1201
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert len(multiples.thinned(points, lines=100)) <= 101
    assert multiples.thinned(points[:100], lines=100) == points[:100]
    assert math.isfinite(thin[1][1])


def test_options_are_what_can_be_chosen(engine: Engine, plant: Plant) -> None:
    plant(0, healthy())
    plant(1, healthy(), epochs=2)
    found = training.options(engine, "study", "", 10)
    assert (found["metric"], found["count"]) == ("fvu", 2)
    assert [(each["key"], each["state"], each["epoch"]) for each in found["options"]] == [
        ("1", "running", 2),
        ("0", "complete", 12),
    ]
    assert training.options(engine, "study", "7", 10)["options"] == []
    with pytest.raises(ConfigError, match="find is 'x'; it takes the beginning of a trial's"):
        training.options(engine, "study", "x", 10)
