"""A cube's cells as rows: what each way of colouring them shows, step by step.

Every number on the pictures of a cube comes from here, and this from `emergence.record`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.emergence.findings import place
from cubeopt.emergence.record import Emergence, News, Step

Values = Sequence[float | None]  # by cell; None: nothing to show there

LEAD = 0.01  # of the shares, by which an expert must be ahead of the next to dominate
NO_LEAD = "no lead"
_DECADES = 4  # that a logarithmic scale shows


@dataclass(frozen=True)
class Frame:
    """One step of a colouring."""

    step: int
    values: Values
    caption: str  # what there is to see, in words
    layers: Values  # mean of the values (of shares and logarithms, too) in each layer z
    details: Sequence[Sequence[float]] = ()  # by cell: what else is said of it


@dataclass(frozen=True)
class Colouring:
    """One way to colour the cells; a frame for each step at which there is something to show."""

    key: str
    group: str
    title: str
    unit: str
    explained: str
    scale: str  # category, linear or log
    low: float
    high: float
    frames: Sequence[Frame]
    categories: Sequence[str] = ()  # what the values 0, 1, ... stand for
    detailed: Sequence[str] = ()  # names of the details
    sized: bool = False  # whether cells with small values are to be drawn small


def colourings(found: Emergence) -> list[Colouring]:
    """All of them, the dominant expert first."""
    return [
        *_gates(found),
        _of_states(found, "activity", "Activity", "Size of a cell's state: its root mean square."),
        _of_states(
            found, "change", "Change", "How far an exchange moved a cell's state: root mean square."
        ),
        *_tasks(found),
        *(_response(found, news) for news in found.flow.news),
        _carried(found),
    ]


def colouring(found: Emergence, key: str) -> Colouring:
    """The one called *key*; KeyError when the cube has none of that name."""
    return {each.key: each for each in colourings(found)}[key]


def facts(found: Emergence) -> dict[str, Any]:
    """The cube in a few numbers."""
    whole = found.flow.news[0]
    return {
        "checkpoint": found.checkpoint,
        "epoch": found.epoch,
        "dataset": f"{found.dataset} ({found.dataset_fingerprint[:12]})",
        "rows": f"{found.rows} of {found.validation_rows} validation rows, evenly spread",
        "cube": f"{'x'.join(map(str, found.size))} cells, {len(found.steps) - 1} steps, "
        f"{found.placement.replace('_', ' ')}",
        "gate": found.gate,
        **{name: value for name, value in found.metrics.items()},
        "flow/first_step": whole.first_step,
        "flow/all_read": whole.all_read,
        "flow/gain": found.flow.gain,
        "flow/at_read": found.flow.at_read,
    }


def step_rows(found: Emergence) -> list[dict[str, Any]]:
    """A row for each step, means over the cells (of sizes, root mean squares)."""
    whole = found.flow.news[0]
    return [
        {
            "step": step.step,
            "taken": step.taken,
            **{
                expert: _mean(step.shares[expert]) if step.shares else None
                for expert in found.experts
            },
            "entropy": _mean(step.entropy) if step.entropy else None,
            "activity": _root(step.activity),
            "change": _root(step.change),
            "reached": sum(size > 0.0 for size in response),
            "read_response": _root([response[cell] for cell in found.read]),
        }
        for step, response in zip(found.steps, whole.response, strict=True)
    ]


def ring_rows(found: Emergence) -> list[dict[str, Any]]:
    """How far a change of the input reaches, by distance from the cells that are written."""
    return [asdict(ring) for ring in found.flow.news[0].rings]


def cell_rows(found: Emergence) -> list[dict[str, Any]]:
    """A row for each cell at the last step, with its place: what a table or pandas wants."""
    last, whole = found.steps[-1], found.flow.news[0]
    rows = []
    for cell in range(found.cells):
        x, y, z = position(found, cell)
        rows.append(
            {
                **{"cell": cell, "x": x, "y": y, "z": z},
                **{
                    name: last.shares[name][cell] if last.shares else None for name in found.experts
                },
                "entropy": last.entropy[cell] if last.entropy else None,
                "activity": last.activity[cell],
                "change": last.change[cell],
                "task_bits": found.tasks.bits[cell] if found.tasks else None,
                "response": whole.response[-1][cell],
            }
        )
    return rows


def position(found: Emergence, cell: int) -> tuple[int, int, int]:
    """Where *cell* is."""
    _, height, depth = found.size
    return cell // (height * depth), cell // depth % height, cell % depth


def dominant(shares: Mapping[str, Sequence[float]], experts: Sequence[str], cell: int) -> int:
    """The place in *experts* of the one with the largest share; their number where none leads."""
    order = sorted(range(len(experts)), key=lambda e: -shares[experts[e]][cell])
    if len(order) > 1:
        ahead = shares[experts[order[0]]][cell] - shares[experts[order[1]]][cell]
        if ahead < LEAD:
            return len(experts)
    return order[0]


def _gates(found: Emergence) -> Iterator[Colouring]:
    chosen = [step for step in found.steps if step.shares is not None]
    yield _experts(found, chosen)
    most = math.log2(len(found.experts)) or 1.0
    frames = [_frame(found, step.step, step.entropy or (), "bits") for step in chosen]
    yield Colouring(
        "entropy",
        "Gate",
        "Gate entropy",
        "bits",
        f"How undecided the gate is: 0 when every choice is for one expert, {most:.3g} when all "
        "experts have the same share.",
        "linear",
        0.0,
        most,
        frames,
    )
    for expert in found.experts:
        values = [(step.step, (step.shares or {})[expert]) for step in chosen]
        frames = [_frame(found, step, [100.0 * each for each in row], "%") for step, row in values]
        yield Colouring(
            f"share:{expert}",
            "Gate",
            f"Share of the {expert} expert",
            "%",
            f"How much of a cell's move the {expert} expert decides, mean over the samples.",
            "linear",
            0.0,
            100.0,
            frames,
        )


def _experts(found: Emergence, chosen: Sequence[Step]) -> Colouring:
    names = [*found.experts, NO_LEAD]
    frames = []
    for step in chosen:
        shares = step.shares or {}
        leading = [dominant(shares, found.experts, cell) for cell in range(found.cells)]
        counts = ", ".join(
            f"{name} in {leading.count(e)}" for e, name in enumerate(names) if e in leading
        )
        layers = [float(_commonest(row)) for row in _by_layer(found, leading)]
        details = [
            [round(100.0 * shares[name][cell], 1) for name in found.experts]
            for cell in range(found.cells)
        ]
        caption = f"After step {step.step}, of {found.cells} cells: {counts}."
        frames.append(Frame(step.step, leading, caption, layers, details))
    return Colouring(
        "expert",
        "Gate",
        "Dominant expert",
        "",
        "Which expert has the largest share of a cell's move, mean over the samples; "
        f"'{NO_LEAD}' where it is less than {100.0 * LEAD:g} point ahead.",
        "category",
        0.0,
        float(len(names) - 1),
        frames,
        names,
        [f"{name}, %" for name in found.experts],
    )


def _of_states(found: Emergence, key: str, title: str, explained: str) -> Colouring:
    rows = [(step.step, getattr(step, key)) for step in found.steps]
    rows = rows[1:] if key == "change" else rows
    frames = [_frame(found, step, row, "units") for step, row in rows]
    high = max(max(row) for _, row in rows)
    return Colouring(
        key,
        "State",
        title,
        "units of the state",
        explained,
        "linear",
        0.0,
        high or 1.0,
        frames,
        sized=True,
    )


def _tasks(found: Emergence) -> Iterator[Colouring]:
    tasks = found.tasks
    if tasks is None:
        return
    frame = _frame(found, len(found.steps) - 1, tasks.bits, "bits")
    yield Colouring(
        "task",
        "Task",
        "Specialisation by task",
        "bits",
        "How much a cell's choice of an expert tells about the task, over all steps: their mutual "
        f"information. Shuffled tasks give a mean of up to {tasks.by_chance:.2g}.",
        "linear",
        0.0,
        max(tasks.bits) or 1.0,
        [frame],
        sized=True,
    )
    first, *_, last = tasks.shares
    for expert in found.experts:
        gap = [
            round(100.0 * (one - other), 2)
            for one, other in zip(
                tasks.shares[last][expert], tasks.shares[first][expert], strict=True
            )
        ]
        most = max(map(abs, gap)) or 1.0
        frame = _frame(found, len(found.steps) - 1, gap, "points")
        yield Colouring(
            f"task:{expert}",
            "Task",
            f"{expert}: {last} minus {first}",
            "points",
            f"How many points more the {expert} expert has with rows of {last} than with rows of "
            f"{first}, over all steps.",
            "diverging",
            -most,
            most,
            [frame],
        )


def _response(found: Emergence, news: News) -> Colouring:
    whole = news.name == "input"
    what = "a change of the whole input" if whole else f"a change of cell ({news.name}) alone"
    frames = []
    for step, row in enumerate(news.response):
        reached = [each or None for each in row]
        count = sum(each is not None for each in reached)
        said = f"After step {step}, the change has reached {count} of {found.cells} cells"
        if count:
            most = max(range(found.cells), key=lambda cell: row[cell])
            said += f"; most moved is {place(found, most)}, by {row[most]:.3g}"
        frames.append(Frame(step, reached, f"{said}.", _means(found, reached)))
    high = max(max(row) for row in news.response) or 1.0
    low = min((each for row in news.response for each in row if each), default=high)
    return Colouring(
        "response" if whole else f"response:{news.name}",
        "Flow",
        f"Response to {what}",
        "times the change at step 0",
        f"How far {what} ({100.0 * found.flow.size:g} %) moves each cell's state, beside how far "
        "it moved the changed cells at step 0: 1 is as far.",
        "log",
        max(low, high * 10.0**-_DECADES),
        high,
        frames,
        sized=True,
    )


def _carried(found: Emergence) -> Colouring:
    frames = []
    for step, row in enumerate(found.flow.carried):
        values = [100.0 * each for each in row]
        most = max(range(found.cells), key=lambda cell: values[cell])
        caption = f"After step {step}, nothing will reach the output."
        if any(values):
            caption = (
                f"After step {step}, cell {place(found, most)} carries most of what will reach "
                f"the output: {values[most]:.3g} %."
            )
        frames.append(Frame(step, _rounded(values), caption, _sums(found, values)))
    high = max(max(map(abs, row)) for row in found.flow.carried) * 100.0
    return Colouring(
        "carried",
        "Flow",
        "Carries the change",
        "% of the output's change",
        "Which share of the output's change goes through a cell at a step; those of a step sum to "
        "100 %, and a share below 0 works against the rest.",
        "linear",
        0.0,
        high or 1.0,
        frames,
        sized=True,
    )


def _frame(found: Emergence, step: int, values: Sequence[float], unit: str) -> Frame:
    most = max(range(found.cells), key=lambda cell: values[cell])
    least = min(range(found.cells), key=lambda cell: values[cell])
    caption = (
        f"After step {step}: mean {_mean(values):.3g} {unit}, from {values[least]:.3g} in "
        f"{place(found, least)} to {values[most]:.3g} in {place(found, most)}."
    )
    return Frame(step, _rounded(values), caption, _means(found, values))


def _by_layer(found: Emergence, values: Values) -> list[list[Any]]:
    depth = found.size[2]
    return [list(values[z::depth]) for z in range(depth)]


def _means(found: Emergence, values: Values) -> list[float | None]:
    """Of each layer, the mean; cells without a value count as 0, layers without any have none."""
    return [
        float(f"{math.fsum(each or 0.0 for each in row) / len(row):.3g}")
        if any(each is not None for each in row)
        else None
        for row in _by_layer(found, values)
    ]


def _sums(found: Emergence, values: Sequence[float]) -> list[float]:
    return _rounded([math.fsum(row) for row in _by_layer(found, values)])


def _commonest(row: Sequence[int]) -> int:
    return max(sorted(set(row)), key=row.count)


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{each:.3g}") + 0.0 for each in values]


def _mean(values: Sequence[float]) -> float:
    return float(f"{math.fsum(values) / len(values):.4g}")


def _root(values: Sequence[float]) -> float:
    return float(f"{math.sqrt(math.fsum(each * each for each in values) / len(values)):.4g}")
