"""PostgreSQL itself is gone for a while, under real workers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cubeopt.db import records
from cubeopt.db.tables import EndClass

from ..acceptance.conftest import PACK, TRIALS, check_whole, until
from .conftest import Battlefield, battlefield

COMMON = ("worker", "--cpu", "--pack", PACK, "--until-done")
STORAGE_ERROR = 3


def in_full_swing(scene: Battlefield) -> None:
    """Wait until some epochs have been recorded, but not all."""
    until(lambda: scene.recorded() >= PACK)


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        pytest.param(("--lease", 120), 3.0, id="a moment"),
        pytest.param((), 30.0, id="half a minute", marks=pytest.mark.long),
    ],
)
def test_workers_train_on_and_catch_up(
    tiny_dataset: Path,
    peace: Callable[[int, int], dict[str, Any]],
    arguments: tuple[object, ...],
    seconds: float,
) -> None:
    calm = peace(TRIALS, 1)
    with battlefield(tiny_dataset, TRIALS, 1) as scene:
        workers = [scene.start(*COMMON, *arguments) for _ in range(2)]
        in_full_swing(scene)
        scene.stop_server()
        time.sleep(seconds)
        scene.start_server()
        for worker in workers:
            assert scene.ended(worker) == 0, scene.said(worker)
        check_whole(scene)
        assert scene.outcome() == calm
        attempts = records.attempts(scene.engine, scene.study_id)
        assert {each.end_class for each in attempts} == {EndClass.DONE}
        assert scene.left_over() == []


def test_gone_for_longer_than_the_lease_workers_stop_with_one_line_and_nothing_doubles(
    tiny_dataset: Path, peace: Callable[[int, int], dict[str, Any]]
) -> None:
    calm = peace(TRIALS, 1)
    with battlefield(tiny_dataset, TRIALS, 1) as scene:
        workers = [scene.start(*COMMON, "--lease", 3) for _ in range(2)]
        in_full_swing(scene)
        scene.stop_server()
        for worker in workers:
            assert scene.ended(worker) == STORAGE_ERROR, scene.said(worker)
            said = scene.said(worker)
            assert "Traceback" not in said
            assert said.splitlines()[-1].startswith("cubeopt: PostgreSQL at ")
            assert "has not answered for" in said.splitlines()[-1]
        scene.start_server()
        again = scene.start(*COMMON, "--lease", 3)
        assert scene.ended(again) == 0, scene.said(again)
        check_whole(scene)
        assert scene.outcome() == calm


def test_an_embedded_server_that_was_killed_is_started_again_by_a_worker(
    tiny_dataset: Path, peace: Callable[[int, int], dict[str, Any]]
) -> None:
    calm = peace(TRIALS, 1)
    with battlefield(tiny_dataset, TRIALS, 1) as scene:
        url, scene.url = scene.url, None  # the workers find the server by its folder
        worker = scene.start(*COMMON)
        scene.url = url
        in_full_swing(scene)
        scene.kill_server()
        assert scene.ended(worker) == 0, scene.said(worker)
        assert "was killed; it is started again" in scene.said(worker)
        check_whole(scene)
        assert scene.outcome() == calm
