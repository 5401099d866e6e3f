import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cubeopt.data import dataset
from cubeopt.data.building import entries, unify
from cubeopt.data.building.unify import BuildOptions
from cubeopt.data.dataset import SPLITS, TASKS, Dataset
from cubeopt.data.reading import files, sources
from cubeopt.errors import DataError, StrictError
from cubeopt.trial import Task

BOTH = (Task.RECONSTRUCT, Task.DIALOGUE)


def build(paths: Path | list[Path], out: Path, **options: Any) -> unify.BuildReport:
    return unify.build([paths] if isinstance(paths, Path) else paths, out, BuildOptions(**options))


def side(held: Dataset, split: str) -> Tensor:
    """The numbers of every sentence of *split*, input or target, of any task."""
    rows = held.rows(held.tasks, split)
    return torch.cat([rows.source, rows.target]).unique()


def texts(rows: Tensor) -> set[bytes]:
    return {row.tobytes() for row in rows.numpy()}


def closest(held: Dataset) -> float:
    """The largest cosine of any two sentences of different splits, by brute force."""
    unit = normalize(held.embeddings.double(), dim=1)
    parts = [unit[side(held, split)] for split in SPLITS]
    return max(float((one @ other.T).max()) for one, other in combinations(parts, 2))


def usable(path: Path) -> list[Tensor]:
    source = sources.read(path)
    return [source.side(number, source.good) for number in range(len(source.sides))]


def lost(report: unify.BuildReport) -> dict[tuple[str, str], int | None]:
    return {(row.path.name, row.reason): row.rows for row in report.left_out}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "built" / "data"


@pytest.fixture
def folder_of_files(tmp_path: Path) -> Path:
    return tmp_path / "files"


def nearly(rows: Tensor, seed: int, size: float = 0.01) -> Tensor:
    """*rows* moved so little that their cosine to themselves is above 0.9995."""
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    return rows + size * noise / rows.shape[1] ** 0.5


@pytest.fixture
def mixed(
    folder_of_files: Path,
    save: Callable,
    save_dialogue: Callable,
    save_prepared: Callable,
    rows: Callable,
) -> Path:
    """Dialogues, labelled pairs, other pairs and lone sentences that share all there is to share.

    Exact: a greeting in every third dialogue, a whole dialogue twice, premises three times, a
    hypothesis on two premises, a sentence of a dialogue as a hypothesis, lone sentences of both.
    Near: a greeting, a premise in the other file of pairs, an answer, lone sentences.
    """
    greeting = rows(1, 9)
    for number in range(14):
        questions, answers = rows(5 + number, 100 + number), rows(5 + number, 200 + number)
        if number % 3 == 0:
            questions[0] = nearly(greeting, number)[0] if number % 2 else greeting[0]
        if number == 7:
            answers[3] = nearly(rows(6 + 5, 206)[4:5], 1)[0]
        save_dialogue(f"dialogue_{number}.pt", questions, answers)
    save_dialogue("dialogue_again.pt", rows(10, 105), rows(10, 205))
    premises = rows(40, 1).repeat_interleave(3, dim=0)
    hypotheses = rows(120, 2)
    hypotheses[30] = hypotheses[0]
    hypotheses[60:64] = rows(5, 100)[1:5]
    content = {"question_embeddings": premises, "answer_embeddings": hypotheses}
    save("nli.pt", {**content, "labels": torch.arange(120) % 3, "corpus": "snli"})
    questions = torch.cat([nearly(rows(40, 1)[:10], 5), rows(50, 4)])
    save_prepared("pairs.pt", questions, rows(60, 5))
    known = torch.cat(
        [greeting, premises[:1], nearly(premises[3:5], 6), nearly(rows(48, 3)[:4], 7)]
    )
    save("lone.pt", torch.cat([rows(48, 3), known]))
    return folder_of_files


@pytest.mark.parametrize("seed", range(6))
def test_no_text_and_nothing_near_it_stands_on_two_sides(mixed: Path, out: Path, seed: int) -> None:
    report = build(mixed, out, seed=seed)
    held = dataset.load(out)
    assert closest(held) < 0.999
    sides = [texts(held.embeddings[side(held, split)]) for split in SPLITS]
    assert not any(one & other for one, other in combinations(sides, 2))
    assert report.duplicates.near > 5
    assert report.duplicates.exact > 60


