"""Recordings of passes: nothing but tensors decides, and a recording is kept only where it pays.

No GPU is asked for. `TapeRecorder` records as a CUDA graph does, each operation of a pass and of
its way back with the memory that it reads and writes, and repeats them on a CPU. `ScriptedRecorder`
and `ScriptedCuda` only pretend: what is decided can be seen, and what torch is asked for.
"""

import logging
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cubeopt import trial
from cubeopt.lattice.pack import Columns
from cubeopt.training import captured
from cubeopt.training.captured import COST, Graphs
from cubeopt.training.gradient import Found, Given
from cubeopt.training.weighting import Factors

from .conftest import FEATURES, WHOLE, start, train
from .test_loop import assert_same


class Tape(TorchDispatchMode):
    """Writes down operations below autograd, and repeats them on the memory that they had."""

    def __init__(self):
        super().__init__()
        self._operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if not func.is_view:  # a view still shows what changes
            self._operations.append((func, args, kwargs, made))
        return made

    @torch.no_grad()
    def repeat(self):
        for func, args, kwargs, made in self._operations:
            again = func(*args, **kwargs)
            for new, old in zip(tree_leaves(again), tree_leaves(made), strict=True):
                if isinstance(old, torch.Tensor) and new is not old:
                    old.copy_(new)


class TapeRecorder:
    """Records and repeats as a CUDA graph does: no line of Python runs again."""

    def __init__(self):
        self.records = self.replays = 0
        self._clock = 0.0

    def record(self, compute, given, stays):
        self.records += 1
        own, tape = captured.inputs(given, stays), Tape()
        with tape:
            found = compute(own.given)

        def replay(given):
            self.replays += 1
            own.fill(given)
            tape.repeat()
            return found

        return replay

    def timed(self, call):
        self._clock -= 1.0
        return self._clock, call()  # what comes later is faster


FIXED = {}
THRESHOLD = {"halting": "threshold", "halting_threshold": 0.5}
LEARNED = {"halting": "learned", "readout": "value"}
PLAIN = [{}, {"seed": 1}]
RICH = [FEATURES, {"weighting": "uncertainty", "emergence": "legacy_log", "data_seed": 1}]
MOVING = [{"weighting": "annealed", "spatial_weight_end": 1.0}, {"weighting": "dynamic_average"}]


@pytest.mark.parametrize(
    ("shape", "packs"), [(FIXED, [PLAIN, RICH, MOVING]), (THRESHOLD, [MOVING]), (LEARNED, [RICH])]
)
def test_recorded_passes_repeated_on_the_inputs_of_later_steps_train_to_the_same_bits(
    feed, shape, packs, monkeypatch
):
    monkeypatch.setattr(captured, "COST", 2)
    runs, recorder = [], TapeRecorder()
    for recorded in (False, True):
        run = start(feed, 3, {2: trial.from_flat({**WHOLE, **shape})})
        if recorded:
            run.cube.stops_early = False  # as on a GPU
            run._graphs = Graphs(run._compute, [run.arena, run._weighting.learned], recorder)
        for pack in packs:
            for slot, each in enumerate(pack):
                run.empty(slot)
                run.fill(slot, run.fresh(trial.from_flat({**WHOLE, **shape, **each})))
            train(run, 8)
        runs.append(run)
    for slot in range(3):
        assert_same(runs[1].state(slot), runs[0].state(slot))
    assert recorder.records <= len(packs)  # what only moves numbers is no new recording
    assert recorder.replays >= 6 * len(packs) + captured._TIMED


class ScriptedRecorder:
    """Pretends: a recording takes *replayed* seconds a pass, and gives what the pass gives."""

    def __init__(self, replayed=1.0, wrong=0.0, error=None):
        self.replayed, self.wrong, self.error = replayed, wrong, error
        self.recorded, self.replays = [], 0

    def record(self, compute, given, stays):
        self.recorded.append(given)
        if self.error is not None:
            raise self.error

        def replay(given):
            self.replays += 1
            found = compute(given)
            return found._replace(gradient=found.gradient + self.wrong)

        return replay

    def timed(self, call):
        before = self.replays
        found = call()
        return self.replayed if self.replays > before else 2.0, found


