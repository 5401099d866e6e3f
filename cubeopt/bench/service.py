"""What the service costs: trials per second, a claim, a report, the wait of a device.

Workers are simulated (`crowd.py`), everything else is real: the queue, the coordinator, the
sampler, Optuna's tables, PostgreSQL. All of it stands in a database of its own. Plain Optuna
(`plain.py`) does the same trials in as many processes, in the same run on the same server: the
same space and loss, TPE with the same options, and either no pruning or successive halving at
the same epochs by the same factor.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import optuna

from cubeopt import provenance
from cubeopt.bench import crowd, plain
from cubeopt.bench.crowd import Shift, Work
from cubeopt.bench.measuring import Figure, figure, ratio
from cubeopt.db import leases, outcomes, queue, records, scratch
from cubeopt.db.engine import Engine, optuna_url
from cubeopt.db.leases import EpochReport
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import StudyState
from cubeopt.errors import InputError, StudyError
from cubeopt.search import mirror, study
from cubeopt.search.study import StudySpec
from cubeopt.settings import Settings

EPOCHS = 5
FEW, MANY = 100, 20_000  # trials already there, when a claim and a report are timed
_CALLS = 40  # of each kind in a round
SPEED_GOAL = 10.0  # times plain Optuna's trials per second
GROWTH_GOAL = 1.5  # times the cost beside few trials; a single machine's noise is near 1.2
WAIT_GOAL = 0.02  # of a worker's time
_EPOCH_SECONDS, _JITTER = 1.0, 0.1
_WATCHED_SECONDS = 30.0
_LOOK_SECONDS = 0.1  # between two looks at whether a study is complete

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Speed:
    """How fast a study goes."""

    trials: float  # per second
    reports: float  # per second

    @property
    def each(self) -> float:
        """Reports per trial."""
        return self.reports / self.trials


@dataclass(frozen=True)
class Report:
    """What was measured, on what."""

    workers: int
    trials: int
    rounds: int
    figures: Sequence[Figure]
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(settings: Settings, workers: int, trials: int, rounds: int, tell: Tell) -> Report:
    """Every section in turn; *tell* hears which one begins."""
    if trials < 3 * workers:
        raise InputError(
            f"{trials} trials for {workers} workers: give at least three for each, as the first "
            "and the last of every worker do not count"
        )
    figures = [
        *_speed(settings, workers, trials, rounds, tell),
        *_growth(settings, rounds, tell),
        *_waiting(settings, workers, rounds, tell),
    ]
    machine = {
        **provenance.hardware(),
        "python": platform.python_version(),
        "optuna": optuna.__version__,
    }
    return Report(workers, trials, rounds, figures, machine)


def _speed(
    settings: Settings, workers: int, trials: int, rounds: int, tell: Tell
) -> Iterator[Figure]:
    """Without pruning both do exactly the same; with it the number of reports is each one's own."""
    for rule, words in (("none", "no pruning"), ("asha", "successive halving")):
        section = f"{workers} workers, trials of {EPOCHS} reports that take no time, {words}"
        ours, theirs = list[Speed](), list[Speed]()
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}: trials per second, {words}")
            with scratch.database(settings) as engine:
                ours.append(_speed_of_ours(engine, workers, trials, rule))
            tell(f"round {number + 1} of {rounds}: trials per second of plain Optuna, {words}")
            with scratch.database(settings) as engine:
                theirs.append(_speed_of_plain(engine, workers, trials, rule))
        yield from _beside(section, ours, theirs)


def _beside(section: str, ours: Sequence[Speed], theirs: Sequence[Speed]) -> Iterator[Figure]:
    for name, unit in (("trials", "trials/s"), ("reports", "reports/s")):
        speed, plain_speed = [[getattr(one, name) for one in some] for some in (ours, theirs)]
        yield figure(section, "the service", unit, speed)
        yield figure(section, "plain Optuna", unit, plain_speed)
        what = f"the service's {unit} beside plain Optuna's"
        yield figure(section, what, "times", ratio(speed, plain_speed), SPEED_GOAL, True)
    yield figure(section, "the service", "reports/trial", [one.each for one in ours])
    yield figure(section, "plain Optuna", "reports/trial", [one.each for one in theirs])