def test_the_planted_duplicates_would_cross_if_nothing_were_done_about_them(
    mixed: Path, out: Path
) -> None:
    build(mixed, out, near=None)
    assert closest(dataset.load(out)) > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_a_row_and_its_group_stand_in_one_split(mixed: Path, out: Path, seed: int) -> None:
    build(mixed, out, seed=seed)
    held = dataset.load(out)
    parts = [held.rows(held.tasks, split).group.unique() for split in SPLITS]
    assert len(torch.cat(parts).unique()) == sum(map(len, parts))
    groups = torch.cat(parts).sort().values
    assert torch.equal(groups, torch.arange(len(groups)))


def test_every_distinct_sentence_and_pair_is_there_once_or_counted(mixed: Path, out: Path) -> None:
    report = build(mixed, out, near=None)
    held = dataset.load(out)
    paths = files.find([mixed])
    distinct = texts(torch.cat([part for path in paths for part in usable(path)]))
    assert texts(held.embeddings) == distinct
    assert sum(report.counts["reconstruct"].values()) == len(distinct) == report.sentences
    pairs = sum(sources.read(path).rows for path in paths if path.name != "lone.pt")
    left_out = sum(row.rows or 0 for row in report.left_out if row.path.name != "lone.pt")
    rows = sum(sum(report.counts[task].values()) for task in ("dialogue", "nli"))
    assert rows == pairs - left_out
    assert lost(report)["lone.pt", entries.DUPLICATE] == 2
    assert lost(report)["dialogue_again.pt", entries.DUPLICATE] in (9, 10)
    assert not any(row.fault for row in report.left_out)


def test_of_near_sentences_the_first_by_content_stands_for_the_others(
    mixed: Path, out: Path
) -> None:
    report = build(mixed, out)
    held = dataset.load(out)
    assert texts(held.embeddings) < texts(
        torch.cat([part for path in files.find([mixed]) for part in usable(path)])
    )
    unit = normalize(held.embeddings.double(), dim=1)
    assert float((unit @ unit.T).fill_diagonal_(0).max()) < 0.999
    assert lost(report)["lone.pt", entries.NEAR] in (6, 7)
    assert report.sentences == (
        report.duplicates.occurrences - report.duplicates.exact - report.duplicates.near
    )


def test_a_dialogue_stays_whole(mixed: Path, out: Path) -> None:
    build(mixed, out)
    held = dataset.load(out)
    where = [texts(held.embeddings[side(held, split)]) for split in SPLITS]
    used = set()
    for number in (2, 4, 8, 10, 11, 13):  # those that share nothing
        dialogue = texts(torch.cat(usable(mixed / f"dialogue_{number}.pt")))
        (index,) = [index for index, each in enumerate(where) if dialogue & each]
        assert dialogue <= where[index]
        used.add(index)
    assert used


def test_pairs_of_one_question_stay_together(
    save_prepared: Callable, rows: Callable, out: Path
) -> None:
    questions, answers = rows(30, 1).repeat(3, 1), rows(90, 2)
    path = save_prepared(
        "pairs.pt", torch.cat([questions[:60], nearly(questions[60:], 1)]), answers
    )
    build(path, out, tasks=(Task.DIALOGUE,))
    held = dataset.load(out)
    assert held.counts([Task.DIALOGUE]) == {"train": 72, "validation": 9, "test": 9}
    for split in SPLITS:
        counts = held.rows([Task.DIALOGUE], split).source.bincount().unique().tolist()
        assert counts in ([3], [0, 3])


def test_the_groups_of_a_file_stay_together(save: Callable, rows: Callable, out: Path) -> None:
    groups = torch.arange(120) % 12 + 7
    pairs = {"question_embeddings": rows(120, 1), "answer_embeddings": rows(120, 2)}
    path = save("pairs.pt", {**pairs, "groups": groups})
    build(path, out, tasks=(Task.DIALOGUE,))
    held = dataset.load(out)
    where = {}
    for split in SPLITS:
        for row in held.embeddings[held.rows([Task.DIALOGUE], split).source]:
            where[row.numpy().tobytes()] = split
    found = [where[row.numpy().tobytes()] for row in rows(120, 1)]
    for group in range(12):
        assert len(set(found[group::12])) == 1
    assert set(found) == set(SPLITS)


