"""One page that says whether a dataset is fit for the cube; it needs no network.

It takes the rows of ``cubeopt data check --json`` and knows nothing of how they were measured.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from cubeopt import atomic
from cubeopt.report import data_figures, shell
from cubeopt.report.data_figures import Row


def write(name: str, fit: Row, path: Path) -> None:
    """Write the page of the dataset *name*, whole or not at all."""
    atomic.write(page(name, fit).encode(), path)


def page(name: str, fit: Row) -> str:
    """The page of the dataset *name*."""
    parts = [_head(name, fit), _findings(fit["findings"]), _facts(fit)]
    parts += [_variance(fit), _copies(fit), _pairs(fit), _labels(fit), _drift(fit), _limits(fit)]
    return shell.document(f"Dataset {name}: fit for the cube?", "".join(parts), plotly=True)


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
    table = shell.table(
        ("predicted by", "numbers", "mse", "cosine", "fvu"),
        [[s["name"], s["width"], s["mse"], s["cosine"], s["fvu"]] for s in scores],
    )
    return (
        "<h2>How much fits through a face</h2><p>The cube reads its input through one face, so "
        "what PCA keeps in as many numbers is the yardstick that it has to beat. <em>fvu</em> is "
        "the fraction of variance unexplained: 0 is perfect, 1 is no better than the mean.</p>"
        '<div class="two">'
        f"<div><h3>Variance held by the first directions</h3>"
        f"{shell.figure(data_figures.explained(fit), 'variance explained by width')}</div>"
        f"<div><h3>Unseen sentences, through fewer numbers and back</h3>"
        f"{shell.figure(data_figures.reconstruction(fit), 'reconstruction by width')}</div></div>"
        + _numbers(
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
    table = shell.table([*columns, *(f"other ≥ {name}" for name in names)], rows)
    return (
        "<h2>Near copies</h2><p>A sentence that stands in training and in validation is an answer "
        "known beforehand. From a cosine of 0.999 on two sentences are the same text.</p>"
        f"{shell.figure(data_figures.copies(fit), 'near copies by split')}"
        + _numbers("sentences counted", table)
    )


def _pairs(fit: Row) -> str:
    alike, hard = data_figures.cosines(fit), data_figures.difficulty(fit)
    if alike is None:
        return ""
    text = (
        "<h2>Questions and answers</h2><p>Where the two histograms stand apart, a question says "
        "something about its own answer.</p>"
        + shell.figure(alike, "cosines of question and answer")
    )
    table = shell.table(
        ("pairs", "count", "true", "shuffled"),
        [[data_figures.title_of(r), r["pairs"], r["true"], r["shuffled"]] for r in fit["likeness"]],
    )
    text += _numbers("mean cosines", table)
    found = data_figures.retrieval(fit)
    if hard is None or found is None:
        return text
    return (
        f'{text}<div class="two"><div><h3>How hard each task is</h3>'
        f"{shell.figure(hard, 'difficulty of each task')}</div>"
        f"<div><h3>The right answer found</h3>{shell.figure(found, 'retrieval')}</div></div>"
        + _numbers("yardsticks and retrieval", _difficulty(fit))
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
        shell.table(("task", "predicted by", "mse", "cosine", "fvu"), rows)
        + shell.table(("task", "guess", "candidates", "questions", "first", "mean 1/rank"), found)
    )


def _labels(fit: Row) -> str:
    figure = data_figures.labels(fit)
    if figure is None:
        return ""
    table = shell.table(
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
        f"{shell.figure(figure, 'accuracy of linear probes')}" + _numbers("accuracies", table)
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
    blocks = [
        f"<div><h3>{name.capitalize()}</h3>{shell.figure(f, name)}</div>" for f, name in figures
    ]
    table = shell.table(
        ("split", "sentences", "groups", "shift of the mean, standard errors", "fvu"),
        [
            [p["split"], p["sentences"], p["groups"], p["shift"], p["unexplained"]]
            for p in drift["parts"]
        ],
    )
    return f'{text}<div class="two">{"".join(blocks)}</div>' + _numbers(
        "each split against training", table
    )


def _limits(fit: Row) -> str:
    rows = [[name, limit] for name, limit in fit["limits"].items()]
    return (
        "<h2>What was left to chance</h2><p>Above these numbers rows are drawn, always the same "
        "ones for the same dataset.</p>" + _numbers("limits", shell.table(("of", "at most"), rows))
    )


def _numbers(summary: str, body: str) -> str:
    return shell.details(f"Numbers: {summary}", body)
