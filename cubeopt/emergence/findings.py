"""What a cube shows, in plain sentences."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cubeopt.emergence.record import Emergence

IDLE = 0.01  # of the choices: an expert that gives less could be left out unseen
UNDECIDED = 0.98  # of the most bits there are: each expert has about the same share
DECIDED = 0.1  # of these bits: the choice is nearly always for one expert
BY_PLACE = 0.05  # bits: from here on it matters which cell it is
BY_TASK = 0.01  # bits, mean over the cells: less is nothing that a cell could be known by
FADES, GROWS = 0.01, 100.0  # the output's change over the input's
HALF = 0.5


class Kind(StrEnum):
    """What can be found."""

    CUT = "cut"  # nothing that changes at the input reaches the output
    PARTLY_CUT = "partly cut"  # some cells that are read never hear of it
    FADING = "fading"  # what arrives is next to nothing
    EXPLODING = "exploding"  # a small change of the input turns the output over
    DEAD_EXPERT = "dead expert"  # the gate does not pick it anywhere
    FROZEN_GATE = "frozen gate"  # each expert has the same share, by configuration
    UNDECIDED_GATE = "undecided gate"  # a learned gate that mixes all alike
    DECIDED_GATE = "decided gate"  # one expert a choice
    BY_PLACE = "specialised by cell"
    BY_TASK = "specialised by task"
    NOT_BY_TASK = "not specialised by task"
    ARRIVES = "arrival"  # when a change of the input reaches the output
    GAIN = "gain"  # how much of it arrives
    CARRIERS = "carriers"  # how few cells carry half of it


TROUBLES = frozenset(
    {
        *(Kind.CUT, Kind.PARTLY_CUT, Kind.FADING, Kind.EXPLODING),
        *(Kind.DEAD_EXPERT, Kind.UNDECIDED_GATE),
    }
)


@dataclass(frozen=True)
class Finding:
    """Something that a cube shows."""

    kind: Kind | str
    subject: str  # an expert; "" for the cube as a whole
    trouble: bool  # whether something should be done about it
    sentence: str


def findings(found: "Emergence") -> list[Finding]:
    """All that *found*, whose own findings are not looked at, shows; troubles first."""
    all_of_them = [*_flow(found), *_experts(found), *_gate(found), *_tasks(found)]
    return sorted(all_of_them, key=lambda each: not each.trouble)


def _finding(kind: Kind, sentence: str, subject: str = "") -> Finding:
    return Finding(kind, subject, kind in TROUBLES, sentence)


def _flow(found: "Emergence") -> Iterator[Finding]:
    flow, steps = found.flow, len(found.steps) - 1
    whole = flow.news[0]
    if set(found.written) == set(found.read):
        yield from _gain(found)
        return
    if whole.first_step is None:
        yield _finding(
            Kind.CUT,
            f"nothing that changes at the input face reaches the output face in {steps} steps: "
            f"{_farthest(found)}; the output does not depend on the input",
        )
        return
    unheard = sum(whole.response[-1][cell] == 0.0 for cell in found.read)
    if unheard:
        yield _finding(
            Kind.PARTLY_CUT,
            f"{unheard} of the {len(found.read)} cells that are read never hear of a change of "
            "the input",
        )
    every = "" if whole.all_read is None else f", and all of it by step {whole.all_read}"
    if whole.all_read == whole.first_step:
        every = ", all of it at once"
    yield _finding(
        Kind.ARRIVES,
        f"a change of the input reaches the output face at step {whole.first_step} of {steps}"
        f"{every}; at the end {100.0 * flow.at_read:.3g} % of all change (sum of squares) is there",
    )
    yield from _gain(found)
    yield from _carriers(found)


def _farthest(found: "Emergence") -> str:
    """How far the news came."""
    reached = [cell for cell, size in enumerate(found.flow.news[0].response[-1]) if size > 0.0]
    depth = found.size[2]
    if not reached:
        return "not even the cells that are written change"
    if found.placement == "opposite_faces":
        return f"the last layer reached is z={max(cell % depth for cell in reached)} of {depth - 1}"
    return f"{len(reached)} of {found.cells} cells hear of it"


def _gain(found: "Emergence") -> Iterator[Finding]:
    gain = found.flow.gain
    said = (
        f"where the input changes by {100.0 * found.flow.size:g} % of an embedding's typical size, "
        f"the output changes by {100.0 * found.flow.size * gain:.3g} %"
    )
    if gain < FADES:
        yield _finding(Kind.FADING, f"{said}: next to nothing arrives")
    elif gain > GROWS:
        yield _finding(Kind.EXPLODING, f"{said}: noise would decide what comes out")
    else:
        yield _finding(Kind.GAIN, said)


def _carriers(found: "Emergence") -> Iterator[Finding]:
    """Of the step in the middle: at the ends it is the two faces."""
    step = (len(found.steps) - 1) // 2
    shares = sorted((abs(each) for each in found.flow.carried[step]), reverse=True)
    total, sum_so_far = math.fsum(shares), 0.0
    if total == 0.0:
        return
    for count, share in enumerate(shares, start=1):
        sum_so_far += share
        if sum_so_far >= HALF * total:
            yield _finding(
                Kind.CARRIERS,
                f"after step {step} of {len(found.steps) - 1}, half of what will reach the output "
                f"goes through {count} of {found.cells} cells",
            )
            return


def _experts(found: "Emergence") -> Iterator[Finding]:
    if found.gate == "frozen" or len(found.experts) < 2:
        return
    for expert in found.experts:
        usage = found.metrics[f"usage/{expert}"]
        if usage < 100.0 * IDLE:
            most = max(max(step.shares[expert]) for step in found.steps if step.shares is not None)
            yield _finding(
                Kind.DEAD_EXPERT,
                f"the gate gives the expert {usage:.2g} % of the choices, and no cell at any step "
                f"more than {100.0 * most:.2g} %; raise emergence_weight, or leave it out of "
                "experts",
                expert,
            )


def _gate(found: "Emergence") -> Iterator[Finding]:
    count = len(found.experts)
    if count < 2:
        return
    most, bits = math.log2(count), found.metrics["gate_entropy"]
    if found.gate == "frozen":
        yield _finding(
            Kind.FROZEN_GATE,
            f"the gate is frozen: each of the {count} experts has the same share everywhere, so no "
            "cell can specialise",
        )
        return
    said = f"a choice's shares have a mean entropy of {bits:.3g} bits, of at most {most:.3g}"
    if bits > UNDECIDED * most:
        yield _finding(
            Kind.UNDECIDED_GATE,
            f"the gate is undecided: {said}; raise emergence_weight, or train longer",
        )
        return
    if bits < DECIDED * most:
        yield _finding(Kind.DECIDED_GATE, f"nearly every choice is for one expert: {said}")
    place = found.metrics["specialisation/cell"]
    if place >= BY_PLACE:
        share = 100.0 * place / found.metrics["specialisation"]
        yield _finding(
            Kind.BY_PLACE,
            f"which expert works depends on the cell: {place:.3g} bits, {share:.0f} % of all that "
            "the choice depends on",
        )


def _tasks(found: "Emergence") -> Iterator[Finding]:
    tasks = found.tasks
    if tasks is None or found.gate == "frozen" or len(found.experts) < 2:
        return
    mean, limit = math.fsum(tasks.bits) / found.cells, tasks.by_chance
    if mean <= limit:
        yield _finding(
            Kind.NOT_BY_TASK,
            f"no cell's choice of an expert depends on the task: {mean:.2g} bits in the mean, and "
            f"shuffled tasks give up to {limit:.2g}",
        )
        return
    best = max(range(found.cells), key=lambda cell: tasks.bits[cell])
    if mean < BY_TASK:
        yield _finding(
            Kind.NOT_BY_TASK,
            f"the choice of an expert hardly depends on the task: {mean:.2g} bits in the mean, "
            f"more than the {limit:.2g} of shuffled tasks but next to nothing; at most "
            f"{tasks.bits[best]:.2g}, in cell {place(found, best)}",
        )
        return
    yield _finding(
        Kind.BY_TASK,
        f"the choice of an expert depends on the task: {mean:.2g} bits in the mean (shuffled tasks "
        f"give up to {limit:.2g}), {tasks.bits[best]:.2g} in cell {place(found, best)}",
    )


def place(found: "Emergence", cell: int) -> str:
    """The coordinates of *cell*."""
    _, height, depth = found.size
    return f"({cell // (height * depth)}, {cell // depth % height}, {cell % depth})"
