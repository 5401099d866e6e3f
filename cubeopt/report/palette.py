"""Colours that colour-blind eyes can tell apart (Okabe and Ito 2008), one for each thing."""

from types import MappingProxyType

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#999999"
DEEP_GREEN, DEEP_VERMILION = "#00694A", "#A33A00"  # behind white text
INK, QUIET, FAINT = "#333333", "#595959", "#BBBBBB"  # text, text beside it, lines behind data

EXPERTS = MappingProxyType({"local": BLUE, "functional": ORANGE, "distant": GREEN})
SPLITS = MappingProxyType({"train": BLUE, "validation": VERMILION, "test": GREEN})
STATES = MappingProxyType(
    {
        "waiting": FAINT,
        "running": SKY,
        "complete": GREEN,
        "pruned": ORANGE,
        "failed": VERMILION,
    }
)
ENDS = MappingProxyType(  # of attempts; None: it goes on
    {
        None: SKY,
        "done": GREEN,
        "pruned": ORANGE,
        "preempted": BLUE,
        "lost": GREY,
        "out_of_memory": PURPLE,
        "diverged": INK,
        "error": VERMILION,
    }
)