def spec_of(name: str, trials: int, rule: str = "asha") -> StudySpec:
    """Four values, successive halving where Optuna's has its rungs, nothing promoted."""
    weights = ("reconstruction_weight", "similarity_weight", "diversity_weight")
    search: dict[str, Any] = {each: {"low": 0.0, "high": 1.0} for each in weights}
    search["learning_rate"] = {"low": 1e-4, "high": 1e-1, "log": True}
    content = {
        "name": name,
        "search": search,
        "rungs": {"epochs": [1, 2, 4, EPOCHS], "rule": rule, "reduction_factor": 2.0},
        "promotion": {"top": 0},
        "budget": {"trials": trials},
    }
    return study.parse(content, name)


def create(engine: Engine, spec: StudySpec) -> int:
    """Write *spec* to both sets of tables; its id."""
    record = records.create_study(
        engine,
        name=spec.name,
        spec=spec.model_dump(mode="json", exclude_none=True),
        direction=spec.objective.direction,
        metric=spec.objective.metric,
        dataset="none",
        dataset_fingerprint="none",
        dataset_rows={},
        baselines={},
        code_version="bench",
    )
    mirror.create(optuna_url(engine), spec)
    return record.id


def _speed_of_ours(engine: Engine, workers: int, trials: int, rule: str) -> Speed:
    study_id = create(engine, spec_of("speed", trials, rule))
    given = Work(_address(engine), "speed")
    with _coordinator(engine) as leaders, crowd.crowd(crowd.work, workers, given) as (them, pipes):
        crowd.tell(pipes, "go")
        speed = _steady(engine, scratch.ended, workers, trials, [*leaders, *them])
        while (record := records.study(engine, "speed")).state == StudyState.RUNNING:
            crowd.check([*leaders, *them])
            time.sleep(_LOOK_SECONDS)
    if record.state != StudyState.COMPLETE:
        raise StudyError(f"the study of the benchmark is {record.state}: {record.state_reason}")
    assert not outcomes.unmirrored(engine, study_id)
    return speed


def _speed_of_plain(engine: Engine, workers: int, trials: int, rule: str) -> Speed:
    spec, url = spec_of("plain", trials, rule), optuna_url(engine)
    mirror.create(url, spec)
    given = (url, "plain", spec.sampler, crowd.intervals(spec), EPOCHS, trials, rule == "asha")
    with crowd.crowd(plain.optimize, workers, *given) as (them, pipes):
        crowd.tell(pipes, "go")
        return _steady(engine, scratch.ended_plain, workers, trials, them)


def _steady(
    engine: Engine,
    ended: Callable[[Engine], scratch.Ended],
    workers: int,
    trials: int,
    processes: Sequence[BaseProcess],
) -> Speed:
    """The speed between the first trial of every worker and the last ones, while all are busy."""
    first = last = ended(engine)
    began = ends = time.perf_counter()
    while last.trials < trials - workers:
        crowd.check(processes)
        time.sleep(_LOOK_SECONDS)
        last, ends = ended(engine), time.perf_counter()
        if first.trials < workers and last.trials < trials - workers:
            first, began = last, ends
    seconds = ends - began
    return Speed((last.trials - first.trials) / seconds, (last.reports - first.reports) / seconds)


@contextmanager
def _coordinator(engine: Engine) -> Iterator[list[BaseProcess]]:
    with crowd.crowd(crowd.lead, 1, _address(engine)) as (processes, _):
        yield processes


