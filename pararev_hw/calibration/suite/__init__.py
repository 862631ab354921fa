"""The suite: which ops are measured at which shapes. Every op that a trace of the zoo contains has an entry here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from pararev_hw.calibration.cases import Case
from pararev_hw.calibration.suite import (
    convolutions,
    copies,
    elementwise,
    norms,
    optimizers,
    products,
    reductions,
    views,
)
from pararev_hw.calibration.suite.entry import SEED as SEED
from pararev_hw.calibration.suite.entry import SuiteEntry as SuiteEntry

ROUNDS = 40  # over which each entry's cases are spread


def entries(device: str) -> tuple[SuiteEntry, ...]:
    """All entries for "cpu" or "cuda": half precision in bfloat16, on a GPU in float16 too."""
    dtypes = ("float32", "bfloat16", "float16") if device == "cuda" else ("float32", "bfloat16")
    return (
        *convolutions.entries(dtypes),
        *elementwise.entries(dtypes),
        *norms.entries(dtypes),
        *products.entries(dtypes),
        *reductions.entries(dtypes),
        *copies.entries(dtypes),
        *optimizers.entries(),
        *views.entries(),
    )


def in_turn(entries: Sequence[SuiteEntry]) -> Iterator[tuple[SuiteEntry, Case, bool]]:
    """Cases of all entries in turn, so that a short budget still sees every kind; larger entries come more often.

    With each case stands whether it is held out.
    """
    streams = [(e, e.cases()) for e in entries]
    for turn in range(ROUNDS):
        for entry, cases in streams:
            due = -(-entry.count * (turn + 1) // ROUNDS) - -(-entry.count * turn // ROUNDS)
            for case, held_out in islice(cases, due):
                yield entry, case, held_out
