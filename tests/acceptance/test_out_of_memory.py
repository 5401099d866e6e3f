"""A real worker under a real limit of memory: what is too wide shrinks, what is too big fails."""

import os
import re
import subprocess
import sys

from cubeopt.db import records
from cubeopt.db.tables import EndClass, RunState, StudyState

from ..service.conftest import coordinating, create  # noqa: F401 - fixture

SMALL, MIDDLE, HUGE = 4, 512, 4096  # state sizes: trials of KB, of 9 MB, of 540 MB an array
HEADROOM = 230_000_000  # bytes: a pack of 4 of the middle ones needs some 330 MB, one 150
LIMITED = f"""
import re, resource, sys
from pathlib import Path
import cubeopt.cli.progress, cubeopt.service.worker
from cubeopt.cli import main
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + {HEADROOM}, resource.RLIM_INFINITY))
main.main()
"""


def test_a_pack_that_memory_ends_shrinks_and_a_trial_too_big_alone_fails_saying_by_how_much(
    engine,
    settings,
    create,  # noqa: F811
):
    record = create(
        search={"state_size": {"choices": [SMALL, MIDDLE, HUGE]}},
        rungs={"epochs": [1], "rule": "none"},
        promotion={"top": 0},
        budget={"trials": 8},
    )
    environment = {
        **os.environ,
        "CUBEOPT_STORAGE": settings.database_url,
        "CUBEOPT_HOME": str(settings.storage_dir),
        "MALLOC_ARENA_MAX": "1",  # a thread's heap would be half of the limit
    }
    command = [sys.executable, "-c", LIMITED, *["worker", "--cpu", "--pack", "4", "--until-done"]]
    with coordinating(engine):
        done = subprocess.run(
            command, env=environment, timeout=300, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr

    runs = records.runs(engine, record.id)
    sizes = {run.spec["state_size"] for run in runs}
    assert sizes == {SMALL, MIDDLE, HUGE}
    ends = {run.id: [] for run in runs}
    for attempt in records.attempts(engine, record.id):
        ends[attempt.run_id].append(attempt.end_class)
    for run in runs:
        if run.spec["state_size"] == HUGE:
            assert (run.state, run.width) == (RunState.FAILED, 1), done.stderr
            assert set(ends[run.id]) == {EndClass.OUT_OF_MEMORY}
        else:
            assert (run.state, run.failures) == (RunState.COMPLETE, 0), done.stderr
        if run.spec["state_size"] == MIDDLE:
            assert run.width < 4
            assert ends[run.id][-1] is EndClass.DONE
        if run.spec["state_size"] == SMALL:
            assert ends[run.id] == [EndClass.DONE]
    middle = [ends[run.id] for run in runs if run.spec["state_size"] == MIDDLE]
    assert any(EndClass.OUT_OF_MEMORY in each for each in middle)
    said = r"out of memory: needed [\d.]+ [GM]B more beside the [\d.]+ GB in use; "
    said += r"there are [\d.]+ GB of addresses, the limit of this process"
    for trial in records.trials(engine, record.id):
        if trial.params["state_size"] == HUGE:
            assert trial.reason["end"] == "out_of_memory"
            assert re.fullmatch(said, trial.reason["error"])
    assert records.study(engine, record.name).state is StudyState.COMPLETE