@pytest.mark.parametrize("near", [None, 0.999])
def test_names_order_copies_and_cuts_of_files_change_nothing(
    mixed: Path, out: Path, save: Callable, near: float | None
) -> None:
    report = build(mixed, out, near=near)
    other = mixed.parent / "other"
    other.mkdir()
    for number, path in enumerate(sorted(mixed.iterdir(), reverse=True)):
        shutil.copy(path, other / f"{number:03}.pt")
    for number in range(3):
        shutil.copy(mixed / "dialogue_11.pt", other / f"copy_{number}.pt")
    # Lone sentences and pairs of one question are the same rows in any number of files.
    for path in list(other.iterdir()):
        content = torch.load(path)
        if isinstance(content, Tensor):
            parts: list[Any] = [part.clone() for part in content.flip(0).split(9)]
        elif "labels" in content:
            parts = [
                {key: content[key][start::2].clone() for key in content if key != "corpus"}
                | {"corpus": "snli"}
                for start in range(2)
            ]
        else:
            continue
        path.unlink()
        for number, part in enumerate(parts):
            torch.save(part, path.with_stem(f"{path.stem}_{number}"))
    found = sorted(other.iterdir(), key=lambda path: path.name[::-1])
    again = build([*found, other], out.with_name("again"), near=near)
    assert again.fingerprint == report.fingerprint
    assert not again.unchanged
    for name in (dataset.EMBEDDINGS, dataset.ROWS):
        assert (out / name).read_bytes() == (again.folder / name).read_bytes()


def test_each_option_that_decides_on_the_content_changes_the_fingerprint(
    mixed: Path, out: Path
) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"fractions": (0.5, 0.25, 0.25)},
        {"near": None},
        {"tasks": BOTH},
        {"normalisation": "standardise"},
        {"normalisation": "l2"},
        {"dtype": "float16"},
        {"weights": {"snli": 2.0}},
        {"corpora": {mixed / "lone.pt": "books"}},
        {"seed": 0, "weights": {"snli": 1.0}, "strict": True},
    ]
    prints = [build(mixed, out, **each).fingerprint for each in options]
    assert len(set(prints)) == len(options) - 1
    assert prints[0] == prints[-1]


def test_fractions_are_kept_in_each_task_and_corpus(mixed: Path, out: Path) -> None:
    report = build(mixed, out, fractions=(0.5, 0.25, 0.25))
    for rows in report.counts.values():
        shares = [rows[split] / sum(rows.values()) for split in SPLITS]
        assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_splits_of_the_sample_come_near_their_fractions(seed: int, out: Path) -> None:
    counts = build(sources.sample_dir(), out, seed=seed).counts
    for rows in counts.values():
        shares = [rows[split] / sum(rows.values()) for split in SPLITS]
        # 30 dialogues of up to 40 pairs: one more or less is 0.044.
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.045)


def test_three_dialogues_are_enough_and_two_are_not(
    folder_of_files: Path, save_dialogue: Callable, rows: Callable, out: Path
) -> None:
    for number, size in enumerate((50, 3, 20)):
        save_dialogue(f"{number}.pt", rows(size, number), rows(size, 10 + number))
    counts = build(folder_of_files, out).counts["dialogue"]
    assert counts["train"] == 50
    assert sorted(counts.values()) == [3, 20, 50]
    (folder_of_files / "0.pt").unlink()
    with pytest.raises(DataError, match=r"no rows for the .* split: at least 3 groups.*got 2;"):
        build(folder_of_files, out.with_name("two"))
    assert not out.with_name("two").exists()


