"""What `cubeopt study show` prints: the trials, the winner or the front, the baselines."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cubeopt.cli.printing import cell, say, table

if TYPE_CHECKING:
    from cubeopt.report.ranking import Best
    from cubeopt.report.summary import Records, Summary
    from cubeopt.service.revising import Revised


def rows(found: "Records") -> list[dict[str, Any]]:
    """A row for each run, judged as its study says."""
    from cubeopt.report import summary

    return summary.trial_rows(found.trials, found.runs, found.attempts, found.goal, found.measured)


def budgets(found: "Records") -> list[dict[str, Any]]:
    return [
        {"name": each.name, "limit": each.limit, "used": each.used, "left": each.left}
        for each in found.budgets
    ]


def print_trials(found: "Records", short: "Summary") -> None:
    say(f"study {short.name}: {short.state}" + _because(short.state_reason))
    data = short.dataset
    say(
        f"dataset {data['name']} ({data['fingerprint'][:12]}): {data['train_rows']} train, "
        f"{data['validation_rows']} validation, {data['test_rows']} test rows"
    )
    for each in found.budgets:
        say(str(each))
    for line in found.past.lines():
        say(line)
    shown = rows(found)
    if not shown:
        say("no trials yet; start a worker with: cubeopt worker --gpu 0   (or --cpu)")
        return
    titles = {"number": "trial", "kind": "run", "state": "state", "epoch": "epoch"}
    titles["value"] = short.metric
    if short.second:
        titles["second_value"] = short.second
    if short.constraints:
        titles["feasible"] = "feasible"
    if any(row["replicate"] for row in shown):
        titles["replicate"] = "replicate"
    if any(row["attempts"] > 1 for row in shown):
        titles["attempts"] = "attempts"
    searched = _in_order({name for trial in found.trials for name in trial.params})
    counted = ", ".join(f"{count} {state}" for state, count in short.trials.items() if count)
    table(
        f"trials: {counted}",
        [*titles.values(), *searched],
        [[row.get(key) for key in (*titles, *searched)] for row in shown],
        expendable=len(searched),
    )
    factor = found.study.spec.get("promotion", {}).get("reduction_factor")
    complete = short.trials["complete"]
    if factor is not None and complete < factor:
        say(
            f"no trial is promoted: promotion.reduction_factor takes one in {factor:g} that are "
            f"complete, and {complete or 'none'} {'is' if complete < 2 else 'are'}"
        )


def print_revised(done: "Revised") -> None:
    """What a revision changed, and what becomes of the trials and the study."""
    say(f"study {done.study}: revised {', '.join(done.changed)}")
    if {"search", "sampler"} & set(done.changed):
        known = done.fitting + done.outside
        say(f"{done.fitting} of the {known} trials asked for before teach the sampler")
        if done.waiting_outside:
            numbers = ", ".join(map(str, done.waiting_outside))
            say(
                f"outside the new space, but waiting to be trained: {numbers} (end one with: "
                f"cubeopt trial prune {done.study} NUMBER)"
            )
    if done.state != done.state_before:
        say(f"it was {done.state_before} and is {done.state} again")
    elif done.state == "complete":
        say("it stays complete: nothing is left to do, or a budget is spent")
    elif done.state != "running":
        say(f"it is {done.state}; go on with: cubeopt study resume {done.study}")


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def print_best(short: "Summary") -> None:
    """The winner beside the baselines, on the same validation split."""
    if short.constraints:
        say(f"constraints: {', '.join(short.constraints)}")
    if short.second:
        _print_front(short)
    else:
        _print_winner(short)
    _print_seeds(short)
    _print_values(short)
    for metric, told in (
        (None, short.short_and_full),
        (short.second, short.second_short_and_full),
    ):
        if told is not None and told.spearman is not None:
            of = f" by {metric or short.metric}" if short.second else ""
            pairs = f"{told.pairs} trials"
            say(f"rank correlation of short and full runs{of}: {told.spearman:.2f} over {pairs}")


def _print_winner(short: "Summary") -> None:
    best = short.best
    rows: list[list[Any]] = []
    if best is not None:
        rows.append([_run_label(best, "best: "), best.value, best.test_value])
    rows += [[label, value, None] for label, value, _ in _baseline_rows(short)]
    table(
        f"{short.metric} ({_arrow(short.direction)} is better)",
        ["", "validation", "test"],
        [row for row in rows if row[1] is not None],
    )


def _print_front(short: "Summary") -> None:
    """The runs that no other is better than in both, beside the baselines."""
    assert short.second_direction is not None
    rows: list[list[Any]] = [
        [_run_label(run), run.value, run.second_value, run.test_value] for run in short.front
    ]
    rows += [[*row, None] for row in _baseline_rows(short) if row[1:] != [None, None]]
    table(
        f"the front of {short.metric} ({_arrow(short.direction)} is better) and {short.second} "
        f"({_arrow(short.second_direction)} is better)",
        ["", short.metric, str(short.second), f"{short.metric}, test"],
        rows,
    )


def _print_seeds(short: "Summary") -> None:
    """Each promoted trial by the first metric, where some have several seeds."""
    if all(each.seeds == 1 for each in short.replicates):
        return
    columns = ["trial", "seeds", "complete", "mean", "spread", "test", "not in the mean"]
    values = [
        [
            *(each.trial, each.seeds, each.complete, each.value, each.spread),
            *(each.test_value, each.missing or None),
        ]
        for each in short.replicates
    ]
    shown = len(columns) if any(each.missing for each in short.replicates) else len(columns) - 1
    table(
        "promoted trials over their seeds" + (f": {short.metric}" if short.second else ""),
        columns[:shown],
        [row[:shown] for row in values],
    )


def _print_values(short: "Summary") -> None:
    """What the best trial is made of, or how to get it of a front."""
    if short.front:
        say(f"export one with: cubeopt study export {short.name} --trial {short.front[0].trial}")
    if best := short.best:
        values = [f"{name} {cell(best.params[name])}" for name in _in_order(best.params)]
        say(f"the best trial's values: {', '.join(values)}")


def _run_label(best: "Best", before: str = "") -> str:
    over = f", mean of {best.seeds} seeds" if best.seeds > 1 else ""
    return f"{before}trial {best.trial}, {best.kind} run of {best.epochs} epochs{over}"


def _arrow(direction: str) -> str:
    return "lower" if direction == "minimize" else "higher"


def _baseline_rows(short: "Summary") -> list[list[Any]]:
    """Label, first and second value of each."""
    first, second = short.baselines, short.baselines.get("second", {})
    width = first["pca_width"] or second.get("pca_width")
    names = {
        "mean": "predict the mean",
        "identity": "copy the input",
        "pca": f"PCA to {width} numbers",
    }
    return [[label, first[key], second.get(key)] for key, label in names.items()]


def _in_order(names: Iterable[str]) -> list[str]:
    """*names* as configurations order them; the database does not keep the order of a file."""
    from cubeopt.trial import TrialSpec

    known = list(TrialSpec().flat())
    return sorted(names, key=known.index)
