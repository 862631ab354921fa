"""Lanes as CUDA streams: issued task by task, or captured once into a CUDA graph and replayed as a whole.

Streams wait for each other by events, exactly where an edge of the graph crosses lanes. One host thread issues all
tasks, each after those that it waits for, since a wait for an event that was not recorded yet is no wait at all. A
tensor that another lane reads is shown to that lane's stream (`Tensor.record_stream`, written into the step's source),
so that the caching allocator does not give its memory away while that stream may still read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal

import torch

from pararev_hw.errors import BadInput
from pararev_hw.execution.bound_step import BoundStep, StepRun, TaskRun
from pararev_hw.execution.lane_order import Slot

_BEFORE_CAPTURE = 3  # steps on side streams, as torch's documentation on CUDA graphs asks for


def make_streams(lanes: int) -> list[torch.cuda.Stream]:
    """A stream per lane, to be given to `bind` and to `LaneStreams`."""
    return [torch.cuda.Stream() for _ in range(lanes)]


class LaneStreams:
    """Runs a bound step on CUDA streams; the same interface as `LaneThreads`.

    `launch` "eager" issues every op in every step and times every task; "graph" captures the step before its first run,
    leaves parameters and state as they were, and replays it: then tasks have no times of their own, random ops draw
    from torch's own stream, whatever the seed, and a step whose scalars or draws the host must set anew is refused
    (BadInput).
    """

    def __init__(
        self,
        step: BoundStep,
        streams: Sequence[torch.cuda.Stream],
        *,
        launch: Literal["eager", "graph"] = "eager",
    ) -> None:
        if len(streams) != len(step.slots):
            raise BadInput(f"{len(streams)} streams for {len(step.slots)} lanes: one each")
        if launch == "graph" and step.draws_again:
            raise BadInput("the step draws the same random numbers twice, which a CUDA graph cannot: launch it eagerly")
        if launch == "graph" and step.scalars_vary:
            raise BadInput("the optimizer's scalars change from step to step, which a CUDA graph cannot: take sgd")
        self._step, self._streams, self._launch = step, list(streams), launch
        self._order = issue_order(step.slots)
        waited = {w for _, slot in self._order for w in slot.waits}
        self._ended = {w: torch.cuda.Event() for w in waited}
        self._graph: torch.cuda.CUDAGraph | None = None

    def __enter__(self) -> LaneStreams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.cuda.synchronize()
        self._graph = None

    def run(self, step_seed: int | None = None, scalars_now: Sequence[Any] | None = None) -> StepRun:
        """One step, from an idle device to an idle device. Raises StepFailed where an op raised, Infeasible where the
        device's memory does not hold it."""
        try:
            if self._launch == "graph":
                return self._replayed()
            self._step.begin(step_seed, scalars_now)
            torch.cuda.synchronize()
            begun = time.perf_counter()
            zero = torch.cuda.Event(enable_timing=True)
            zero.record()
            marks = self._issue(timed=True)
            torch.cuda.synchronize()
            latency_s = time.perf_counter() - begun
        except Exception as error:  # an op may raise anything
            raise self._step.explained(error) from error
        found = [
            TaskRun(slot.task, lane, zero.elapsed_time(a) / 1e3, zero.elapsed_time(b) / 1e3)
            for (lane, slot), (a, b) in zip(self._order, marks, strict=True)
        ]
        return StepRun(latency_s, tuple(sorted(found, key=lambda r: (r.start_s, r.lane, r.end_s))))

    def _issue(self, timed: bool) -> list[tuple[torch.cuda.Event, torch.cuda.Event]]:
        """All tasks, issued from the current stream and joined with it again."""
        outer = torch.cuda.current_stream()
        marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        for stream in self._streams:
            stream.wait_stream(outer)
        for lane, slot in self._order:
            with torch.cuda.stream(self._streams[lane]):
                for w in slot.waits:
                    self._streams[lane].wait_event(self._ended[w])
                if timed:
                    marks.append(self._timed(self._step.run_task[slot.task]))
                else:
                    self._step.run_task[slot.task]()
                if slot.task in self._ended:
                    self._ended[slot.task].record(self._streams[lane])
        for stream in self._streams:
            outer.wait_stream(stream)
        for tensor in self._step.results().values():
            tensor.record_stream(outer)
        return marks

    def _timed(self, run: Callable[[], None]) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        return begin, end

    def _replayed(self) -> StepRun:
        if self._graph is None:
            self._graph = self._captured()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        self._graph.replay()
        torch.cuda.synchronize()
        return StepRun(time.perf_counter() - begun, ())

    def _captured(self) -> torch.cuda.CUDAGraph:
        """The step as a graph. What the steps before the capture change is put back."""
        kept = [(t, t.clone()) for t in self._step.static.values()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_BEFORE_CAPTURE):
                self._step.begin()
                self._issue(timed=False)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        for tensor, before in kept:
            tensor.copy_(before)
        del kept
        self._step.begin()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._issue(timed=False)
        return graph


def issue_order(slots: Sequence[Sequence[Slot]]) -> tuple[tuple[int, Slot], ...]:
    """Lane and slot of every task, each after all that it waits for and after its lane's earlier ones."""
    at = [0] * len(slots)
    issued: set[int] = set()
    order: list[tuple[int, Slot]] = []
    while len(order) < sum(map(len, slots)):
        for lane, own in enumerate(slots):
            if at[lane] < len(own) and issued.issuperset(own[at[lane]].waits):
                order.append((lane, own[at[lane]]))
                issued.add(own[at[lane]].task)
                at[lane] += 1
    return tuple(order)
