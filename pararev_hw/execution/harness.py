"""Several ways to run one step, in turns: what disturbs the machine meanwhile disturbs them all."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pararev_hw.execution.bound_step import StepRun
from pararev_hw.execution.job import Batch
from pararev_hw.execution.overlap import side_by_side
from pararev_hw.execution.runners import Runner
from pararev_hw.measurement import collector_at_rest
from pararev_hw.progress import Progress, Steps, silent


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of some values."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles. `values` must not be empty."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Every step that was timed, by the name of who ran it; `losses` are those of the first runner."""

    runs: Mapping[str, tuple[StepRun, ...]]
    losses: tuple[float, ...]

    def latency(self, name: str) -> Spread:
        """Seconds per step."""
        return spread([r.latency_s for r in self.runs[name]])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times faster `fast` is than `slow`, round by round."""
        pairs = zip(self.runs[slow], self.runs[fast], strict=True)
        return spread([a.latency_s / b.latency_s for a, b in pairs])

    def overlap(self, name: str) -> Spread | None:
        """Share of a step during which at least two lanes were busy; None where tasks have no times of their own."""
        if not any(r.tasks for r in self.runs[name]):
            return None
        return spread([side_by_side(lanes_of(r))[1] / r.latency_s for r in self.runs[name]])


def lanes_of(run: StepRun) -> list[list[tuple[float, float]]]:
    """When each lane was busy."""
    lanes: dict[int, list[tuple[float, float]]] = {}
    for task in run.tasks:
        lanes.setdefault(task.lane, []).append((task.start_s, task.end_s))
    return list(lanes.values())


def interleave(
    runners: Mapping[str, Runner],
    batches: Iterator[Batch],
    steps: int,
    *,
    warm_up: int = 2,
    progress: Progress = silent,
) -> Rounds:
    """Each runner takes the same `warm_up + steps` steps, one after the other in every round, each round begun by
    another runner. Garbage is collected between rounds, not within steps; what a step leaves is let go after it."""
    runs: dict[str, list[StepRun]] = {name: [] for name in runners}
    losses: list[float] = []
    names = list(runners)
    pace = Steps(progress, warm_up + steps)
    with collector_at_rest():
        for n in range(warm_up + steps):
            pace.begin("taking a step")
            batch = next(batches)
            for name in (*names[n % len(names) :], *names[: n % len(names)]):
                run = runners[name].step(batch)
                if n >= warm_up:
                    runs[name].append(run)
                loss = runners[name].loss() if name == names[0] else None
                if loss is not None:
                    losses.append(loss)
                runners[name].forget()
            gc.collect()
    return Rounds({name: tuple(step_runs) for name, step_runs in runs.items()}, tuple(losses))
