"""The page of a dataset, from plain rows."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from cubeopt.errors import InputError
from cubeopt.report import data_figures, data_page


def _score(name: str, width: int | None, cosine: float | None, fvu: float) -> dict[str, Any]:
    return {"name": name, "width": width, "mse": fvu / 768, "cosine": cosine, "fvu": fvu}


def _shares(what: str, name: str, *rows: int) -> dict[str, Any]:
    counts = dict(zip(("train", "validation", "test"), rows, strict=True))
    return {"what": what, "name": name, "rows": counts, "groups": counts}


def _retrieval(name: str, candidates: int, top1: float) -> dict[str, Any]:
    row = {"name": name, "candidates": candidates, "questions": candidates}
    return row | {"top1": top1, "mrr": top1 + 0.1}


@pytest.fixture
def fit() -> dict[str, Any]:
    """What `cubeopt data check --json` gives for a dataset with two tasks and a finding."""
    counts = [0] * 30 + [4] * 10 + [0] * 10
    likeness = {"pairs": 40, "of": 40, "true": 0.44, "shuffled": 0.07}
    likeness |= {"true_counts": counts, "shuffled_counts": counts[::-1]}
    near = {"sentences": 80, "looked_at": 80, "compared_with": 100}
    near |= {"within": {"0.999": 0, "0.99": 2}, "across": {"0.999": 1, "0.99": 3}}
    empty = near | {"looked_at": 0, "within": {"0.999": 0, "0.99": 0}}
    scores = [_score("copy", None, 0.3, 1.5), _score("mean", None, 0.2, 1.0)]
    names = ("question", "pca", "pca_codes", "ridge")
    reading = {"task": "nli", "train": 80, "validation": 20, "accuracy": 0.7}
    reading |= {"error": 0.1, "majority": 0.35}
    return {
        "folder": "/data/tiny",
        "fingerprint": "0123456789abcdef",
        "normalisation": "none",
        "width": 768,
        "code_width": 64,
        "sentences": {"train": 80, "validation": 20, "test": 0},
        "rows": {"dialogue": {"train": 30, "validation": 10, "test": 0}},
        "limits": {"pairs of a task and split": 20000},
        "geometry": {
            "sentences": 100,
            "of": 100,
            "effective_rank": 165.3,
            "mean_cosine": 0.046,
            "explained": [math.sqrt((place + 1) / 768) for place in range(768)],
        },
        "fitted_on": 80,
        "measured_on": 20,
        "reconstruction": [
            _score("zeros", None, None, 1.05),
            _score("mean", None, 0.2, 1.0),
            _score("random", 64, 0.35, 0.92),
            *(_score("pca", width, 1 - 1 / width, 1 / width) for width in (8, 64, 225)),
        ],
        "neighbours": [near | {"split": "train"}, empty | {"split": "test"}],
        "likeness": [
            likeness | {"task": "dialogue", "label": None},
            likeness | {"task": "nli", "label": "entail<ment"},
        ],
        "difficulty": [
            {
                "task": "dialogue",
                "train": 30,
                "validation": 10,
                "of": 10,
                "ridge_strength": 10.0,
                "scores": [*scores, _score("ridge", None, 0.34, 0.93)],
                "length": 0.32,
                "retrieval": [
                    *(_retrieval(name, 120, 0.2) for name in names),
                    *(_retrieval(name, 900, 0.1) for name in names),
                ],
            }
        ],
        "readings": [
            reading | {"name": name, "width": 768 if name == "full" else 64}
            for name in ("full", "pca", "random")
        ],
        "unlabelled": {"nli": 0.0},
        "drift": {
            "width": 64,
            "parts": [
                {"split": split, "sentences": 20, "groups": 9, "shift": 1.0, "unexplained": lost}
                for split, lost in (("held-out train", 0.31), ("validation", 0.35), ("test", None))
            ],
            "told": {"train": 80, "validation": 20, "groups": 9, "width": 64}
            | {"auc": 0.53, "low": 0.45, "high": 0.55},
            "shares": [
                _shares("task", "dialogue", 30, 10, 0),
                _shares("task", "nli", 50, 10, 0),
                _shares("corpus", "only one", 80, 20, 0),
                _shares("label", "nli: unknown", 0, 0, 0),
            ],
        },
        "networks": [
            {"noise": 0.5, "width": 64, "seeds": 3, "epochs": [9, 9, 9], "mse": 0.0004}
            | {"cosine": 0.837, "fvu": 0.317, "spread": {"mse": 0.0, "cosine": 0.0, "fvu": 0.01}}
        ],
        "findings": [
            {"severity": "warning", "what": "a <b>odd</b> thing", "number": 5, "advice": "mend it"}
        ],
    }


def test_the_verdict_says_what_the_findings_say() -> None:
    problem, warning = {"severity": "problem"}, {"severity": "warning"}
    assert data_page.verdict([]) == ("Fit: nothing is wrong with it", "good")
    assert data_page.verdict([warning]) == ("Fit, with 1 warning", "fair")
    assert data_page.verdict([problem, warning, warning]) == (
        "Not fit as it is: 1 problem, 2 warnings",
        "bad",
    )


def test_verdict_and_findings_come_before_every_figure(fit: dict[str, Any]) -> None:
    page = data_page.page("tiny", fit)
    places = [page.index(text) for text in ("Fit, with 1 warning", "Mend it.", 'class="figure"')]
    assert places == sorted(places)


def test_what_files_and_people_named_is_only_text(fit: dict[str, Any]) -> None:
    page = data_page.page("<script>alert(1)</script>", fit)
    assert "<script>alert(1)" not in page
    assert "A &lt;b&gt;odd&lt;/b&gt; thing." in page
    assert "nli, entail&lt;ment" in page


def test_the_page_needs_no_network(fit: dict[str, Any]) -> None:
    page = data_page.page("tiny", fit)
    outside = re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"' >]+""", page.split("</script>")[-1])
    assert outside == []
    assert "<script src=" not in page


