"""What happened, in one line, for a person who reads it in a chat."""

from collections.abc import Mapping
from typing import Any

from cubeopt.db.tables import Kind

_LONGEST = 500  # characters
_BASELINES = {"mean": "predict-the-mean", "pca": "PCA"}


def line(kind: Kind, study: str | None, facts: Mapping[str, Any]) -> str:
    """One line; what Slack would take for markup (&, <, >) is escaped as Slack wants it."""
    said = _LINES[kind](study, facts)
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    said = said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ended(study: str | None, facts: Mapping[str, Any]) -> str:
    reason = f": {facts['reason']}" if facts.get("reason") else ""
    best = _best(facts, beside=True)
    return f"cubeopt: study {study} is {facts['state']}{reason}{f'; {best}' if best else ''}"


def _new_best(study: str | None, facts: Mapping[str, Any]) -> str:
    if "front" in facts:
        return f"cubeopt: study {study}: {_new_on_front(facts)}"
    before = _best(facts.get("before") or {})
    return f"cubeopt: study {study}: {_best(facts, True)}{f'; before: {before}' if before else ''}"


def _new_on_front(facts: Mapping[str, Any]) -> str:
    known = {each["trial"] for each in (facts.get("before") or {}).get("front", ())}
    new = [
        f"trial {each['trial']} ({each['metric']} {each['value']:.4g}, {each['second']} "
        f"{each['second_value']:.4g})"
        for each in facts["front"]
        if each["trial"] not in known
    ]
    joined = f", new there {', '.join(new)}" if new else ", of better values"
    return _best(facts) + joined


def _best(facts: Mapping[str, Any], beside: bool = False) -> str:
    """The best, *beside* the baselines if wished; or the size of the front."""
    if front := facts.get("front"):
        return f"a front of {len(front)} trial{'s' * (len(front) != 1)}"
    best = facts.get("best")
    if not best:
        return ""
    seeds = f" over {best['seeds']} seeds" if best["seeds"] > 1 else ""
    return (
        f"best is trial {best['trial']}, {best['metric']} {best['value']:.4g}{seeds}"
        f"{_baselines(best) if beside else ''}, {best['kind']} run of {best['epochs']} epochs"
    )


def _baselines(best: Mapping[str, Any]) -> str:
    given = {name: best["baselines"].get(name) for name in _BASELINES}
    said = [f"{_BASELINES[name]} {value:.4g}" for name, value in given.items() if value is not None]
    return f" ({', '.join(said)})" if said else ""


def _lost(study: str | None, facts: Mapping[str, Any]) -> str:
    count = len(facts["runs"])
    held = f"; it held {count} run{'s' * (count != 1)}, which others take over" if count else ""
    return (
        f"cubeopt: worker {facts['worker']} on {facts['host']} ({facts['device']}) is lost: silent "
        f"for {facts['silent_seconds']:.0f} s{held}"
    )


_LINES = {
    Kind.STUDY_COMPLETE: _ended,
    Kind.STUDY_FAILED: _ended,
    Kind.STUDY_STOPPED: _ended,
    Kind.NEW_BEST: _new_best,
    Kind.WORKER_LOST: _lost,
}
