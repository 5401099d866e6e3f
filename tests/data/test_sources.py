import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cubeopt.data import sources
from cubeopt.data.sources import Kind
from cubeopt.errors import DataError

REFUSALS = {
    "half.pt": "truncated or damaged",
    "empty.pt": r"empty file \(0 bytes\)",
    "text.pt": "not a torch file",
    "legacy_half.pt": "truncated or damaged",
    "bomb.pt": "unpacks to more than its own size",
    "one_dimension.pt": r"expected the shape \[N, 768\], got \[100\]",
    "one_vector.pt": r"expected the shape \[N, 768\], got \[768\]",
    "three_dimensions.pt": r"expected the shape \[N, 768\], got \[4, 16, 768\]",
    "zeros.pt": "no usable rows: 50 norm below 0.1",
    "no_rows.pt": "no rows",
    "expanded.pt": r"claims the shape \[50000000, 768\], but holds only 3072 bytes",
    "sliding.pt": r"claims the shape \[10, 768\], but holds only",
    "lengths.pt": "12 questions and 10 answers",
    "width.pt": "questions: expected width 768, got 384",
    "key.pt": "the key 'answers' is missing",
    "integers.pt": "questions: expected float32.*got int8",
    "complex.pt": "got complex64",
    "float8.pt": "got float8_e4m3fn",
    "sparse.pt": "expected a dense tensor",
    "meta.pt": "expected a dense tensor",
    "no_tensor.pt": "questions: expected a tensor, got a str",
    "other_keys.pt": r"found the keys weight, 7, '\\x1b\[31m'",
    "list.pt": "found a list",
    "hidden.pt": "the key 'answers' is missing",
    "unsafe.pt": "refused: an unsafe pickle",
    "unsafe_legacy.pt": "refused: an unsafe pickle",
    "unsafe_bare.pt": "refused: an unsafe pickle",
    "module.pt": "refused: an unsafe pickle",
    "folder.pt": "a folder where a file is expected",
    "dangling.pt": "link to a missing file",
    "pipe.pt": "not a regular file",
    "nowhere.pt": "missing: no such file",
}


def test_the_sample_is_whole() -> None:
    read = [sources.read(path) for path in sources.find([sources.sample_dir()])]
    kinds = [source.kind for source in read]
    assert (kinds.count(Kind.DIALOGUE), kinds.count(Kind.BARE), len(kinds)) == (30, 1, 31)
    assert sum(source.rows for source in read if source.kind is Kind.DIALOGUE) == 911
    assert all(source.usable_rows == source.rows for source in read)
    assert not any(source.problems or source.left_out for source in read)


def test_rows_arrive_as_they_were_saved(save_dialogue: Callable, rows: Callable) -> None:
    questions, answers = rows(5, 1), rows(5, 2)
    source = sources.read(save_dialogue("any.pt", questions, answers))
    assert source.target is not None
    assert torch.equal(source.source, questions)
    assert torch.equal(source.target, answers)


def test_a_file_is_known_by_its_content_not_its_name(
    save_prepared: Callable, save: Callable, rows: Callable
) -> None:
    pairs = save_prepared("dialogue_0229d12bd12732f27ee69acaf017bbe6.pt", rows(2, 1), rows(2, 2))
    bare = save("snli_embeddings_2pairs.pt", rows(3, 3))
    assert sources.read(pairs).kind is Kind.PREPARED
    assert sources.read(bare).kind is Kind.BARE
    assert sources.read(bare).target is None


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_a_bad_file_is_refused_with_its_path_and_the_reason(name: str, hostile: Path) -> None:
    path = hostile / name
    with pytest.raises(DataError, match=REFUSALS[name]) as caught:
        sources.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_every_bad_file_has_its_refusal(hostile: Path) -> None:
    assert {path.name for path in hostile.iterdir()} | {"nowhere.pt"} == set(REFUSALS)


def test_an_unsafe_pickle_does_not_run(hostile: Path, marker: Path) -> None:
    with (hostile / "unsafe_bare.pt").open("rb") as file:
        pickle.load(file)
    assert marker.exists(), "the trap must be a real one"
    marker.unlink()
    for name in ("unsafe.pt", "unsafe_legacy.pt", "unsafe_bare.pt"):
        with pytest.raises(DataError):
            sources.read(hostile / name)
    assert not marker.exists()


def test_attributes_of_a_tensor_cannot_hide_its_methods(save: Callable, rows: Callable) -> None:
    tensor = rows(4, 1)
    tensor.to = tensor.numel = tensor.element_size = 5
    source = sources.read(save("shadow.pt", tensor))
    assert torch.equal(source.source, rows(4, 1))


