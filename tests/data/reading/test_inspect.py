import json
from collections.abc import Callable
from pathlib import Path

import torch

from cubeopt.data.reading import sources
from cubeopt.data.reading.inspect import FileFacts, inspect
from cubeopt.data.reading.sources import Kind
from cubeopt.trial import Task


def test_a_good_file_is_described(save_dialogue: Callable, rows: Callable) -> None:
    path = save_dialogue("good.pt", rows(3, 1), rows(3, 2).double())
    assert inspect([path]) == [
        FileFacts(
            path=path,
            kind=Kind.DIALOGUE,
            task=Task.DIALOGUE,
            corpus="dialogue",
            width=768,
            keys=("questions", "answers", "metadata"),
            shapes={"questions": [3, 768], "answers": [3, 768]},
            dtypes={"questions": "float32", "answers": "float64"},
            rows=3,
            usable_rows=3,
            notes=("answers: float64 converted to float32",),
        )
    ]


def test_the_sample_has_no_problems() -> None:
    facts = inspect([sources.sample_dir()])
    assert not any(row.problems for row in facts)
    assert len([row for row in facts if row.kind]) == 31
    texts = {row.path.name: row for row in facts if not row.kind}
    assert set(texts) == {"README.md", "LICENSE.chatterbot-corpus"}
    for row in texts.values():
        assert row.notes == ("plain text: give it by name to have it read as sentences",)
        assert [(each.rows, each.fault) for each in row.left_out] == [(None, False)]
    assert sum(row.rows or 0 for row in facts) == 911 + 498


def test_every_bad_file_is_a_row_with_its_problem(hostile: Path, marker: Path) -> None:
    facts = inspect([hostile])
    assert {row.path for row in facts} == set(hostile.iterdir()) - {hostile / "folder.pt"}
    assert all(len(row.problems) == 1 and row.usable_rows == 0 for row in facts)
    assert not marker.exists()
    rows = {row.path.name: row for row in facts}
    assert rows["expanded.pt"].shapes == {"tensor": [50_000_000, 768]}
    assert rows["width.pt"].problems == (
        "questions: expected width 768, got 384 (shape [12, 384])",
    )
    assert rows["key.pt"].keys == ("questions", "metadata")
    assert (rows["half.pt"].kind, rows["half.pt"].rows) == (None, None)
    assert rows["other_keys.pt"].shapes == {"weight": [12, 768], "bias": [768]}


def test_left_out_rows_are_told(save: Callable, rows: Callable) -> None:
    tensor = rows(5, 1)
    tensor[2] = torch.nan
    (facts,) = inspect([save("nan.pt", tensor)])
    assert (facts.rows, facts.usable_rows) == (5, 4)
    assert facts.problems == ("1 of 5 rows left out: not finite (NaN or infinity)",)
    assert [(each.rows, each.lines, each.fault) for each in facts.left_out] == [(1, (), True)]


def test_another_width_is_told_as_such(save: Callable, rows: Callable) -> None:
    path = save("llm_0123.pt", rows(94, 1, 4096).half())
    (facts,) = inspect([path])
    assert (facts.kind, facts.width, facts.rows, facts.usable_rows) == (Kind.BARE, 4096, 94, 0)
    assert facts.problems == ("tensor: expected width 768, got 4096 (shape [94, 4096])",)
    assert [(each.path, each.rows) for each in facts.left_out] == [(path, None)]
    assert inspect([path], width=4096)[0].usable_rows == 94


def test_text_given_by_name_is_a_row_like_others(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("One sentence.\nAnother.\n")
    (facts,) = inspect([path])
    assert (facts.kind, facts.task, facts.rows, facts.usable_rows) == ("text", "reconstruct", 2, 2)
    (found,) = inspect([tmp_path])
    assert (found.kind, found.rows, found.problems) == (None, None, ())


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    facts = inspect([tmp_path / "void", tmp_path / "nowhere.pt", tmp_path / "nowhere.pt"])
    assert [(row.path.name, row.problems) for row in facts] == [
        ("nowhere.pt", ("missing: no such file",)),
        ("void", ("no files in this folder",)),
    ]


def test_facts_become_json(hostile: Path) -> None:
    facts = inspect([hostile, sources.sample_dir()])
    copies = json.loads(json.dumps([row.as_json() for row in facts]))
    assert [Path(copy["path"]) for copy in copies] == [row.path for row in facts]
    assert set(copies[0]) == set(FileFacts.__dataclass_fields__)


def test_a_nested_tensor_has_no_shape_to_tell(save: Callable, rows: Callable) -> None:
    nested = torch.nested.nested_tensor([rows(2, 1), rows(3, 2)], layout=torch.jagged)
    (facts,) = inspect([save("nested.pt", nested)])
    assert facts.shapes == {"tensor": []}
    assert facts.problems == ("tensor: expected a dense tensor",)
