"""How far the tracing of a step is: about how many operations there will be, how long and how much memory they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pararev_hw import limits
from pararev_hw.errors import Infeasible
from pararev_hw.progress import Progress, silent, time_left

EVERY = 1024  # operations
WHOLE_STEP = 3.2  # operations of a training step for each of its forward pass: 2.8 to 3.8 in the zoo's networks
BUILDING = 0.6  # seconds that the graph takes for each of recording: 0.15 to 0.7 there

MOST_MODULES = 0.9  # some are never called
AGAIN = 1.5  # calls of each: a network that walks through time has come to its second step


@dataclass(slots=True)
class StepWatch:
    """Hears of every `EVERY` operations of a step that is recorded.

    `passes`: the forward passes of a training step; 0 is inference. `modules`: those of the network that compute, which
    are called in each of `timesteps` where it walks through time. Raises Infeasible as soon as the step needs more than
    `free_bytes`.
    """

    name: str
    passes: int
    modules: int
    timesteps: int | None = None
    progress: Progress = silent
    free_bytes: int | None = None
    clock: Callable[[], float] = time.monotonic
    _began_s: float = field(init=False, default=0.0)
    _forward: int = field(init=False, default=0)  # operations of the first forward pass, once it is over

    def begin(self) -> None:
        """The step is recorded from its first operation on, maybe once more."""
        self._began_s, self._forward = self.clock(), 0

    def recorded(self, operations: int, calls: int, modules: int, backward: bool) -> None:
        """So many operations by now, in so many calls of so many modules; `backward`: a gradient is being computed."""
        if backward and not self._forward:
            self._forward = operations
        whole = max(1, self.passes) * (WHOLE_STEP if self.passes else 1.0)
        self._check(int(max(operations, whole * (self._forward or operations))))
        share = min(
            1.0, operations / (self._forward * whole) if self._forward else self._walked(calls, modules) / whole
        )
        if not share:
            self.progress(f"tracing {self.name}: {operations:,} operations")
            return
        expected = int(operations / share)
        left = time_left((self.clock() - self._began_s) * ((1 + BUILDING) / share - 1))
        self.progress(
            f"tracing {self.name}: {operations:,} of some {round(expected, -3):,} operations, which need some "
            f"{_size(limits.TRACE_BYTES * expected)} of memory, {left}"
        )

    def building(self, operations: int) -> None:
        """All operations are recorded."""
        if operations >= EVERY:
            left = time_left(BUILDING * (self.clock() - self._began_s))
            self.progress(f"building the graph of {self.name} from {operations:,} operations, {left}")

    def _walked(self, calls: int, modules: int) -> float:
        """The share of a first forward pass that is over: of the modules, those that were called, or, where they are
        called again and again, the calls; 0 where there are none."""
        again = calls > AGAIN * modules and modules > MOST_MODULES * self.modules and self.timesteps
        return min(1.0, calls / (modules * again) if again else modules / max(1, self.modules))

    def _check(self, operations: int) -> None:
        need = limits.TRACE_BYTES * operations
        if self.free_bytes is not None and need > self.free_bytes:
            raise Infeasible(
                f"{self.name}: to trace a step of {operations:,} operations or more needs some {_size(need)}, "
                f"{_size(self.free_bytes)} of memory are free: fewer time steps or layers need less"
            )


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
