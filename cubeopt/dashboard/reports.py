"""The report of a study to download: that of `cubeopt study report`, with the winner's cube.

The cube is looked into by the server's analyst, in a process of its own; no thread waits for it.
"""

import asyncio
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cubeopt.dashboard import context, cube
from cubeopt.dashboard.analyst import Analyst
from cubeopt.dashboard.context import Context
from cubeopt.db import records, stamps
from cubeopt.errors import CubeoptError
from cubeopt.report import study_page
from cubeopt.report.study_page import Cube, Report

_PATIENCE = 45.0  # seconds for a cube: proxies give up after a minute
_LOOKS = 0.2  # seconds between two looks whether it is there


def routes() -> list[BaseRoute]:
    return [Route("/studies/{name}/report.html", _report)]


async def _report(request: Request) -> Response:
    given, name = context.of(request), request.path_params["name"]
    version = await run_in_threadpool(stamps.stamp, given.engine, name)
    if version is None:  # said with the names that there are
        version = (await run_in_threadpool(records.study, given.engine, name)).name
    state = request.app.state
    if not hasattr(state, "press"):
        state.press = Press(given, cube.analyst(request))
    press: Press = state.press
    return context.download(await press.page(name, version), f"{name}-report.html")


class Press:
    """Makes reports, each once for all who ask for it meanwhile. Belongs to the event loop."""

    def __init__(self, given: Context, analyst: Analyst) -> None:
        self._given, self._analyst = given, analyst
        self._making: dict[tuple[str, str], asyncio.Task[str]] = {}

    @property
    def making(self) -> list[tuple[str, str]]:
        """The names and versions of those that are made now."""
        return list(self._making)

    async def page(self, name: str, version: str) -> str:
        """The report of the study called *name*, whose stamp is *version*."""
        key = (name, version)
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._made(name))
            task.add_done_callback(lambda done: self._end(key))
        return await asyncio.shield(task)  # one who leaves takes it from nobody

    def _end(self, key: tuple[str, str]) -> None:
        done = self._making.pop(key)
        if not done.cancelled():
            done.exception()  # asked for, or asyncio complains where all who waited have left

    async def _made(self, name: str) -> str:
        whole = await run_in_threadpool(study_page.read, self._given.engine, name)
        looked = await self._cube(whole)
        return await run_in_threadpool(study_page.page, whole, looked)

    async def _cube(self, whole: Report) -> Cube:
        """The winner's cube, or why it is not there."""
        engine, folder = self._given.engine, self._given.settings.checkpoints_dir
        try:
            checkpoint = await run_in_threadpool(
                study_page.winners_checkpoint, engine, folder, whole
            )
        except CubeoptError as error:
            return study_page.no_cube(error)
        return await self._looked_into(checkpoint)

    async def _looked_into(self, checkpoint: Path) -> Cube:
        clock = asyncio.get_running_loop().time
        until = clock() + _PATIENCE
        while True:
            answer = await run_in_threadpool(self._analyst.ask, checkpoint)
            if answer.found is not None:
                return Cube(answer.found)
            if answer.error is not None:
                return study_page.no_cube(answer.error)
            if clock() >= until:
                return Cube(reason=_later(answer.says, answer.share))
            await asyncio.sleep(_LOOKS)


def _later(says: str, share: float) -> str:
    return (
        f"It is being looked into ({says}, {share:.0%}), which takes longer than a download may "
        "wait. Download the report again in a minute: the work goes on meanwhile."
    )
