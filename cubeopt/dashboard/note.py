"""The note that a study has in Optuna's dashboard until a person writes another."""

import re
from urllib.parse import quote

from cubeopt.report import baselines
from cubeopt.report.material import Material
from cubeopt.report.summary import Summary
from cubeopt.search import configuration, export

# A browser draws each trial's values after its epochs as a curve of its own, all on one page: with
# 5,000 of them that took it 20 seconds. So only so many trials of a study of ours have theirs.
CURVES = 200

_SPLITS = ("train", "validation", "test")


def of(found: Material, short: Summary) -> str:
    """Markdown: where our pages are, state and result, data, budget, warnings, the study's file.

    Whatever came from a person stands in code, where neither Markdown nor HTML means anything.
    """
    file = configuration.text(export.study_file(found.study.spec))
    lines = [_pages(short.name), "", *_facts(found, short), ""]
    lines += [f"- ⚠ {_code(each)}" for each in short.warnings]
    return "\n".join([*lines, "", "**The study's file**", "", _block(file)])


def _pages(name: str) -> str:
    address = f"/studies/{quote(name, safe='')}"
    return (
        f"Live pages: [study]({address}) · [training]({address}/training) · "
        f"[cube]({address}/cube) · [workers](/workers)"
    )


def _facts(found: Material, short: Summary) -> list[str]:
    state = f"{short.state}: {short.state_reason}" if short.state_reason else short.state
    data = short.dataset
    rows = ", ".join(f"{data[f'{split}_rows']:,} {split}" for split in _SPLITS)
    facts = {
        "state": state,
        "result": _result(short),
        "baselines": ", ".join(f"{label} {value:.4f}" for label, value in baselines.named(short)),
        "data": f"{data['name']} ({rows} rows), fingerprint {data['fingerprint'][:12]}",
        "budget": "; ".join(map(str, found.budgets)),
        "learning curves": _curves(found),
    }
    return [f"- **{name}**: {_code(text)}" for name, text in facts.items() if text]


def _result(short: Summary) -> str:
    if short.front:
        return f"a front of {len(short.front)} trials in {short.metric} and {short.second}"
    if short.best is None:
        return "none yet"
    best = short.best
    tested = "" if best.test_value is None else f", {best.test_value:.4f} on the test split"
    return f"trial {best.trial}, {short.metric} {best.value:.4f}{tested} ({best.kind} run)"


def _curves(found: Material) -> str:
    drawn = sum(1 for run in found.short if run.id in found.courses)
    if drawn <= CURVES or found.goal.objective.second is not None:
        return ""
    return (
        f"here of the {CURVES} trials of {drawn:,} that came farthest; of all of them in training"
    )


def _code(text: str) -> str:
    """*text* as it is, in one line."""
    line = " ".join(text.split())
    fence = "`" * (_longest(line) + 1)
    return f"{fence} {line} {fence}"


def _block(text: str) -> str:
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def _longest(text: str) -> int:
    """The longest row of backticks in *text*."""
    return max(map(len, re.findall("`+", text)), default=0)
