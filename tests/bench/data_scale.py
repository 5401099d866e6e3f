"""How inspect and build fare with a file of the size that a user has: 549,048 pairs, 3.4 GB.

Usage: python tests/bench/data_scale.py FOLDER [PAIRS]

The file is made in FOLDER (9 GB are needed there), and everything is removed at the end. The same
run reads the file and writes as many bytes as the dataset has, with nothing done to them; the
ratio to that is what the build costs. Writing into memory that a virtual machine never had before
was seen to cost ten times as much as into what a file has just given back, so in each round both
begin right after as many bytes were given back. Memory is RssAnon: what a process has beside files
it maps.
"""

import json
import multiprocessing
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from cubeopt.data import dataset
from cubeopt.data.building import unify
from cubeopt.data.reading import inspect

_ROUNDS = 3
_PAIRS, _WIDTH = 549_048, 768
_BLOCK = 1 << 24


def make(path: Path, pairs: int) -> None:
    """Pairs on premises that recur three times; of a hundred, one recurs and one nearly does."""
    generator = torch.Generator().manual_seed(0)
    topics = torch.randn(400, _WIDTH, generator=generator)

    def sentences(count: int) -> torch.Tensor:
        rows = torch.randn(count, _WIDTH, generator=generator)
        rows += topics[torch.randint(len(topics), (count,), generator=generator)]
        return torch.nn.functional.normalize(rows, dim=1)

    questions = sentences(-(-pairs // 3)).repeat_interleave(3, dim=0)[:pairs]
    answers = sentences(pairs)
    again = torch.randperm(pairs, generator=generator)[: pairs // 50]
    exact, near = again.chunk(2)
    answers[exact] = answers[(exact + 7) % pairs]
    noise = torch.randn(len(near), _WIDTH, generator=generator) * (0.02 / _WIDTH**0.5)
    answers[near] = answers[(near + 11) % pairs] + noise
    content = {
        "question_embeddings": questions,
        "answer_embeddings": answers,
        "teacher_model": "all-mpnet-base-v2",
        "timestamp": "20261123_000000",
        "size": pairs,
    }
    torch.save(content, path)


def copy(source: Path, target: Path, size: int) -> float:
    """Seconds to read *source* and to write *size* of its bytes to *target*, down to the disk."""
    begun = time.monotonic()
    buffer = memoryview(bytearray(_BLOCK))
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as written:
        while count := file.readinto(buffer):
            size -= written.write(buffer[: min(count, size)])
        assert size == 0
        os.fsync(written.fileno())
    target.unlink()
    return time.monotonic() - begun


def measured(name: str, task: Callable[..., object], *arguments: object) -> tuple[float, float]:
    """Seconds and peak of anonymous memory in GB of *task* in a process of its own."""
    pipe, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_watched, args=(other, task, *arguments)
    )
    process.start()
    seconds, peak, idle = pipe.recv()
    process.join()
    print(f"{name}: {seconds:.2f} s, peak RssAnon {peak:.3f} GB ({idle:.3f} before)", flush=True)
    return seconds, peak


def _watched(pipe: Connection, task: Callable[..., object], *arguments: object) -> None:
    idle = _anonymous()
    peaks, done = [idle], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(_anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.monotonic()
    task(*arguments)
    seconds = time.monotonic() - begun
    done.set()
    watcher.join()
    pipe.send((seconds, max(peaks), idle))


def _anonymous() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1e6
    raise RuntimeError("the system does not say RssAnon")


def run_inspect(path: Path) -> None:
    inspect.inspect([path])


def run_build(path: Path, out: Path) -> None:
    stages: dict[str, list[float]] = {}

    def show(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        stages.setdefault(stage, [now, now])[1] = now

    begun = time.monotonic()
    report = unify.build([path], out, progress=show)
    ended = time.monotonic()
    for stage, (first, last) in stages.items():
        print(f"  {stage}: from {first - begun:.2f} to {last - begun:.2f} s")
    print(f"  end: {ended - begun:.2f} s")
    print(f"  {json.dumps(report.as_json()['duplicates'])}; {report.counts}")
    for row in report.left_out:
        print(f"  left out: {row.rows} {row.reason}")


def run_load(out: Path) -> None:
    dataset.load(out)


def main() -> None:
    folder = Path(sys.argv[1])
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else _PAIRS
    folder.mkdir(parents=True, exist_ok=True)
    path, out = folder / "large_embedding_dataset.pt", folder / "built"
    try:
        make(path, pairs)
        print(f"{pairs} pairs, {path.stat().st_size / 1e9:.2f} GB", flush=True)
        seconds, _ = measured("inspect", run_inspect, path)
        print(f"  {pairs / seconds:.0f} rows/s")
        measured("build, the first", run_build, path, out)
        size = sum(file.stat().st_size for file in out.iterdir())
        print(f"{size / 1e9:.2f} GB written", flush=True)
        ratios = []
        for _ in range(_ROUNDS):
            copy(path, folder / "copy", size)
            plain = copy(path, folder / "copy", size)
            print(f"reading and writing the bytes: {plain:.2f} s")
            shutil.rmtree(out)
            seconds, _ = measured("build", run_build, path, out)
            ratios.append(seconds / plain)
            print(f"  {pairs / seconds:.0f} rows/s, ratio {ratios[-1]:.2f}", flush=True)
        print(
            f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        )
        measured("build again, unchanged", run_build, path, out)
        measured("load", run_load, out)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as the command line has it; for the processes
    main()
