"""One page that says whether a dataset is fit for the cube; it needs no network.

It takes the rows of ``cubeopt data check --json`` and knows nothing of how they were measured.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from cubeopt import atomic
from cubeopt.report import data_figures
from cubeopt.report.data_figures import Row

_CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False}
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 64px; background: #fff; color: #222;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4em 0 .3em; padding-top: .9em; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.2em 0 .2em; }
p { margin: .4em 0; max-width: 46em; }
.quiet { color: #595959; font-size: .9rem; overflow-wrap: anywhere; }
.verdict { border-left: 6px solid; padding: .7em 1em; margin: 1.2em 0; font-size: 1.1rem;
  font-weight: 600; border-radius: 4px; max-width: none; }
.good { border-color: #009E73; background: #e9f7f2; }
.fair { border-color: #E69F00; background: #fff6e0; }
.bad { border-color: #D55E00; background: #fdeee5; }
ul.findings { list-style: none; padding: 0; margin: 1em 0; }
ul.findings li { border: 1px solid #ddd; border-radius: 6px; padding: .7em 1em; margin: .6em 0; }
.tag { display: inline-block; font-size: .78rem; font-weight: 700; padding: .05em .6em;
  border-radius: 1em; margin-right: .5em; color: #fff; }
.problem { background: #b84400; } .warning { background: #8a6100; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6em;
  margin: 1.2em 0; padding: 0; }
.facts div { background: #f5f6f7; border-radius: 6px; padding: .6em .9em; }
.facts dt { color: #595959; font-size: .85rem; } .facts dd { margin: 0; font-size: 1.3rem; }
.facts small { font-size: .8rem; color: #595959; display: block; }
.two { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr));
  gap: 0 24px; }
.two > * { min-width: 0; }
.figure { width: 100%; min-width: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .5em 0; }
th, td { text-align: right; padding: .25em .8em .25em 0; border-bottom: 1px solid #eee;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
summary { cursor: pointer; color: #005a8f; padding: .3em 0; }
summary:focus-visible, .wide:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
@media (max-width: 480px) { body { padding: 16px 12px 48px; } }
"""


def write(name: str, fit: Row, path: Path) -> None:
    """Write the page of the dataset *name*, whole or not at all."""
    atomic.write(page(name, fit).encode(), path)


def page(name: str, fit: Row) -> str:
    """The page of the dataset *name*."""
    title = html.escape(f"Dataset {name}: fit for the cube?")
    parts = [_head(name, fit), _findings(fit["findings"]), _facts(fit)]
    parts += [_variance(fit), _copies(fit), _pairs(fit), _labels(fit), _drift(fit), _limits(fit)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head>\n"
        f"<body><main>\n{''.join(parts)}</main></body>\n</html>\n"
    )


def verdict(findings: Sequence[Row]) -> tuple[str, str]:
    """The sentence that says it all, and its colour: good, fair or bad."""
    problems = sum(each["severity"] == "problem" for each in findings)
    warnings = len(findings) - problems
    if problems:
        return f"Not fit as it is: {_count(problems, 'problem')}, {_count(warnings, 'warning')}", (
            "bad"
        )
    if warnings:
        return f"Fit, with {_count(warnings, 'warning')}", "fair"
    return "Fit: nothing is wrong with it", "good"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _head(name: str, fit: Row) -> str:
    sentence, colour = verdict(fit["findings"])
    rows = ", ".join(f"{task} {sum(rows.values()):,}" for task, rows in fit["rows"].items())
    return (
        f"<h1>{html.escape(name)}</h1>"
        f'<p class="quiet">{html.escape(fit["folder"])} · fingerprint '
        f"{html.escape(fit['fingerprint'][:12])} · normalisation "
        f"{html.escape(fit['normalisation'])} · rows: {html.escape(rows)}</p>"
        f'<p class="verdict {colour}">{sentence}</p>'
    )


