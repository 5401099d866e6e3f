"""What it costs a training that somebody watches it on the dashboard, and how late it is there.

Usage: python tests/bench/dashboard_cost.py [WINDOWS] [SECONDS] [VIEWERS]

A real worker trains a cube of 8x8x8 on so few rows that an epoch takes about a second, so there is
far more to tell than of a usual training, whose epochs take minutes. A real dashboard serves, and
viewers do what a page does: hear of news by server-sent events and fetch what is drawn, at most
once a second. Windows with and without viewers take turns in one run. Of each: epochs a second, and
the CPU seconds of PostgreSQL and the dashboard. The second is the cost that does not depend on who
else uses the machine: as a share of the worker's own CPU time it is at most what watching can take
away from a training on the same core.
"""

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch

from cubeopt.data.building import unify
from cubeopt.db import embedded, records
from cubeopt.db import engine as db_engine
from cubeopt.search import study
from cubeopt.service import studies
from cubeopt.settings import Settings

STUDY = {
    "name": "watched",
    "base": {
        "lattice_size": [8, 8, 8],
        "embedding_size": 64,
        "state_size": 32,
        "lattice_steps": 5,
        "batch_size": 16,
        "dataset": "few",
        "epochs": 5000,
    },
    "search": {"learning_rate": {"low": 1e-3, "high": 3e-3, "log": True}},
    "sampler": {"name": "random"},
    "rungs": {"epochs": [4000], "rule": "none"},
    "budget": {"trials": 1},
}


def dataset(folder: Path) -> None:
    """160 rows, 64 wide."""
    generator = torch.Generator().manual_seed(7)
    mixing = torch.randn(8, 64, generator=generator)
    made = folder / "made"
    made.mkdir(parents=True)
    for number in range(25):
        rows = torch.randn(16, 8, generator=generator) @ mixing
        rows = rows + 0.1 * torch.randn(16, 64, generator=generator)
        rows = torch.nn.functional.normalize(rows, dim=1)
        content = {"questions": rows[:8], "answers": rows[8:], "metadata": [{}] * 8}
        torch.save(content, made / f"dialogue_{number:032x}.pt")
    unify.build([made], folder / "data" / "few", unify.BuildOptions(width=64))