def test_an_exact_and_a_near_duplicate_pair_are_left_out_and_counted(
    folder_of_files: Path, save_dialogue: Callable, rows: Callable, out: Path
) -> None:
    for number in range(4):
        save_dialogue(f"{number}.pt", rows(6, number), rows(6, 10 + number))
    questions, answers = rows(6, 3), rows(6, 13)
    questions[5], answers[5] = questions[4], answers[4]
    questions[3], answers[3] = nearly(questions[2:4], 1)[0], answers[2]
    save_dialogue("3.pt", questions, answers)
    report = build(folder_of_files, out)
    assert lost(report) == {("3.pt", entries.DUPLICATE): 1, ("3.pt", entries.NEAR): 1}
    assert sum(report.counts["dialogue"].values()) == 22


@pytest.mark.parametrize("seed", range(4))
def test_what_all_dialogues_share_trains_and_the_pairs_of_the_others_go(
    folder_of_files: Path, save_dialogue: Callable, rows: Callable, out: Path, seed: int
) -> None:
    shared = rows(1, 99)[0]
    for number in range(10):
        questions = rows(4, number)
        questions[2] = shared
        save_dialogue(f"{number}.pt", questions, rows(4, 50 + number))
    report = build(folder_of_files, out, seed=seed)
    held = dataset.load(out)
    assert report.counts["dialogue"] == {"train": 32, "validation": 3, "test": 3}
    assert {(row.reason, row.rows) for row in report.left_out} == {(entries.OVERLAP, 1)}
    assert len(report.left_out) == 2
    where = [
        shared.numpy().tobytes() in texts(held.embeddings[side(held, split)]) for split in SPLITS
    ]
    assert where == [True, False, False]


@pytest.mark.parametrize("seed", range(10))
def test_a_shared_pair_is_kept_once(
    folder_of_files: Path, save_dialogue: Callable, rows: Callable, out: Path, seed: int
) -> None:
    question, answer = rows(2, 99)
    for number in range(10):
        questions, answers = rows(4, number), rows(4, 50 + number)
        questions[2], answers[2] = question, answer
        save_dialogue(f"{number}.pt", questions, answers)
    report = build(folder_of_files, out, seed=seed)
    assert report.counts["dialogue"] == {"train": 8 * 3 + 1, "validation": 3, "test": 3}
    assert {(row.reason, row.rows) for row in report.left_out} == {(entries.DUPLICATE, 1)}
    assert len(report.left_out) == 9


def test_premises_that_share_a_hypothesis_with_few_others_lose_nothing(
    save: Callable, rows: Callable, out: Path
) -> None:
    hypotheses = rows(600, 2)
    hypotheses[300:400] = hypotheses[:100]  # a hundred stand on two premises each
    pairs = {
        "question_embeddings": rows(200, 1).repeat_interleave(3, dim=0),
        "answer_embeddings": hypotheses,
    }
    path = save("nli.pt", {**pairs, "labels": torch.arange(600) % 3})
    report = build(path, out)
    assert lost(report) == {}
    assert report.counts["nli"] == {"train": 480, "validation": 60, "test": 60}


def test_a_lone_sentence_does_not_pull_a_pair_out_of_its_split(
    folder_of_files: Path, save: Callable, save_prepared: Callable, rows: Callable, out: Path
) -> None:
    questions, answers = rows(30, 1), rows(30, 2)
    save_prepared("pairs.pt", questions, answers)
    alone = build(folder_of_files, out, corpora={folder_of_files: "all"})
    save("lone.pt", torch.cat([questions, nearly(answers, 3)]))
    both = build(folder_of_files, out.with_name("both"), corpora={folder_of_files: "all"})
    assert both.counts == alone.counts
    assert lost(both) == {
        ("lone.pt", entries.DUPLICATE): 30,
        ("lone.pt", entries.NEAR): 30,
    }


def test_each_task_has_its_own_rows(mixed: Path, out: Path, save: Callable, rows: Callable) -> None:
    save("sentiment.pt", {"embeddings": rows(40, 77), "labels": torch.arange(40) % 2})
    report = build(mixed, out)
    held = dataset.load(out)
    assert held.tasks == TASKS
    assert held.corpora == ("autoencoder", "dialogue", "prepared", "sentiment", "snli")
    for split in SPLITS:
        sentiment = held.rows([Task.SENTIMENT], split)
        assert torch.equal(sentiment.source, sentiment.target)
        assert set(sentiment.corpus.tolist()) == {3}
        of_row = {row.numpy().tobytes(): place % 2 for place, row in enumerate(rows(40, 77))}
        found = [of_row[row.numpy().tobytes()] for row in held.embeddings[sentiment.source]]
        assert sentiment.label.tolist() == found
        nli = held.rows([Task.NLI], split)
        assert set(nli.label.tolist()) == {0, 1, 2}
        assert set(held.rows(BOTH, split).label.tolist()) == {-1}
    assert sum(report.counts["sentiment"].values()) == 40
    everything = [len(held.rows([Task.RECONSTRUCT], split)) for split in SPLITS]
    assert sum(everything) == len(held.embeddings)


