"""What was not trained by the same code, torch and kind of device is named."""

from dataclasses import replace
from typing import Any

from cubeopt.db.records import AttemptRecord
from cubeopt.db.tables import RunState
from cubeopt.report.origins import unlike, unlike_attempts
from cubeopt.report.story import story as told
from cubeopt.report.summary import summarize

from .test_story import WORKERS


def attempts(story: Any, *changes: dict[str, Any]) -> list[AttemptRecord]:
    """One attempt a trial, each on its own device and with its own provenance."""
    for number in range(len(changes)):
        story.short(number, [0.9], RunState.COMPLETE)
    story.attempts[:] = [
        replace(each, device=change.pop("device", "cpu"), provenance=change)
        for each, change in zip(story.attempts, changes, strict=True)
    ]
    found: list[AttemptRecord] = story.attempts
    return found


def test_equal_source_files_are_equal_code_whatever_the_commit(story: Any) -> None:
    versions = ("0.1.0+aaaa+src.1", "0.1.0+src.1", "0.1.0+bbbb+dirty.2+src.1")
    assert unlike(attempts(story, *({"code_version": each} for each in versions))) == []


def test_each_difference_is_a_line_that_names_its_trials_the_fewest_first(story: Any) -> None:
    one = {"code_version": "0.1.0+aaaa+src.1", "torch_version": "2.13.0"}
    other = {"code_version": "0.1.0+bbbb+src.2", "torch_version": "2.13.0"}
    old = {**one, "torch_version": "2.12.0"}
    found = attempts(story, dict(one), dict(other), dict(one), old)
    assert unlike(found) == [
        "unlike trials, by 2 versions of the code: 0.1.0+bbbb+src.2: trial 1; "
        "0.1.0+aaaa+src.1: trials 0, 2 and 3",
        "unlike trials, by 2 versions of torch: 2.12.0: trial 3; 2.13.0: trials 0, 1 and 2",
    ]
    records = story.records()
    short = summarize(records.study, records.trials, records.runs, attempts=records.attempts)
    assert short.warnings[-2:] == unlike(found)


def test_devices_of_one_model_are_of_one_kind(story: Any) -> None:
    hopper = "NVIDIA H100 80GB HBM3"
    found = attempts(
        story,
        {"device": f"cuda:0 {hopper}", "hardware": {"cpu": "one"}},
        {"device": f"cuda:3 {hopper}", "hardware": {"cpu": "two"}},
        {"device": "cpu", "hardware": {"cpu": "one"}},
        {"device": "cpu", "hardware": {"cpu": "two"}},
    )
    assert unlike(found[:2]) == []
    assert unlike(found) == [
        "unlike trials, by 3 kinds of device: cpu (one): trial 2; cpu (two): trial 3; "
        f"{hopper}: trials 0 and 1"
    ]


def test_a_trial_whose_attempts_differ_says_which(story: Any) -> None:
    story.short(0, [0.9], RunState.COMPLETE, attempts=2).full(0, [0.8], RunState.COMPLETE)
    versions = ("2.12.0", "2.13.0", "2.13.0")
    story.attempts[:] = [
        replace(each, provenance={"torch_version": version})
        for each, version in zip(story.attempts, versions, strict=True)
    ]
    row = told(story.records(), 0, WORKERS)
    assert row["unlike"] == unlike_attempts(story.attempts)
    assert row["unlike"] == [
        "unlike attempts, by 2 versions of torch: 2.12.0: short 1; 2.13.0: short 2, full 1"
    ]
    assert [each["torch"] for each in row["attempts"]] == list(versions)