class Viewer(threading.Thread):
    """A page: one stream, and a fetch after each change, at most once a second."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._address = urlsplit(url)
        self.left = threading.Event()
        self.fetched = 0
        self.bytes = 0  # of the last one

    def run(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            stream = self._open("/events/studies/watched/training")
            last = 0.0
            while not self.left.is_set():
                if stream.readline().startswith(b"data: "):
                    time.sleep(max(0.0, last + 1.0 - time.monotonic()))
                    last = time.monotonic()
                    content = self._open("/data/studies/watched/training/charts").read()
                    self.fetched, self.bytes = self.fetched + 1, len(content)

    def _open(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._address.netloc, timeout=30)
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        return connection.getresponse()


def lateness(url: str, engine: db_engine.Engine, study_id: int, count: int) -> list[float]:
    """Seconds from the record of an epoch until its numbers have been fetched, as a page does."""
    found: list[float] = []
    address = urlsplit(url)
    stream = http.client.HTTPConnection(address.netloc, timeout=60)
    stream.request("GET", "/events/studies/watched/training")
    events, last, shown = stream.getresponse(), 0.0, 0
    while len(found) < count:
        if not events.readline().startswith(b"data: "):
            continue
        time.sleep(max(0.0, last + 1.0 - time.monotonic()))
        last = time.monotonic()
        page = http.client.HTTPConnection(address.netloc, timeout=60)
        page.request("GET", "/data/studies/watched/training/charts")
        (track,) = json.loads(page.getresponse().read())["tracks"]
        arrived = datetime.now(UTC)
        recorded = {each.epoch: each.created_at for each in records.epochs(engine, study_id)}
        if shown:  # the oldest of those that are new waited longest
            new = [recorded[e] for e in range(shown + 1, track["epoch"] + 1)]
            found += [(arrived - min(new)).total_seconds()] if new else []
        shown = track["epoch"]
    stream.close()
    return found


def cpu(processes: list[psutil.Process]) -> float:
    """CPU seconds of *processes* and all that they have started, also what has ended."""
    total = 0.0
    for process in processes:
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
        times = process.cpu_times()
        total += times.children_user + times.children_system
    return total


def main() -> None:
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
    viewers = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    with tempfile.TemporaryDirectory(prefix="cubeopt-") as name:
        home = Path(name)
        url = embedded.address(home / "pg")
        try:
            measure(home, url, windows, seconds, viewers)
        finally:
            embedded.stop(home / "pg")


def measure(home: Path, url: str, windows: int, seconds: float, viewers: int) -> None:
    dataset(home)
    settings = Settings(home, url, "WARNING")
    engine = db_engine.connect(settings)
    studies.create(engine, settings, study.parse(STUDY, "watched.yaml"))
    study_id = records.study(engine, "watched").id
    given = {
        **os.environ,
        "CUBEOPT_STORAGE": url,
        "CUBEOPT_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    ours = [sys.executable, "-m", "cubeopt"]
    started = [
        subprocess.Popen(
            [*ours, "worker", "--cpu", "--pack", "1"],
            env=given,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ),
        subprocess.Popen(
            [*ours, "dashboard", "--port", "0"],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ),
    ]
    try:
        worker, dashboard = (psutil.Process(each.pid) for each in started)
        assert started[1].stdout is not None
        address = ""
        while not address:
            found = re.search(r"http://\S+", started[1].stdout.readline())
            address = found[0].rstrip("/") if found else ""
        while not records.epochs(engine, study_id):
            time.sleep(0.2)
        served = [postmaster(home), dashboard]
        rates: dict[bool, list[float]] = {False: [], True: []}
        costs: dict[bool, list[float]] = {False: [], True: []}
        for nth in range(windows):
            watched = nth % 4 in (1, 2)
            watching = [Viewer(address) for _ in range(viewers if watched else 0)]
            for each in watching:
                each.start()
            time.sleep(2.0)
            before = count(engine, study_id), cpu(served), cpu([worker]), time.monotonic()
            time.sleep(seconds)
            after = count(engine, study_id), cpu(served), cpu([worker]), time.monotonic()
            for each in watching:
                each.left.set()
            epochs, spent, trained, passed = (b - a for a, b in zip(before, after, strict=True))
            rates[watched].append(epochs / passed)
            costs[watched].append(spent / trained)
            who = "watched" if watched else "alone  "
            said = f"{who} {epochs / passed:.3f} epochs/s, PostgreSQL and dashboard "
            said += f"{100 * spent / trained:.2f} % of the worker's CPU time"
            for each in watching[:1]:
                said += f", {each.fetched} fetches of {each.bytes / 1e3:.0f} kB"
            print(said, flush=True)
            time.sleep(1.0)
        pairs = zip(rates[True], rates[False], strict=True)
        ratios = [watched / alone for watched, alone in pairs]
        more = statistics.median(costs[True]) - statistics.median(costs[False])
        print(f"epochs/s watched over alone: median {statistics.median(ratios):.4f}")
        print(f"CPU time of watching: {100 * more:.2f} % of the worker's")
        late = lateness(address, engine, study_id, 15)
        middle, most = statistics.median(late), max(late)
        print(
            f"from the record of an epoch to the page: median {middle:.2f} s, at most {most:.2f} s"
        )
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(60)
        engine.dispose()


def count(engine: db_engine.Engine, study_id: int) -> int:
    return sum(run.epoch for run in records.runs(engine, study_id))


def postmaster(home: Path) -> psutil.Process:
    (file,) = home.rglob("postmaster.pid")
    return psutil.Process(int(file.read_text().splitlines()[0]))


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as the command line has it; for the processes
    main()