def test_labels_stay_with_their_pairs(mixed: Path, out: Path) -> None:
    build(mixed, out, near=None)
    held = dataset.load(out)
    content = torch.load(mixed / "nli.pt")
    of_pair = {
        (question.numpy().tobytes(), answer.numpy().tobytes()): int(label)
        for question, answer, label in zip(
            content["question_embeddings"],
            content["answer_embeddings"],
            content["labels"],
            strict=True,
        )
    }
    count = 0
    for split in SPLITS:
        nli = held.rows([Task.NLI], split)
        for source, target, label in zip(nli.source, nli.target, nli.label, strict=True):
            pair = tuple(held.embeddings[row].numpy().tobytes() for row in (source, target))
            assert of_pair[pair] == int(label)
            count += 1
    assert count > 100


def test_a_pair_labelled_in_two_ways_has_no_label_and_is_counted(
    save: Callable, rows: Callable, out: Path
) -> None:
    questions, answers, labels = rows(60, 1), rows(60, 2), torch.arange(60) % 3
    again = torch.tensor([5, 6, 7])
    content = {
        "question_embeddings": torch.cat([questions, questions[again]]),
        "answer_embeddings": torch.cat([answers, answers[again]]),
        # The first agrees, the second does not know, the third disagrees.
        "labels": torch.cat([labels, torch.tensor([int(labels[5]), -1, (int(labels[7]) + 1) % 3])]),
    }
    report = build(save("nli.pt", content), out)
    assert report.duplicates.conflicting_labels == 1
    held = dataset.load(out)
    nli = [held.rows([Task.NLI], split) for split in SPLITS]
    found = torch.cat([part.label for part in nli])
    assert int((found == -1).sum()) == 1
    assert len(found) == 60
    assert lost(report) == {("nli.pt", entries.DUPLICATE): 3}


def test_files_of_no_use_to_the_tasks_are_named_and_take_no_part(mixed: Path, out: Path) -> None:
    report = build(mixed, out, tasks=(Task.NLI,))
    held = dataset.load(out)
    assert held.tasks == (Task.NLI,)
    assert len(report.sources) == 1
    named = {row.path.name for row in report.left_out if row.reason.startswith("of use only to")}
    assert named == {path.name for path in mixed.iterdir()} - {"nli.pt"}
    used = torch.cat([side(held, split) for split in SPLITS]).unique()
    assert torch.equal(used, torch.arange(len(held.embeddings)))
    with pytest.raises(DataError, match="no rows for the task reconstruct, only for nli"):
        held.counts([Task.RECONSTRUCT])


def test_a_task_without_files_is_one_clear_error(save: Callable, rows: Callable, out: Path) -> None:
    path = save("lone.pt", rows(30, 1))
    with pytest.raises(DataError, match="task dialogue: no rows for the train split"):
        build(path, out, tasks=BOTH)
    with pytest.raises(DataError, match="no file is left for the dataset: of use only to tasks"):
        build(path, out, tasks=(Task.NLI,))
    assert not out.exists()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_l2_stores_unit_rows_and_their_mean_norm(
    save: Callable, rows: Callable, out: Path, dtype: str
) -> None:
    given = rows(50, 1) * torch.linspace(0.5, 9, 50)[:, None]
    build(save("lone.pt", given), out, normalisation="l2", dtype=dtype)
    held = dataset.load(out)
    assert str(held.embeddings.dtype) == f"torch.{dtype}"
    assert torch.allclose(held.embeddings.float().norm(dim=1), torch.ones(50), atol=1e-3)
    assert held.normalisation.norm == pytest.approx(float(given.norm(dim=1).mean()), rel=1e-6)
    nearest = (held.embeddings.float() @ normalize(given, dim=1).T).max(dim=1)
    assert sorted(nearest.indices.tolist()) == list(range(50))