def _address(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def _growth(settings: Settings, rounds: int, tell: Tell) -> Iterator[Figure]:
    """A claim and a report at a rung beside few trials and beside many, in turns."""
    section = "one worker, trials already there"
    times: dict[tuple[str, int], list[float]] = {}
    with scratch.database(settings) as small, scratch.database(settings) as large:
        desks = {FEW: _Desk(small, FEW), MANY: _Desk(large, MANY)}
        for number in range(-1, rounds):  # the first round warms up
            tell(f"a claim and a report beside {FEW} and {MANY} trials")
            for count, desk in desks.items():
                for what, milliseconds in desk.round().items():
                    if number >= 0:
                        times.setdefault((what, count), []).append(milliseconds)
    for what in ("claim", "report"):
        for count in (FEW, MANY):
            yield figure(section, f"a {what}, {count} trials", "ms", times[what, count])
        grown = ratio(times[what, MANY], times[what, FEW])
        yield figure(section, f"a {what}, {MANY} beside {FEW}", "times", grown, GROWTH_GOAL)


class _Desk:
    """Where one worker claims and reports, in a study of so many trials."""

    def __init__(self, engine: Engine, trials: int) -> None:
        self._engine, self._next = engine, trials
        self._study_id = create(engine, spec_of("growth", 10 * trials))
        scratch.fill(engine, self._study_id, trials, EPOCHS)
        self._worker_id = queue.register(engine, "simulated", "here", 0, "none", {})

    def round(self) -> dict[str, float]:
        """The median milliseconds of a claim and of a report at a rung that ends the trial."""
        numbers = range(self._next, self._next + _CALLS)
        self._next += _CALLS
        trials = [NewTrial(number, {}, {}, "growth", EPOCHS) for number in numbers]
        assert queue.enqueue(self._engine, self._study_id, trials)
        claims, reports = [], []
        for _ in numbers:
            before = time.perf_counter()
            (claim,) = queue.claim(
                *(self._engine, self._worker_id),
                limit=1,
                preferred_width=1,
                lease_seconds=crowd.LEASE_SECONDS,
                device="none",
                provenance={},
            )
            between = time.perf_counter()
            report = EpochReport(claim.run_id, claim.token, 1, 2.0, {"loss/total": 2.0})
            leases.report(self._engine, [report], crowd.decide)
            claims.append(between - before)
            reports.append(time.perf_counter() - between)
        return {
            "claim": 1e3 * statistics.median(claims),
            "report": 1e3 * statistics.median(reports),
        }


def _waiting(settings: Settings, workers: int, rounds: int, tell: Tell) -> Iterator[Figure]:
    section = f"{workers} workers, trials of {EPOCHS} epochs of {_EPOCH_SECONDS:g} s"
    shares, waits = [], []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: how long devices wait")
        with scratch.database(settings) as engine:
            shifts = _watched(engine, workers)
        waited, seconds = sum(one.waited for one in shifts), sum(one.seconds for one in shifts)
        shares.append(waited / seconds)
        waits.append(1e3 * waited / max(1, sum(one.epochs for one in shifts)))
    yield figure(section, "a device waits", "share of its time", shares, WAIT_GOAL)
    yield figure(section, "a device waits for each epoch", "ms", waits)


def _watched(engine: Engine, workers: int) -> list[Shift]:
    """What the workers did until they were told to stop."""
    create(engine, spec_of("waiting", 100_000, rule="none"))
    given = Work(_address(engine), "waiting", _EPOCH_SECONDS, _JITTER)
    with _coordinator(engine) as leaders, crowd.crowd(crowd.work, workers, given) as (them, pipes):
        crowd.tell(pipes, "go")
        ends = time.monotonic() + _WATCHED_SECONDS
        while time.monotonic() < ends:
            crowd.check([*leaders, *them])
            time.sleep(_LOOK_SECONDS)
        crowd.tell(pipes, "stop")
        return [crowd.heard(pipe) for pipe in pipes]