def test_the_faces_are_marked_on_the_curve(fit: dict[str, Any]) -> None:
    figure = data_figures.explained(fit)
    curve = figure.data[0]
    assert list(curve.y) == fit["geometry"]["explained"]
    assert list(curve.x) == list(range(1, 769))
    marked = {trace.x[0]: trace.y[0] for trace in figure.data[1:]}
    assert marked == {width: curve.y[width - 1] for width in (64, 225, 729)}
    assert [note.text for note in figure.layout.annotations] == [
        "8x8x8: 64 numbers, 29%",
        "15x15x15: 225 numbers, 54%",
        "27x27x27: 729 numbers, 97%",
    ]


def test_reconstruction_shows_pca_random_axes_and_networks(fit: dict[str, Any]) -> None:
    drawn = [
        (trace.name, list(trace.x), list(trace.y))
        for trace in data_figures.reconstruction(fit).data
    ]
    assert drawn[:3] == [
        ("PCA", [8, 64, 225], [1 - 1 / width for width in (8, 64, 225)]),
        ("random axes", [64], [0.35]),
        ("network, noise 0.5", [64], [0.837]),
    ]
    assert [ys for _, _, ys in drawn[3:]] == [[1 / 8, 1 / 64, 1 / 225], [0.92], [0.317]]


def test_histograms_are_shares_between_minus_one_and_one(fit: dict[str, Any]) -> None:
    figure = data_figures.cosines(fit)
    assert figure is not None
    for trace in figure.data:
        assert sum(trace.y) == pytest.approx(1.0)
        assert (trace.x[0], trace.x[-1]) == (pytest.approx(-0.98), pytest.approx(0.98))
    assert len(figure.data) == 4
    assert [note.text for note in figure.layout.annotations] == [
        "dialogue: true 0.44, shuffled 0.07",
        "nli, entail<ment: true 0.44, shuffled 0.07",
    ]


def test_retrieval_shows_the_few_candidates_alone(fit: dict[str, Any]) -> None:
    figure = data_figures.retrieval(fit)
    assert figure is not None
    [bars] = figure.data
    assert bars.name == "dialogue, among 120"
    assert list(bars.x) == [0.2] * 4


def test_copies_are_shares_of_those_looked_at(fit: dict[str, Any]) -> None:
    within, across = data_figures.copies(fit).data  # the split that has none is not drawn
    assert list(within.y) == [0.0, 2 / 80]
    assert list(across.y) == [1 / 80, 3 / 80]


def test_shares_are_drawn_where_there_is_something_to_compare(fit: dict[str, Any]) -> None:
    figure = data_figures.shares(fit, "task")
    assert figure is not None
    drawn = {trace.name: list(trace.x) for trace in figure.data}
    assert drawn == {"train": [30 / 80, 50 / 80], "validation": [0.5, 0.5]}
    assert data_figures.shares(fit, "corpus") is None
    assert data_figures.shares(fit, "label") is None


def test_every_axis_is_named_by_itself_or_by_the_title_above(fit: dict[str, Any]) -> None:
    painters = ("explained", "reconstruction", "copies", "difficulty", "retrieval", "labels")
    figures = [getattr(data_figures, name)(fit) for name in (*painters, "drift", "told")]
    for figure in [*figures, data_figures.shares(fit, "task")]:
        layout = figure.to_plotly_json()["layout"]
        across = [axis for name, axis in layout.items() if name.startswith("xaxis")]
        up = [axis for name, axis in layout.items() if name.startswith("yaxis")]
        assert all(axis["title"]["text"] for axis in across)
        titled = all(axis.get("title", {}).get("text") for axis in up)
        assert titled or len(layout["annotations"]) == len(across) == 2


def test_a_dataset_without_pairs_and_labels_has_a_page(fit: dict[str, Any]) -> None:
    fit |= {"likeness": [], "difficulty": [], "readings": [], "findings": [], "networks": []}
    fit["drift"] |= {"told": None}
    page = data_page.page("bare", fit)
    assert "Fit: nothing is wrong" in page
    for heading in ("Questions and answers", "Labels", "Classifier"):
        assert f">{heading}<" not in page


def test_a_page_that_cannot_be_written_is_one_clear_error(fit: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"cannot write /dev/null/page\.html: "):
        data_page.write("tiny", fit, Path("/dev/null/page.html"))


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_can_be_read_on_a_narrow_screen_and_without_a_mouse(
    fit: dict[str, Any], browser: Browser, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "deep" / "page.html"
    data_page.write("tiny", fit, path)
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    page = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.main-svg').length >= 20")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = "e => e.getBoundingClientRect().right > innerWidth || e.clientWidth < 250"
    assert page.evaluate(f"[...document.querySelectorAll('.figure')].filter({beyond}).length") == 0
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelectorAll('details[open] table').length") == 1
    assert said == [path.as_uri()]
    page.close()