def _findings(findings: Sequence[Row]) -> str:
    items = [
        f'<li><span class="tag {each["severity"]}">{each["severity"]}</span>'
        f"{html.escape(_sentence(each['what']))}<br><strong>What to do:</strong> "
        f"{html.escape(_sentence(each['advice']))}</li>"
        for each in findings
    ]
    return f'<ul class="findings">{"".join(items)}</ul>' if items else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _facts(fit: Row) -> str:
    geometry, width = fit["geometry"], fit["code_width"]
    pca = [s for s in fit["reconstruction"] if s["name"] == "pca" and s["width"] == width]
    facts = [("distinct sentences", f"{geometry['of']:,}", _by_split(fit["sentences"]))]
    if width < fit["width"]:
        share = geometry["explained"][width - 1]
        facts.append((f"variance in {width} numbers", f"{share:.1%}", "of all sentences, PCA"))
    for score in pca:
        note = f"unseen sentences through {width} numbers; fvu {score['fvu']:.3f}"
        facts.append(("cosine after PCA", f"{score['cosine']:.3f}", note))
    rank = f"{geometry['effective_rank']:.0f}"
    facts.append(("effective rank", rank, f"equally used directions, of {fit['width']}"))
    cosine = f"{geometry['mean_cosine']:.3f}"
    facts.append(("mean pairwise cosine", cosine, "0: in all directions, 1: all in one"))
    boxes = [
        f"<div><dt>{html.escape(name)}</dt><dd>{value}<small>{html.escape(note)}</small></dd></div>"
        for name, value, note in facts
    ]
    return f'<dl class="facts">{"".join(boxes)}</dl>'