def test_pairs_with_a_bad_side_are_left_out_on_both_and_counted(
    save_dialogue: Callable, rows: Callable
) -> None:
    questions, answers = rows(12, 1), rows(12, 2)
    expected = [torch.cat([side[5:6], side[7:]]) for side in (questions, answers)]
    questions[1] = torch.nan
    answers[2, 7], answers[3, 0] = torch.inf, -torch.inf
    questions[0] = 0.0
    answers[4], questions[4] = 0.0, torch.nan  # two faults, counted once
    answers[6] *= 1000
    source = sources.read(save_dialogue("bad_rows.pt", questions, answers))
    assert source.target is not None
    assert torch.equal(source.source, expected[0])
    assert torch.equal(source.target, expected[1])
    assert {fault.reason: fault.rows for fault in source.left_out} == {
        "not finite (NaN or infinity)": 4,
        "norm below 0.1": 1,
        "norm above 100": 1,
    }
    assert (source.rows, source.usable_rows) == (12, 6)


def test_other_floats_become_float32(save_dialogue: Callable, rows: Callable) -> None:
    questions, answers = rows(4, 1).double(), rows(4, 2).half()
    source = sources.read(save_dialogue("floats.pt", questions, answers))
    assert source.target is not None
    assert source.source.dtype == source.target.dtype == torch.float32
    assert torch.equal(source.source, rows(4, 1))
    assert torch.equal(source.target, answers.float())
    assert source.problems == (
        "questions: float64 converted to float32",
        "answers: float16 converted to float32",
    )


def test_a_number_too_large_for_float32_is_not_finite(save: Callable, rows: Callable) -> None:
    tensor = rows(3, 1).double()
    tensor[1, 1] = 1e300
    source = sources.read(save("large.pt", tensor))
    assert [(fault.reason[:10], fault.rows) for fault in source.left_out] == [("not finite", 1)]


def test_views_are_read_as_what_they_show(save: Callable, rows: Callable) -> None:
    tensor = rows(10, 1)
    assert torch.equal(sources.read(save("slice.pt", tensor[2:8:2])).source, tensor[2:8:2])
    assert torch.equal(sources.read(save("negative.pt", torch._neg_view(tensor))).source, -tensor)


def test_what_a_file_says_of_itself_is_checked_but_tensors_win(
    save: Callable, rows: Callable
) -> None:
    path = save(
        "claims.pt",
        {"questions": rows(3, 1), "answers": rows(3, 2), "size": 112, "metadata": [{}]},
    )
    source = sources.read(path)
    assert source.usable_rows == 3
    assert source.problems == (
        "size says 112, but the tensors hold 3 rows",
        "metadata has 1 entries for 3 rows",
    )


def test_another_width_is_read_when_asked_for(save: Callable, rows: Callable) -> None:
    path = save("narrow.pt", rows(3, 1, 384))
    assert sources.read(path, width=384).width == 384
    with pytest.raises(DataError, match="expected width 768, got 384"):
        sources.read(path)


def test_files_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.pt", "a.pt", "deep/c.pt", "note.txt", "deep/folder.pt/d.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    found = sources.find([tmp_path / "note.txt", tmp_path, tmp_path / "b.pt"])
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["note.txt", "a.pt", "b.pt", "deep/c.pt", "deep/folder.pt/d.pt"]


def _small_dialogue() -> bytes:
    """The smallest dialogue of the sample, cut to two pairs: most bytes are structure."""
    folder = sources.sample_dir() / "dialogue_dataset"
    path = min(folder.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    content = torch.load(path, weights_only=True)
    cut = {key: content[key][:2].clone() for key in ("questions", "answers")}
    cut["metadata"] = content["metadata"][:2]
    with tempfile.TemporaryFile() as file:
        torch.save(cut, file)
        file.seek(0)
        return file.read()


SMALL = _small_dialogue()
PLACES = st.one_of(
    st.integers(0, 1500),  # the pickle
    st.integers(len(SMALL) - 1500, len(SMALL) - 1),  # the directory of the zip
    st.integers(0, len(SMALL) - 1),
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    changes=st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=8),
    end=st.one_of(st.just(len(SMALL)), st.integers(0, len(SMALL))),
)
def test_damaged_bytes_give_good_rows_or_a_data_error(
    changes: list[tuple[int, int]], end: int
) -> None:
    damaged = bytearray(SMALL)
    for place, value in changes:
        damaged[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.pt"
        path.write_bytes(damaged[:end])
        try:
            source = sources.read(path)
        except DataError:
            return
    assert source.usable_rows + sum(fault.rows or 0 for fault in source.left_out) == source.rows
    for side in (source.source, source.target):
        assert isinstance(side, Tensor)
        assert side.shape == (source.usable_rows, 768)
        assert ((side.norm(dim=1) >= 0.1) & (side.norm(dim=1) <= 100)).all()