def test_standardise_measures_the_training_sentences_alone(mixed: Path, out: Path) -> None:
    build(mixed, out, normalisation="standardise")
    held = dataset.load(out)
    plain = build(mixed, out.with_name("plain"))
    assert torch.equal(dataset.load(plain.folder).embeddings, held.embeddings)
    trained = held.embeddings[side(held, "train")].double()
    mean, deviation = held.normalisation.mean, held.normalisation.deviation
    assert mean is not None
    assert deviation is not None
    assert torch.allclose(mean, trained.mean(0), atol=1e-12)
    assert torch.allclose(deviation, trained.std(0, correction=0), rtol=1e-9)


def test_weights_are_kept_for_every_corpus(mixed: Path, out: Path) -> None:
    report = build(mixed, out, weights={"snli": 2.5}, corpora={mixed / "pairs.pt": "quiz"})
    held = dataset.load(out)
    assert held.weights == {"autoencoder": 1.0, "dialogue": 1.0, "quiz": 1.0, "snli": 2.5}
    assert report.corpora["snli"]["weight"] == 2.5
    assert sum(report.corpora["quiz"][split] for split in SPLITS) > 60
    with pytest.raises(
        DataError, match="corpus 'sn': there are only autoencoder, dialogue, prepared, snli"
    ):
        build(mixed, out, weights={"sn": 1.0})