def given(value=0.0, legacy=False, **changes):
    rows = torch.full((2, 3), value)
    marks = torch.zeros(2, dtype=torch.bool) if legacy else None
    return Given(rows, rows, rows, None, None, Columns(rows[:, 0], marks), Factors(rows))._replace(
        **changes
    )


def passes(graphs, count, left=1000, **values):
    """The gradients of so many passes, which are twice what was given."""
    return [float(graphs(given(n, **values), left).gradient[0, 0]) for n in range(count)]


def doubled(given):
    return Found(2.0 * given.weights, given.source, given.source, given.source, None)


def made(**script):
    recorder = ScriptedRecorder(**script)
    return Graphs(doubled, [], recorder), recorder


def test_a_pass_is_recorded_when_it_has_come_as_often_as_that_costs():
    graphs, recorder = made()
    assert passes(graphs, COST - 1) == [2.0 * n for n in range(COST - 1)]
    assert (recorder.recorded, graphs.settled) == ([], False)
    assert passes(graphs, 3) == [0.0, 2.0, 4.0]
    assert len(recorder.recorded) == 1
    assert graphs.settled
    tried = 1 + captured._TIMED  # compared with the pass, and timed
    assert recorder.replays == tried + 2


def test_nothing_is_recorded_for_fewer_batches_than_that_costs():
    graphs, recorder = made()
    passes(graphs, 3 * COST, left=COST - 1)
    assert (recorder.recorded, graphs.settled) == ([], True)
    passes(graphs, COST, left=COST)
    assert len(recorder.recorded) == 1


@pytest.mark.parametrize(
    ("script", "level", "said"),
    [
        ({"replayed": 2.0}, logging.INFO, "would not be faster: 2000.00 ms a pass against 2000.00"),
        ({"wrong": 1e-5}, logging.WARNING, "other numbers than the pass it is of"),
        ({"error": RuntimeError("not\npermitted")}, logging.WARNING, "for this pack (not); it"),
        ({"error": torch.OutOfMemoryError("too wide")}, logging.WARNING, "(too wide); it trains"),
    ],
)
def test_what_does_not_pay_or_does_not_go_is_said_once_and_left(script, level, said, caplog):
    caplog.set_level(logging.INFO)
    graphs, recorder = made(**script)
    assert passes(graphs, 3 * COST) == [2.0 * n for n in range(3 * COST)]
    assert len(recorder.recorded) == 1
    assert graphs.settled
    (line,) = caplog.records
    assert (line.levelno, said in line.getMessage()) == (level, True)
    assert ("CUBEOPT_CUDA_GRAPHS=off" in line.getMessage()) is (level == logging.WARNING)
    passes(graphs, COST, legacy=True)  # another pass, which may go; after a failure none may
    assert len(recorder.recorded) == (1 if "error" in script else 2)


def test_recordings_make_room_for_a_pass_that_finds_no_memory(caplog):
    graphs, recorder = made()
    passes(graphs, COST)
    short = iter([torch.OutOfMemoryError("needs more")])

    def compute(given):
        for error in short:
            raise error
        return doubled(given)

    graphs._compute = compute
    assert passes(graphs, 2, legacy=True) == [0.0, 2.0]
    assert "memory is short" in caplog.text
    passes(graphs, 2 * COST)
    assert (len(recorder.recorded), graphs._recorded) == (1, {})
    short = iter([torch.OutOfMemoryError("still")])
    with pytest.raises(torch.OutOfMemoryError, match="still"):
        passes(graphs, 1)


def test_numbers_that_are_not_finite_may_be_equal():
    nans = given(float("nan"))
    graphs, recorder = made()
    for _ in range(COST + 1):
        assert graphs(nans, 1000).gradient.isnan().all()
    assert recorder.replays > captured._TIMED + 1


def test_a_pass_of_another_form_has_a_recording_of_its_own_and_few_are_kept():
    graphs, recorder = made()
    forms = [{"dropout": None if n == 0 else (torch.zeros(n),)} for n in range(captured._KEPT + 1)]
    for form in forms:
        passes(graphs, COST, **form)
    assert len(graphs._recorded) == captured._KEPT
    passes(graphs, 2, **forms[1])  # is there still
    assert len(recorder.recorded) == len(forms)
    passes(graphs, COST, **forms[0])  # the first had to go
    assert len(recorder.recorded) == len(forms) + 1


