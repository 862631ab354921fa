"""What a cost model says about many configurations at once: arrays whose last axis is the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FAILURES = (
    "",
    "the main memory does not hold the step",
    "a layer fits no core",
    "the step needs more than the memory limit",
)
NO_ROOM, NO_CORE, OVER_LIMIT = 1, 2, 3
Columns = Mapping[str, Floats]  # parameter -> its value in each configuration


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """Costs of a graph's tasks under B configurations. Tasks that always cost the same share a row.

    `seconds` and `bandwidth_demand` are [rows, B], everything else [B]; `energy_j` sums over all tasks, without what
    the schedule adds: messages between lanes, and static power.
    """

    seconds: Floats
    bandwidth_demand: Floats
    row_of_task: Ints
    energy_j: Mapping[str, Floats]
    delay_s: Floats
    delay_s_per_byte: Floats
    noc_j_per_byte: Floats
    static_w: Floats
    memory_bytes: Floats

    @staticmethod
    def gathered(parts: Sequence[tuple[Ints, TaskColumns]], count: int) -> TaskColumns:
        """One table of `count` configurations from parts, each with the places of its configurations. Parts may tell
        tasks apart differently."""
        tasks = len(parts[0][1].row_of_task)
        seconds, demand = np.empty((tasks, count)), np.empty((tasks, count))
        energy = {part: np.empty(count) for part in parts[0][1].energy_j}
        single = {name: np.empty(count) for name in _SINGLE}
        for at, part in parts:
            seconds[:, at] = part.seconds[part.row_of_task]
            demand[:, at] = part.bandwidth_demand[part.row_of_task]
            for name, values in part.energy_j.items():
                energy[name][at] = values
            for name, into in single.items():
                into[at] = getattr(part, name)
        return TaskColumns(
            seconds=seconds, bandwidth_demand=demand, row_of_task=np.arange(tasks), energy_j=energy, **single
        )


_SINGLE = ("delay_s", "delay_s_per_byte", "noc_j_per_byte", "static_w", "memory_bytes")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What B configurations cost. `failure` is an index into FAILURES: where it is not 0 the rest means nothing."""

    latency_s: Floats
    sequential_s: Floats
    energy_j: Mapping[str, Floats]  # by part, with "static", "noc" and "total"
    peak_bytes: Floats
    failure: Ints


class CostColumns(Protocol):
    """A cost model of one network on one base device, for many configurations at a time."""

    def __call__(self, columns: Columns, lanes: int, count: int) -> TaskColumns: ...