def test_a_folder_and_a_pattern_name_the_corpus_of_their_files(mixed: Path, out: Path) -> None:
    corpora = {mixed: "all", Path(f"{mixed}/dialogue_*.pt"): "talk"}
    report = build([mixed, *corpora], out, corpora=corpora)
    assert set(report.corpora) == {"all", "talk"}
    assert {row.corpus for row in report.sources if row.kind == "dialogue"} == {"talk"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fractions": (0.9, 0.1, 0.0)}, "three numbers above 0 that sum to 1"),
        ({"fractions": (0.8, 0.1, 0.2)}, "three numbers above 0 that sum to 1"),
        ({"fractions": (1.2, -0.1, -0.1)}, "three numbers above 0 that sum to 1"),
        ({"fractions": (float("nan"), 0.1, 0.1)}, "three numbers above 0 that sum to 1"),
        ({"near": 0.5}, "near 0.5: a cosine from 0.95 to 1"),
        ({"near": float("nan")}, "near nan: a cosine from 0.95 to 1"),
        ({"weights": {"snli": 0.0}}, "weight snli=0.0: a number above 0"),
        ({"weights": {"snli": float("inf")}}, "weight snli=inf: a number above 0"),
        ({"normalisation": "L2"}, "normalisation 'L2': expected one of none, l2, standardise"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16': expected one of float32, float16"),
    ],
)
def test_options_are_checked_before_anything_is_read(
    mixed: Path, out: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        unify.build([mixed], out, BuildOptions(**options), lambda *_: pytest.fail("it read"))


def test_a_folder_that_is_not_a_dataset_is_refused_before_anything_is_read(
    mixed: Path, out: Path
) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("ten years of work")
    with pytest.raises(DataError, match=r"not a dataset folder \(it holds thesis.txt\)"):
        unify.build([mixed], out, progress=lambda *_: pytest.fail("it began to read"))
    assert (out / "thesis.txt").read_text() == "ten years of work"


def test_bad_files_are_reported_and_good_files_beside_them_are_used(
    mixed: Path, hostile: Path, marker: Path, out: Path
) -> None:
    clean = build(mixed, out)
    report = build([hostile, mixed], out)
    assert report.unchanged
    assert report.fingerprint == clean.fingerprint
    refused = {row.path.name for row in report.left_out if row.rows is None}
    good = {row.path.name for row in report.sources}
    assert refused == {path.name for path in files.find([hostile])}
    assert good == {path.name for path in mixed.iterdir()}
    assert all(row.fault for row in report.left_out if row.rows is None)
    assert not marker.exists()


def test_strict_names_every_fault_and_writes_nothing(
    mixed: Path, hostile: Path, save: Callable, rows: Callable, out: Path
) -> None:
    broken = rows(8, 5)
    broken[3] = torch.nan
    bad = save("broken.pt", broken)
    with pytest.raises(StrictError) as caught:
        build([hostile, mixed], out, strict=True)
    for path in (*files.find([hostile]), bad):
        assert f"{path}: " in str(caught.value)
    assert "not finite (NaN or infinity) (1 rows)" in str(caught.value)
    assert not out.exists()
    bad.unlink()
    report = build(mixed, out, strict=True)
    assert report.left_out


def test_strict_comes_before_what_else_is_wrong(hostile: Path, mixed: Path, out: Path) -> None:
    for bad in files.find([hostile]):
        with pytest.raises(StrictError, match="strict: nothing written, 1 faults") as caught:
            build(bad, out, strict=True)
        assert str(bad) in str(caught.value)
    assert not out.exists()


def test_progress_tells_of_every_stage_to_its_end(mixed: Path, out: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def show(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, []).append((done, total))

    unify.build([mixed], out, BuildOptions(normalisation="standardise"), show)
    assert list(seen) == [
        *("reading files", "hashing rows", "looking for near duplicates"),
        *("measuring numbers", "writing"),
    ]
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


def test_the_manifest_says_where_everything_came_from(mixed: Path, out: Path) -> None:
    report = build(mixed, out, seed=3)
    manifest = json.loads((out / dataset.MANIFEST).read_text())
    held = dataset.load(out)
    assert manifest["fingerprint"] == report.fingerprint == held.fingerprint
    assert manifest["rows"] == report.counts == {task: held.counts([task]) for task in held.tasks}
    assert manifest["tasks"] == ["reconstruct", "dialogue", "nli"]
    assert (manifest["format"], manifest["embedding_size"], manifest["seed"]) == (3, 768, 3)
    assert (manifest["fractions"], manifest["near"]) == ([0.8, 0.1, 0.1], 0.999)
    assert {Path(row["path"]).name for row in manifest["sources"]} == {
        path.name for path in mixed.iterdir()
    }
    assert manifest["left_out"] == report.as_json()["left_out"]
    sha = {row["path"]: row["sha256"] for row in manifest["sources"]}
    shown = subprocess.run(["sha256sum", *sha], capture_output=True, text=True, check=True)
    assert [line.split("  ") for line in shown.stdout.splitlines()] == [
        [digest, path] for path, digest in sha.items()
    ]


def test_the_same_dataset_is_left_as_it_is(mixed: Path, out: Path) -> None:
    first = build(mixed, out)
    before = {path: path.stat().st_mtime_ns for path in (out, *out.iterdir())}
    second = build(mixed, out)
    assert (first.unchanged, second.unchanged) == (False, True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert replace(second, unchanged=False) == first


_KILLED = """
import sys, time
from pathlib import Path
import torch
from cubeopt.data.building import unify
torch.set_num_threads(1)
unify.build(
    [Path(sys.argv[1])], Path(sys.argv[2]),
    unify.BuildOptions(seed=int(sys.argv[3])),
    lambda stage, done, total: (print(stage, flush=True), time.sleep(0.5 * (stage == "writing"))),
)
"""


def test_a_killed_build_leaves_what_was_there_and_the_next_cleans_up(
    save: Callable, rows: Callable, out: Path
) -> None:
    path = save("lone.pt", torch.cat([rows(5000, seed) for seed in range(5)]))
    first = build(path, out, near=None)
    arguments = [sys.executable, "-c", _KILLED, str(path), str(out), "1"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line == "writing\n" for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    left = [each for each in out.parent.iterdir() if each != out]
    assert [each.name.startswith(".data.") for each in left] == [True]
    assert (left[0] / dataset.EMBEDDINGS).stat().st_size > 1 << 20
    assert dataset.load(out).fingerprint == first.fingerprint
    second = build(path, out, near=None, seed=1)
    assert dataset.load(out).fingerprint == second.fingerprint != first.fingerprint
    assert list(out.parent.iterdir()) == [out]