def test_inputs_lie_as_what_they_are_filled_with_and_what_stays_is_taken_itself():
    arena, batch = torch.ones(2, 3), torch.arange(12.0).view(1, 4, 3)
    first = given(weights=arena, source=batch.expand(5, 4, 3), target=batch[:, :, ::2])
    own = captured.inputs(first, [arena])
    assert own.given.weights is arena
    assert own.given.source.stride() == (0, 3, 1)
    assert own.given.source.untyped_storage().nbytes() == 12 * 4
    assert own.given.target.stride() == (12, 3, 2)
    own.fill(first._replace(source=(batch + 1.0).expand(5, 4, 3)))
    assert torch.equal(own.given.source, (batch + 1.0).expand(5, 4, 3))
    assert torch.equal(own.given.target, batch[:, :, ::2])
    assert own.given.dropout is own.given.knobs.legacy_log is None


def test_a_cpu_records_nothing_and_a_person_may_forbid_it(feed, monkeypatch):
    run = start(feed, 1, {})
    assert run.settled
    assert run._graphs is None
    gpu = torch.device("cuda", 0)
    monkeypatch.setenv("CUBEOPT_CUDA_GRAPHS", "OFF")
    assert captured.graphs(doubled, [], gpu) is None


class ScriptedCuda:
    """Stands in for torch.cuda and says in which order it was asked: it captures nothing."""

    def __init__(self, monkeypatch, fails=None):
        self.asked = []
        self.fails = fails  # when a capture ends
        self.current = "main"
        monkeypatch.setattr(captured, "_BROKEN", [])
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: ScriptedStream("side", self))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: ScriptedGraph(self))
        for name in ("current_stream", "set_stream", "stream", "graph", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def current_stream(self, device):
        return ScriptedStream(self.current, self)

    def set_stream(self, stream):
        self.current = stream.name

    def synchronize(self, device):
        self.asked.append("synchronize")

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream.name
        yield
        self.current = before

    @contextmanager
    def graph(self, graph, pool, stream):
        self.asked.append(f"capture on {stream.name} into {pool}")
        self.current = stream.name
        yield
        if self.fails is not None:
            raise self.fails  # torch leaves the stream as it is then
        self.current = "main"


class ScriptedStream:
    def __init__(self, name, cuda):
        self.name, self._cuda = name, cuda

    def wait_stream(self, other):
        self._cuda.asked.append(f"{self.name} waits for {other.name}")


class ScriptedGraph:
    def __init__(self, cuda):
        self.replay = lambda: cuda.asked.append("replay")


def test_a_capture_comes_after_a_pass_on_its_stream_and_replays_on_new_inputs(monkeypatch):
    cuda = ScriptedCuda(monkeypatch)
    recorder = captured.CudaRecorder(torch.device("cuda", 0))

    def compute(given):
        cuda.asked.append(f"pass on {cuda.current}")
        return doubled(given)

    replay = recorder.record(compute, given(1.0), [])
    assert cuda.asked == [
        "side waits for main",
        "pass on side",
        "main waits for side",
        "capture on side into pool",
        "pass on side",
    ]
    cuda.asked.clear()
    seconds, found = recorder.timed(lambda: replay(given(3.0)))
    assert cuda.asked == ["synchronize", "replay", "synchronize"]
    assert seconds > 0.0
    assert float(found.terms[0, 0]) == 3.0  # the recording's own input, filled anew


@pytest.mark.parametrize(
    ("error", "broken"),
    [(torch.OutOfMemoryError("too wide"), 0), (torch.AcceleratorError("not permitted"), 1)],
)
def test_after_a_capture_that_failed_the_stream_is_the_old_one_and_none_is_tried_again(
    monkeypatch, error, broken
):
    cuda = ScriptedCuda(monkeypatch, fails=error)
    recorder = captured.CudaRecorder(torch.device("cuda", 0))
    with pytest.raises(type(error), match=str(error)):
        recorder.record(doubled, given(), [])
    assert (cuda.current, len(captured._BROKEN)) == ("main", broken)
    cuda.fails = None
    if broken:
        with pytest.raises(RuntimeError, match="an earlier capture of this process failed"):
            recorder.record(doubled, given(), [])
    else:
        recorder.record(doubled, given(), [])
