"""What is wrong with a dataset in plain words, and what to do about it.

Each limit below says why it stands where it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cubeopt.data.fitness.drift import UNKNOWN

if TYPE_CHECKING:
    from cubeopt.data.fitness.fitness import Fitness

# Half the variance gone: below that a reconstruction is nearer to the mean than to its row.
UNEXPLAINED_WARNING = 0.5
# The fvu of 64 random axes of 768 is 0.92: PCA is hardly better than chance.
UNEXPLAINED_PROBLEM = 0.8
# Real sentences have 100 to 250; below 16 (the face of 4x4x4) the smallest cube holds everything.
EFFECTIVE_RANK = 16.0
# From here on half of each row is the mean: cosines rank rows by what all have in common.
MEAN_COSINE = 0.5
# Two sentences this near are the same text but for a space or a full stop.
SAME = "0.999"
# Copies move fvu by about their share: one in a hundred is what another split changes.
ACROSS_PROBLEM = 0.01
# One in twenty: then training weighs some sentences twice without being asked to.
WITHIN_WARNING = 0.05
# Ridge explains less than a hundredth: the noise of a validation split of some hundred rows.
RIDGE_FVU = 0.99
# Right answers as near as any other's: the question says nothing about its answer.
UNRELATED = 0.02
# Predictions half as long as what they should be: squared errors are paid for by saying little.
SHORT = 0.7
# With fewer, a figure rests on the topics of a few: 3 dialogues gave 0.034 of cosine either way.
FEW_GROUPS = 10
# The share of rows whose label is missing from which an accuracy speaks of another dataset.
UNLABELLED = 0.01
# Of the accuracy; two standard errors are the usual 95 %.
STANDARD_ERRORS = 2.0
# Below, a classifier that tells the splits is no more than curious.
TOLD = 0.6
# fvu; splits of 30 dialogues differ by 0.05.
FVU_GAP = 0.1
# Of a label's or a corpus' share; smaller differences move no metric.
SHARE_GAP = 0.1


class Severity(StrEnum):
    """How bad it is."""

    PROBLEM = "problem"  # a study on this data would mislead
    WARNING = "warning"  # a study works, but its figures need care


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    severity: Severity
    what: str
    number: int | float
    advice: str


def findings(fit: "Fitness") -> list[Finding]:
    """All of them, problems first."""
    found = [finding for rule in _RULES for finding in rule(fit)]
    return sorted(found, key=lambda each: list(Severity).index(each.severity))


def _empty_splits(fit: "Fitness") -> Iterator[Finding]:
    for shares in fit.drift.shares:
        if shares.what != "task":
            continue
        for split in ("train", "validation"):
            if not shares.rows[split]:
                yield Finding(
                    Severity.PROBLEM,
                    f"the task {shares.name} has no {split} rows",
                    0,
                    "add files with more groups for it, or give this split a larger fraction",
                )


def _few_groups(fit: "Fitness") -> Iterator[Finding]:
    for shares in fit.drift.shares:
        count = shares.groups["validation"]
        if shares.what == "task" and 0 < count < FEW_GROUPS:
            yield Finding(
                Severity.WARNING,
                f"the validation rows of the task {shares.name} come from {count} groups only "
                "(a group is a dialogue, or all pairs of one question)",
                count,
                "add files, or take figures from several builds with other seeds",
            )


def _missing_corpora(fit: "Fitness") -> Iterator[Finding]:
    for shares in fit.drift.shares:
        empty = [split for split, rows in shares.rows.items() if not rows]
        if shares.what == "corpus" and empty:
            yield Finding(
                Severity.WARNING,
                f"the corpus {shares.name} has no rows in {' and '.join(empty)}",
                len(empty),
                "add more of it; until then no figure speaks of it there",
            )


def _unlabelled(fit: "Fitness") -> Iterator[Finding]:
    for task, unknown in fit.unlabelled.items():
        if unknown > UNLABELLED:
            yield Finding(
                Severity.WARNING,
                f"{unknown:.0%} of the rows of the task {task} have no label",
                unknown,
                "give the labels when building (--labels), or read its accuracies as those of the "
                "labelled rows",
            )


def _compression(fit: "Fitness") -> Iterator[Finding]:
    for score in fit.reconstruction:
        if score.name != "pca" or score.width != fit.code_width:
            continue
        if score.fvu > UNEXPLAINED_WARNING and fit.code_width < fit.width:
            hard = score.fvu > UNEXPLAINED_PROBLEM
            yield Finding(
                Severity.PROBLEM if hard else Severity.WARNING,
                f"{fit.code_width} numbers lose {score.fvu:.0%} of the variance of unseen "
                "sentences (PCA)",
                score.fvu,
                "use a wider face (15x15x15 has 225 numbers), or more sentences of the same kind",
            )


def _diversity(fit: "Fitness") -> Iterator[Finding]:
    rank = fit.geometry.effective_rank
    if rank < EFFECTIVE_RANK:
        yield Finding(
            Severity.WARNING,
            f"the sentences vary along {rank:.1f} directions only (effective rank)",
            rank,
            "add sources on other topics: a cube that does well here has learned little",
        )


def _isotropy(fit: "Fitness") -> Iterator[Finding]:
    cosine = fit.geometry.mean_cosine
    if cosine > MEAN_COSINE:
        yield Finding(
            Severity.WARNING,
            f"two sentences drawn at random have a cosine of {cosine:.2f}: all point one way",
            cosine,
            "build with --normalise standardise, and judge by fvu rather than by cosine",
        )


def _copies(fit: "Fitness") -> Iterator[Finding]:
    for near in fit.neighbours:
        across, within = near.across[SAME], near.within[SAME]
        if near.split != "train" and across:
            share = across / near.looked_at
            yield Finding(
                Severity.PROBLEM if share > ACROSS_PROBLEM else Severity.WARNING,
                f"{share:.1%} of the {near.split} sentences ({across} of {near.looked_at}) stand "
                f"in another split too (cosine from {SAME} on)",
                share,
                f"build again with --near {SAME}, which keeps near copies in one split",
            )
        if near.split == "train" and within > WITHIN_WARNING * near.looked_at:
            share = within / near.looked_at
            yield Finding(
                Severity.WARNING,
                f"{share:.1%} of the training sentences have a near copy among themselves",
                share,
                f"build again with --near {SAME}, which keeps one of them",
            )


def _hopeless(fit: "Fitness") -> Iterator[Finding]:
    related = {each.task: each.true - each.shuffled for each in fit.likeness if each.label is None}
    for task in fit.difficulty:
        ridge = next(score for score in task.scores if score.name == "ridge")
        if ridge.fvu < RIDGE_FVU:
            continue
        unrelated = abs(related.get(task.task, 0.0)) < UNRELATED
        yield Finding(
            Severity.PROBLEM if unrelated else Severity.WARNING,
            f"the task {task.task}: ridge regression does not beat the mean answer (fvu "
            f"{ridge.fvu:.2f})"
            + (
                ", and answers are no nearer to their questions than to others" if unrelated else ""
            ),
            ridge.fvu,
            "check that questions and answers stand in the same order; if they do, add pairs",
        )


def _shrinking(fit: "Fitness") -> Iterator[Finding]:
    for task in fit.difficulty:
        scores = {score.name: score for score in task.scores}
        few = {each.name: each for each in reversed(task.retrieval)}  # among few candidates
        ridge, question = few["ridge"], few["question"]
        error = (question.top1 * (1.0 - question.top1) / question.questions) ** 0.5
        if (
            task.length < SHORT
            and scores["ridge"].fvu < min(RIDGE_FVU, scores["copy"].fvu)
            and ridge.top1 < question.top1 - STANDARD_ERRORS * error
        ):
            yield Finding(
                Severity.WARNING,
                f"the task {task.task}: the squared error falls by shrinking - ridge's predictions "
                f"have {task.length:.0%} of the length of the answers and find the right one in "
                f"{ridge.top1:.1%} of cases, the plain question in {question.top1:.1%}",
                task.length,
                "judge this task by cosine or retrieval, not by mse or fvu alone",
            )


def _unreadable(fit: "Fitness") -> Iterator[Finding]:
    for reading in fit.readings:
        gain = reading.accuracy - reading.majority
        if reading.name == "full" and gain < STANDARD_ERRORS * reading.error:
            yield Finding(
                Severity.WARNING,
                f"the labels of the task {reading.task} cannot be read from its embeddings: "
                f"{reading.accuracy:.1%}, always the commonest label {reading.majority:.1%}",
                gain,
                "check that labels and rows stand in the same order",
            )


def _drift(fit: "Fitness") -> Iterator[Finding]:
    told = fit.drift.told
    if told is not None and told.auc > max(told.high, TOLD):
        yield Finding(
            Severity.WARNING,
            f"training and validation are of different kinds: a classifier tells them apart (AUC "
            f"{told.auc:.2f}; by chance at most {told.high:.2f})",
            told.auc,
            "build again from all sources at once, so that each split gets its share of each",
        )
        return
    lost = {part.split: part.unexplained for part in fit.drift.parts}
    base, unseen = lost.get("held-out train"), lost.get("validation")
    if base is not None and unseen is not None and unseen - base > FVU_GAP:
        yield Finding(
            Severity.WARNING,
            f"validation is harder than training's own held-out sentences: {unseen:.2f} of its "
            f"variance is lost through {fit.drift.width} numbers, {base:.2f} of theirs",
            unseen - base,
            "build again with another seed, or add sources of the kind that validation holds",
        )


def _uneven_labels(fit: "Fitness") -> Iterator[Finding]:
    totals: dict[tuple[str, str], int] = {}
    labels = [
        each
        for each in fit.drift.shares
        if each.what == "label" and not each.name.endswith(f": {UNKNOWN}")
    ]
    for shares in labels:
        for split, rows in shares.rows.items():
            key = (shares.name.split(":")[0], split)
            totals[key] = totals.get(key, 0) + rows
    for shares in labels:
        task = shares.name.split(":")[0]
        train, unseen = totals[task, "train"], totals[task, "validation"]
        if not train or not unseen:
            continue
        share = shares.rows["train"] / train
        gap = abs(shares.rows["validation"] / unseen - share)
        by_chance = (share * (1.0 - share) / unseen) ** 0.5
        if gap > max(SHARE_GAP, (STANDARD_ERRORS + 1.0) * by_chance):
            yield Finding(
                Severity.WARNING,
                f"the label {shares.name} is {share:.0%} of training but "
                f"{shares.rows['validation'] / unseen:.0%} of validation",
                gap,
                "build again with another seed, or with labels known in all files",
            )


_RULES = (
    _empty_splits,
    _copies,
    _hopeless,
    _compression,
    _diversity,
    _isotropy,
    _drift,
    _shrinking,
    _unreadable,
    _uneven_labels,
    _missing_corpora,
    _few_groups,
    _unlabelled,
)