def _by_split(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _variance(fit: Row) -> str:
    scores = [*fit["reconstruction"], *({"name": _network(n), **n} for n in fit["networks"])]
    table = _table(
        ("predicted by", "numbers", "mse", "cosine", "fvu"),
        [[s["name"], s["width"], s["mse"], s["cosine"], s["fvu"]] for s in scores],
    )
    return (
        "<h2>How much fits through a face</h2><p>The cube reads its input through one face, so "
        "what PCA keeps in as many numbers is the yardstick that it has to beat. <em>fvu</em> is "
        "the fraction of variance unexplained: 0 is perfect, 1 is no better than the mean.</p>"
        '<div class="two">'
        f"<div><h3>Variance held by the first directions</h3>"
        f"{_figure(data_figures.explained(fit), 'variance explained by width')}</div>"
        f"<div><h3>Unseen sentences, through fewer numbers and back</h3>"
        f"{_figure(data_figures.reconstruction(fit), 'reconstruction by width')}</div></div>"
        + _details(
            f"fitted on {fit['fitted_on']:,} training sentences, measured on "
            f"{fit['measured_on']:,} of validation",
            table,
        )
    )


def _network(trained: Row) -> str:
    spread = trained["spread"]["fvu"]
    return f"network, noise {trained['noise']:g}, {trained['seeds']} seeds (fvu ± {spread / 2:.3f})"


def _copies(fit: Row) -> str:
    rows = [
        [
            row["split"],
            row["looked_at"],
            row["compared_with"],
            *row["within"].values(),
            *row["across"].values(),
        ]
        for row in fit["neighbours"]
    ]
    names = list(fit["neighbours"][0]["within"])
    columns = ["split", "looked at", "compared with", *(f"own ≥ {name}" for name in names)]
    table = _table([*columns, *(f"other ≥ {name}" for name in names)], rows)
    return (
        "<h2>Near copies</h2><p>A sentence that stands in training and in validation is an answer "
        "known beforehand. From a cosine of 0.999 on two sentences are the same text.</p>"
        f"{_figure(data_figures.copies(fit), 'near copies by split')}"
        + _details("sentences counted", table)
    )


def _pairs(fit: Row) -> str:
    alike, hard = data_figures.cosines(fit), data_figures.difficulty(fit)
    if alike is None:
        return ""
    text = (
        "<h2>Questions and answers</h2><p>Where the two histograms stand apart, a question says "
        "something about its own answer.</p>" + _figure(alike, "cosines of question and answer")
    )
    table = _table(
        ("pairs", "count", "true", "shuffled"),
        [[data_figures.title_of(r), r["pairs"], r["true"], r["shuffled"]] for r in fit["likeness"]],
    )
    text += _details("mean cosines", table)
    found = data_figures.retrieval(fit)
    if hard is None or found is None:
        return text
    return (
        f'{text}<div class="two"><div><h3>How hard each task is</h3>'
        f"{_figure(hard, 'difficulty of each task')}</div>"
        f"<div><h3>The right answer found</h3>{_figure(found, 'retrieval')}</div></div>"
        + _details("yardsticks and retrieval", _difficulty(fit))
    )


def _difficulty(fit: Row) -> str:
    rows = [
        [task["task"], score["name"], score["mse"], score["cosine"], score["fvu"]]
        for task in fit["difficulty"]
        for score in task["scores"]
    ]
    found = [
        [
            task["task"],
            data_figures.GUESSES[row["name"]],
            row["candidates"],
            row["questions"],
            row["top1"],
            row["mrr"],
        ]
        for task in fit["difficulty"]
        for row in task["retrieval"]
    ]
    return "".join(
        f'<p class="quiet">{html.escape(task["task"])}: {task["train"]:,} training pairs, '
        f"{task['validation']:,} of {task['of']:,} validation pairs; strength of the ridge, chosen "
        f"on training pairs: {task['ridge_strength']:g}; length of its predictions over that of "
        f"the answers: {task['length']:.2f}</p>"
        for task in fit["difficulty"]
    ) + (
        _table(("task", "predicted by", "mse", "cosine", "fvu"), rows)
        + _table(("task", "guess", "candidates", "questions", "first", "mean 1/rank"), found)
    )


def _labels(fit: Row) -> str:
    figure = data_figures.labels(fit)
    if figure is None:
        return ""
    table = _table(
        ("task", "seen", "numbers", "train", "validation", "accuracy", "± error", "commonest"),
        [
            [r[key] for key in ("task", "name", "width", "train", "validation")]
            + [r["accuracy"], r["error"], r["majority"]]
            for r in fit["readings"]
        ],
    )
    return (
        "<h2>Labels</h2><p>What a linear probe reads from whole embeddings and from as many "
        "numbers as the face has: the meaning that survives compression.</p>"
        f"{_figure(figure, 'accuracy of linear probes')}" + _details("accuracies", table)
    )


def _drift(fit: Row) -> str:
    told, drift = data_figures.told(fit), fit["drift"]
    text = "<h2>Are the splits alike?</h2>"
    if told is not None:
        row = drift["told"]
        text += (
            f"<p>A classifier tells training from validation sentences with an AUC of "
            f"{row['auc']:.2f}; when groups change sides by chance it reaches {row['low']:.2f} to "
            f"{row['high']:.2f} ({_count(row['groups'], 'group')} of validation).</p>"
        )
    figures = [(data_figures.drift(fit), "variance lost by split")]
    figures += [(told, "classifier")] if told is not None else []
    for what in ("task", "corpus", "label"):
        shares = data_figures.shares(fit, what)
        figures += [(shares, f"rows by {what} and split")] if shares is not None else []
    blocks = [f"<div><h3>{name.capitalize()}</h3>{_figure(f, name)}</div>" for f, name in figures]
    table = _table(
        ("split", "sentences", "groups", "shift of the mean, standard errors", "fvu"),
        [
            [p["split"], p["sentences"], p["groups"], p["shift"], p["unexplained"]]
            for p in drift["parts"]
        ],
    )
    return f'{text}<div class="two">{"".join(blocks)}</div>' + _details(
        "each split against training", table
    )


def _limits(fit: Row) -> str:
    rows = [[name, limit] for name, limit in fit["limits"].items()]
    return (
        "<h2>What was left to chance</h2><p>Above these numbers rows are drawn, always the same "
        "ones for the same dataset.</p>" + _details("limits", _table(("of", "at most"), rows))
    )


def _figure(figure: go.Figure, label: str) -> str:
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=False, default_width="100%", config=_CONFIG
    )
    return f'<div class="figure" role="img" aria-label="{html.escape(label)}">{drawn}</div>'


def _details(summary: str, body: str) -> str:
    return f"<details><summary>Numbers: {html.escape(summary)}</summary>{body}</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(_cell(value))}</td>' for value in row)}</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6f}" if abs(value) < 0.01 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
