"""Studies through the command line: made, looked at, exported, and every way to get it wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cli = Callable[..., Any]
SEARCHED = (
    *("state_size", "lattice_steps", "reconstruction_weight", "similarity_weight"),
    *("diversity_weight", "emergence_weight", "learning_rate"),
)


def test_a_study_is_created_once_and_accepted_again_on_request(
    cli: Cli, home: Path, study_file: Path
) -> None:
    made = cli("study", "create", study_file, "--json").json
    assert (made["name"], made["created"], made["state"], made["trials"]) == (
        *("tiny", True, "running", 6),
    )
    again = cli("study", "create", study_file)
    assert (again.code, again.out, again.err.count("\n")) == (2, "", 1)
    assert "'tiny' exists already" in again.err
    assert "--exist-ok" in again.err
    accepted = cli("study", "create", study_file, "--exist-ok", "--json")
    assert accepted.json == {**made, "created": False}
    other = cli("study", "create", study_file, "--name", "other")
    assert (other.code, other.out.splitlines()[0]) == (0, "name                 other")
    assert [row["name"] for row in cli("study", "list", "--json").json] == ["tiny", "other"]


def test_what_a_sampler_will_not_do_is_told_when_the_study_is_made(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any]
) -> None:
    points = {"learning_rate": 2, "similarity_weight": 2}
    tiny_study["sampler"] = {"name": "grid", "points": points}
    study_file.write_text(yaml.safe_dump(tiny_study))
    said = "the grid has 4 points, budget.trials is 6: the study ends with the grid"
    assert f"note: {said}\n" in cli("study", "create", study_file).out
    made = cli("study", "create", study_file, "--name", "other", "--json").json
    assert (made["trials"], made["notes"]) == (4, [said])
    assert "0 of 4" in cli("study", "list").out


def test_another_file_under_the_same_name_is_refused(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any]
) -> None:
    assert cli("study", "create", study_file).code == 0
    study_file.write_text(yaml.safe_dump({**tiny_study, "budget": {"trials": 7}}))
    for option in ([], ["--exist-ok"]):
        ran = cli("study", "create", study_file, *option)
        assert ran.code == 2
        assert "from another file" in ran.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"serch": {}}, "unknown key 'serch'; did you mean 'search'?"),
        ({"search": {}}, "search: "),
        ({"search": {"learning_rat": {"low": 0.1, "high": 1.0}}}, "did you mean 'learning_rate'"),
        ({"search": {"learning_rate": {"low": 1.0, "high": 0.1}}}, "learning_rate: empty range"),
        ({"search": {"learning_rate": {"low": "a", "high": 1.0}}}, "search.learning_rate.low: "),
        ({"search": {"learning_rate": 3}}, "search.learning_rate: "),
        ({"search": {"state_size": {"choices": [4]}}}, "search.state_size: choices need at least"),
        ({"base": {"epochs": "ten"}}, "base: epochs: Input should be a valid integer (got 'ten')"),
        ({"base": {"epochz": 3}}, "base: unknown key 'epochz'; did you mean 'epochs'?"),
        ({"budget": {"trials": 0}}, "budget.trials: Input should be greater than or equal to 1"),
        (
            {"sampler": {"name": "qmc", "scrambel": True}},
            "sampler: qmc has no option 'scrambel'; did",
        ),
        ({"name": "../x"}, "name: String should match pattern"),
    ],
)
def test_a_mistake_in_a_study_file_is_one_line_naming_file_key_and_rule(
    cli: Cli,
    home: Path,
    study_file: Path,
    tiny_study: dict[str, Any],
    change: dict[str, Any],
    said: str,
) -> None:
    study_file.write_text(yaml.safe_dump({**tiny_study, **change}))
    ran = cli("study", "create", study_file)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"cubeopt: {study_file}: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: [1\n", "line 2"),
        (b"", "expected a mapping"),
        (b"- a\n", "expected a mapping"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"name: a\nname: b\n", "line 2 key 'name' stands there twice"),
        (b"!!python/object/apply:os.abort []\n", "could not determine a constructor"),
        (None, "No such file or directory"),
        ("folder", "Is a directory"),
    ],
)
def test_a_file_that_is_no_study_is_one_line(
    cli: Cli, home: Path, tmp_path: Path, content: bytes | str | None, said: str
) -> None:
    file = tmp_path / "study.yaml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.mkdir()
    ran = cli("study", "create", file)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert str(file) in ran.err
    assert said in ran.err


def test_a_study_without_its_dataset_says_how_to_make_it(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any]
) -> None:
    tiny_study["base"]["dataset"] = "nowhere"
    study_file.write_text(yaml.safe_dump(tiny_study))
    ran = cli("study", "create", study_file)
    assert ran.code == 2
    assert "cubeopt data build" in ran.err
    assert cli("study", "list", "--json").json == []


@pytest.mark.parametrize("command", ["show", "export", "figure"])
def test_an_unknown_study_is_one_line_with_a_guess(cli: Cli, finished: Any, command: str) -> None:
    ran = cli("study", command, "tinny")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "cubeopt: there is no study named 'tinny'; did you mean 'tiny'?\n"


def test_before_any_trial_show_says_what_to_do_and_export_refuses(
    cli: Cli, home: Path, study_file: Path
) -> None:
    assert cli("study", "list").out.startswith("no studies yet")
    cli("study", "create", study_file)
    shown = cli("study", "show", "tiny")
    assert shown.code == 0
    assert "no trials yet; start a worker with: cubeopt worker" in shown.out
    assert "predict the mean" in shown.out
    ran = cli("study", "export", "tiny")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "no trial has completed yet" in ran.err
    assert not (home / "exports").exists()


def test_show_as_json_has_the_promised_keys(cli: Cli, finished: Any) -> None:
    shown = cli("study", "show", "tiny", "--json").json
    assert {"name", "state", "trials", "promotions", "best", "metric", "baselines"} <= set(shown)
    assert (shown["name"], shown["state"], shown["metric"]) == ("tiny", "complete", "fvu")
    assert list(shown["trials"]) == ["waiting", "running", "complete", "pruned", "failed"]
    assert sum(shown["trials"].values()) == 5
    (promoted,) = shown["promotions"]
    assert {"trial", "state", "epochs", "value"} <= set(promoted)
    assert (promoted["state"], promoted["epochs"]) == ("complete", 4)
    assert {"trial", "value", "test_value", "params"} <= set(shown["best"])
    assert set(shown["best"]["params"]) == set(SEARCHED)
    assert shown["best"]["value"] == promoted["value"]
    assert set(shown["baselines"]) == {"mean", "identity", "pca", "pca_width"}
    assert (shown["baselines"]["identity"], shown["baselines"]["pca_width"]) == (None, 4)
    assert {"fingerprint", "train_rows", "validation_rows", "test_rows"} <= set(shown["dataset"])


def test_show_tells_what_budgets_have_left(cli: Cli, finished: Any) -> None:
    assert "budget.trials is spent: 5 of 5 used\n" in cli("study", "show", "tiny").out
    told = cli("study", "show", "tiny", "--json").json["budgets"]
    assert told == [{"name": "trials", "limit": 5.0, "used": 5.0, "left": 0.0}]


def test_a_study_without_a_number_of_trials_is_made_and_says_what_that_means(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any]
) -> None:
    budget = {"epochs": 9, "hours": 2, "device_hours": 0.5}
    study_file.write_text(yaml.safe_dump({**tiny_study, "budget": budget}))
    made = cli("study", "create", study_file, "--json").json
    assert (made["trials"], {name: made[name] for name in budget}) == (None, budget)
    (note,) = made["notes"]
    assert note.startswith("promotion.top waits for the end of all trials, and without budget.tr")
    shown = cli("study", "show", "tiny").out
    for line in (
        *("budget.epochs: 0 of 9 used, 9 left", "budget.hours: 0 of 2 used, 2 left"),
        "budget.device_hours: 0 of 0.5 used, 0.5 left",
    ):
        assert f"{line}\n" in shown
    listed = cli("study", "list").out.splitlines()[-1].split()
    assert listed[:5] == ["tiny", "running", "0", "0", "fvu"]


def test_show_says_why_no_trial_was_promoted(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any], spawn: Any
) -> None:
    changes = {"budget": {"trials": 1}, "promotion": {"reduction_factor": 2.5}}
    study_file.write_text(yaml.safe_dump({**tiny_study, **changes}))
    assert cli("study", "create", study_file).code == 0
    assert spawn("worker", "--cpu", "--until-done").finish().code == 0
    said = "promotion.reduction_factor takes one in 2.5 that are complete, and 1 is\n"
    assert f"no trial is promoted: {said}" in cli("study", "show", "tiny").out


def test_over_seeds_everything_is_told_by_their_mean(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any], spawn: Any
) -> None:
    changes = {"budget": {"trials": 2}, "promotion": {"top": 1, "seeds": 2}}
    study_file.write_text(yaml.safe_dump({**tiny_study, **changes}))
    assert cli("study", "create", study_file).code == 0
    worked = spawn("worker", "--cpu", "--pack", "2", "--until-done").finish()
    assert worked.code == 0, worked.err
    told = cli("study", "show", "tiny", "--json").json
    values = [each["value"] for each in told["promotions"]]
    (over,) = told["replicates"]
    assert over["value"] == told["best"]["value"] == pytest.approx(sum(values) / 2)
    assert over["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert (over["seeds"], over["complete"], told["best"]["seeds"]) == (2, 2, 2)
    shown = cli("study", "show", "tiny").out
    assert "full run of 6 epochs, mean of 2 seeds" in shown
    assert "promoted trials over their seeds" in shown
    number = str(told["best"]["trial"])
    seeds = [each["seed"] for each in told["promotions"]]
    assert f"full run of trial {number} with seed {seeds[1]} complete" in worked.err
    story = cli("trial", "show", "tiny", number).out
    assert [line.split()[1:3] for line in story.splitlines() if line.startswith("full ")][:2] == [
        ["0", str(seeds[0])],
        ["1", str(seeds[1])],
    ]
    assert cli("study", "figure", "tiny").code == 0
    exported = cli("study", "export", "tiny", "--json").json
    origin = yaml.safe_load(Path(exported["file"]).read_text())["provenance"]
    assert (origin["value"], origin["over_seeds"]["mean"]) == (values[0], over["value"])


@pytest.mark.parametrize("columns", ["80", "200", None])
def test_show_has_a_line_for_each_run_at_any_width(
    cli: Cli, finished: Any, monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    shown = cli("study", "show", "tiny").out.splitlines()
    table = shown[2 : next(at for at, line in enumerate(shown) if line.startswith("fvu ("))]
    runs = [line.split() for line in table if line.split()[1] in ("short", "full")]
    assert [run[0] for run in runs if run[1] == "short"] == ["0", "1", "2", "3", "4"]
    assert [run[1] for run in runs].count("full") == 1
    note = [line for line in table if line.startswith("not shown in 80 columns: ")]
    left_out = [name for name in SEARCHED if note and name in note[0]]
    assert bool(left_out) == (columns == "80")
    assert {len(run) for run in runs} == {5 + len(SEARCHED) - len(left_out)}
    if columns == "80":
        assert max(len(line.rstrip()) for line in table if line not in note) <= 80
    best = next(line for line in shown if line.startswith("the best trial's values: "))
    assert all(f"{name} " in best for name in SEARCHED)


def test_show_puts_the_baselines_beside_the_best(cli: Cli, finished: Any) -> None:
    shown = cli("study", "show", "tiny").out
    facts = cli("study", "show", "tiny", "--json").json
    assert "fvu (lower is better)" in shown
    (best,) = (line for line in shown.splitlines() if line.startswith("best: trial "))
    assert f"{facts['best']['test_value']:.4f}" in best
    assert "PCA to 4 numbers" in shown
    assert "copy the input" not in shown  # says nothing where the input is the target


def test_list_counts_what_has_ended(cli: Cli, finished: Any) -> None:
    header, row = cli("study", "list").out.splitlines()[1:]
    assert header.split() == ["name", "state", "ended", "failed", "metric", "best", "created"]
    assert row.split()[:6] == ["tiny", "complete", "5", "of", "5", "0"]
    (facts,) = cli("study", "list", "--json").json
    assert (facts["budget"], sum(facts["trials"].values())) == (5, 5)
    assert facts["best"] == cli("study", "show", "tiny", "--json").json["best"]["value"]


def test_export_writes_where_it_says(cli: Cli, finished: Any, tmp_path: Path) -> None:
    said = cli("study", "export", "tiny", "--json").json
    assert said["file"] == str(finished.home / "exports" / "tiny.yaml")
    content = yaml.safe_load(Path(said["file"]).read_text())
    assert set(content) == {"real_training", "provenance"}
    assert set(SEARCHED) <= set(content["real_training"])
    assert content["provenance"]["value"] == said["value"]
    other = tmp_path / "new" / "best.yaml"
    assert cli("study", "export", "tiny", "-o", other).code == 0
    assert yaml.safe_load(other.read_text())["real_training"] == content["real_training"]


def test_trials_that_lack_a_value_are_shown_drawn_and_exported_with_that_of_the_base(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any], spawn: Any
) -> None:
    threshold = {"low": 0.1, "high": 0.5, "when": {"halting": ["threshold"]}}
    content = {
        **tiny_study,
        "base": {**tiny_study["base"], "halting_threshold": 0.25},
        "search": {"halting": {"choices": ["fixed", "threshold"]}, "halting_threshold": threshold},
        "sampler": {"name": "grid", "points": {"halting_threshold": 2}},
        "rungs": {"epochs": [1, 2], "rule": "none"},
    }
    study_file.write_text(yaml.safe_dump(content))
    assert cli("study", "create", study_file).code == 0
    worked = spawn("worker", "--cpu", "--pack", "2", "--until-done").finish()
    assert worked.code == 0, worked.err
    shown = cli("study", "show", "tiny", "--json").json
    rows = [row for row in shown["runs"] if row["kind"] == "short"]
    tried = sorted((row["halting"], row.get("halting_threshold")) for row in rows)
    assert tried == [("fixed", None), ("threshold", 0.1), ("threshold", 0.5)]
    shown_rows = [line.split() for line in cli("study", "show", "tiny").out.splitlines()]
    assert next(row[-2:] for row in shown_rows if row[-2:-1] == ["fixed"]) == ["fixed", "-"]
    assert cli("study", "figure", "tiny").code == 0
    file = cli("study", "export", "tiny", "--json").json["file"]
    section = yaml.safe_load(Path(file).read_text())["real_training"]
    best = shown["best"]["params"]
    assert section["halting"] == best["halting"]
    assert section["halting_threshold"] == best.get("halting_threshold", 0.25)


@pytest.mark.parametrize("command", ["export", "figure"])
@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere/x", "folder"])
def test_a_place_that_cannot_be_written_is_one_line(
    cli: Cli, finished: Any, tmp_path: Path, command: str, place: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "tiny.html").mkdir(parents=True)
    ran = cli("study", command, "tiny", "-o", tmp_path / place)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("cubeopt: cannot write ")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["tiny.html"]


def test_the_figure_is_a_page_and_a_picture(cli: Cli, finished: Any, tmp_path: Path) -> None:
    said = cli("study", "figure", "tiny", "-o", tmp_path, "--json").json
    assert "<html" in Path(said["html"]).read_text()[:200]
    assert Path(said["png"]).read_bytes().startswith(b"\x89PNG")


def test_plan_says_what_a_study_will_cost_and_writes_nothing(
    cli: Cli, home: Path, study_file: Path
) -> None:
    before = sorted(home.rglob("*"))
    ran = cli("study", "plan", study_file, "--cpu", "--workers", "2", "--json")
    assert ran.code == 0, ran.err
    plan = ran.json
    assert (plan["study"], plan["workers"]) == ("tiny", 2)
    assert 0 < plan["epochs_short_pruned"] <= plan["epochs_short_unpruned"]
    (shape,) = plan["shapes"]
    assert shape["values"] == {}
    epochs = plan["epochs_short_pruned"] + plan["epochs_full"]
    assert plan["hours"] == pytest.approx(epochs * shape["epoch_seconds"] / 2 / 3600, rel=1e-2)
    assert sorted(home.rglob("*")) == before
    assert cli("study", "list", "--json").json == []


def test_plan_says_which_budget_is_spent_first_and_what_it_has_room_for(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any]
) -> None:
    changes = {"budget": {"epochs": 30}, "rungs": {"epochs": [3], "rule": "none"}}
    study_file.write_text(yaml.safe_dump({**tiny_study, **changes}))
    plan = cli("study", "plan", study_file, "--cpu", "--json").json
    assert (plan["trials"], plan["ends_with"]) == (10, "budget.epochs")
    assert (plan["epochs_short_pruned"], plan["epochs_full"]) == (30.0, 0.0)
    changes["budget"] = {"trials": 10**6, "device_hours": 0.5}
    study_file.write_text(yaml.safe_dump({**tiny_study, **changes}))
    plan = cli("study", "plan", study_file, "--cpu", "--workers", "5", "--json").json
    assert plan["ends_with"] == "budget.device_hours"
    assert plan["hours"] == pytest.approx(0.1, rel=1e-2)
    assert 0 < plan["trials"] < 10**6


def test_plan_is_told_to_a_person_in_words(cli: Cli, home: Path, study_file: Path) -> None:
    ran = cli("study", "plan", study_file, "--cpu")
    assert ran.code == 0, ran.err
    assert "without pruning" in ran.out
    assert "the base's" in ran.out


def test_plan_needs_a_device_and_a_dataset(cli: Cli, home: Path, study_file: Path) -> None:
    assert "either --gpu N or --cpu" in cli("study", "plan", study_file).err
    missing = study_file.read_text().replace("dataset: tiny", "dataset: elsewhere")
    study_file.write_text(missing)
    ran = cli("study", "plan", study_file, "--cpu")
    assert ran.code == 2
    assert "elsewhere" in ran.err


def test_two_objectives_and_a_constraint_through_the_commands(
    cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any], spawn: Any, tmp_path: Path
) -> None:
    tiny_study["search"] = {
        "learning_rate": {"low": 1e-2, "high": 2e-2},
        "state_size": {"choices": [4, 8, 16]},
    }
    tiny_study |= {
        "objective": {"metrics": ["fvu", "parameters"]},
        "constraints": ["usage_min >= 0.01"],
        "sampler": {"name": "grid", "points": {"learning_rate": 2}},
        "rungs": {"epochs": [1], "rule": "none"},
    }
    study_file.write_text(yaml.safe_dump(tiny_study))
    created = cli("study", "create", study_file)
    assert "a front" not in cli("study", "list").out
    assert "metric               fvu (minimize), parameters (minimize)\n" in created.out
    assert "constraints          usage_min >= 0.01\n" in created.out
    assert spawn("worker", "--cpu", "--pack", "2", "--until-done").finish().code == 0
    said = cli("study", "show", "tiny", "--json").json
    front = said["front"]
    assert len(front) >= 2  # the smallest cubes, and what they do not reach
    assert said["best"] is None
    shown = cli("study", "show", "tiny").out
    assert "the front of fvu (lower is better) and parameters (lower is better)\n" in shown
    assert "constraints: usage_min >= 0.01\n" in shown
    assert f"export one with: cubeopt study export tiny --trial {front[0]['trial']}\n" in shown
    (row,) = cli("study", "list", "--json").json
    assert (row["metric"], row["second"], row["best"], row["front"]) == (
        *("fvu", "parameters", None, len(front)),
    )
    assert f"a front of {len(front)}" in cli("study", "list").out

    out = tmp_path / "best.yaml"
    refused = cli("study", "export", "tiny", "-o", out)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert refused.err.startswith(
        f"cubeopt: study tiny has {len(front)} best runs, a front of fvu and parameters; say which "
        f"with --trial N: {front[0]['trial']} (fvu "
    )
    assert not out.exists()
    chosen = front[-1]
    told = cli("study", "export", "tiny", "--trial", str(chosen["trial"]), "-o", out, "--json")
    assert (told.json["trial"], told.json["value"]) == (chosen["trial"], chosen["value"])
    content = yaml.safe_load(out.read_text())
    assert content["provenance"]["judged_by"]["parameters"] == chosen["second_value"]
    assert content["real_training"]["state_size"] == 4

    story = cli("trial", "show", "tiny", str(chosen["trial"]))
    assert "usage_min >= 0.01" in story.out
    assert "second_value" in story.out
    assert cli("study", "figure", "tiny", "-o", tmp_path).code == 0
    assert "weights of one trial" in (tmp_path / "tiny.html").read_text()


def test_an_export_of_a_named_trial_is_that_trial(cli: Cli, finished: Any, tmp_path: Path) -> None:
    shown = cli("study", "show", "tiny", "--json").json
    short = [r for r in shown["runs"] if r["kind"] == "short" and r["state"] == "complete"]
    last = short[-1]["number"]
    newest = [r for r in shown["runs"] if r["number"] == last][-1]
    told = cli("study", "export", "tiny", "--trial", str(last), "-o", tmp_path / "a.yaml", "--json")
    assert (told.json["trial"], told.json["value"]) == (last, newest["value"])
    missing = cli("study", "export", "tiny", "--trial", "77", "-o", tmp_path / "a.yaml")
    assert (missing.code, missing.err) == (
        2,
        "cubeopt: study 'tiny' has no trial 77; it has 0 to 4\n",
    )
