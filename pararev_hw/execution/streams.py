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

from pararev_hw.cuda_calls import CUDA, Cuda, Event, Replay, Stream
from pararev_hw.errors import BadInput
from pararev_hw.execution.bound_step import BoundStep, StepRun, TaskRun
from pararev_hw.execution.lane_order import Slot

_BEFORE_CAPTURE = 3  # steps on side streams, as torch's documentation on CUDA graphs asks for


def make_streams(lanes: int, cuda: Cuda = CUDA) -> list[Stream]:
    """A stream per lane, to be given to `bind` and to `LaneStreams`."""
    return [cuda.stream() for _ in range(lanes)]


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
        streams: Sequence[Stream],
        *,
        launch: Literal["eager", "graph"] = "eager",
        cuda: Cuda = CUDA,
    ) -> None:
        if len(streams) != len(step.slots):
            raise BadInput(f"{len(streams)} streams for {len(step.slots)} lanes: one each")
        if launch == "graph" and step.draws_again:
            raise BadInput(
                "the step draws the same random numbers twice, which a CUDA graph cannot repeat: launch it eagerly"
            )
        if launch == "graph" and step.scalars_vary:
            raise BadInput(
                "the optimizer's scalars change from step to step, which a CUDA graph cannot follow: use sgd"
            )
        self._step, self._streams, self._launch, self._cuda = step, list(streams), launch, cuda
        self._order = issue_order(step.slots)
        waited = {w for _, slot in self._order for w in slot.waits}
        self._ended = {w: cuda.event() for w in waited}
        self._replay: Replay | None = None

    def __enter__(self) -> LaneStreams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cuda.synchronize()
        self._replay = None

    def run(self, step_seed: int | None = None, scalars_now: Sequence[Any] | None = None) -> StepRun:
        """One step, from an idle device to an idle device. Raises StepFailed where an op raised, Infeasible where the
        device's memory does not hold it."""
        try:
            if self._launch == "graph":
                return self._replayed()
            self._step.begin(step_seed, scalars_now)
            self._cuda.synchronize()
            begun = time.perf_counter()
            zero = self._cuda.event(timed=True)
            zero.record()
            marks = self._issue(timed=True)
            self._cuda.synchronize()
            latency_s = time.perf_counter() - begun
        except Exception as error:  # an op may raise anything
            raise self._step.explained(error) from error
        runs = [
            TaskRun(slot.task, lane, zero.elapsed_time(a) / 1e3, zero.elapsed_time(b) / 1e3)
            for (lane, slot), (a, b) in zip(self._order, marks, strict=True)
        ]
        return StepRun(latency_s, tuple(sorted(runs, key=lambda r: (r.start_s, r.lane, r.end_s))))

    def _issue(self, timed: bool) -> list[tuple[Event, Event]]:
        """All tasks, issued from the current stream and joined with it again."""
        outer = self._cuda.current_stream()
        marks: list[tuple[Event, Event]] = []
        for stream in self._streams:
            stream.wait_stream(outer)
        for lane, slot in self._order:
            with self._cuda.on(self._streams[lane]):
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
            self._cuda.lend(tensor, outer)
        return marks

    def _timed(self, run: Callable[[], None]) -> tuple[Event, Event]:
        begin, end = self._cuda.event(timed=True), self._cuda.event(timed=True)
        begin.record()
        run()
        end.record()
        return begin, end

    def _replayed(self) -> StepRun:
        if self._replay is None:
            self._replay = self._captured()
        self._cuda.synchronize()
        begun = time.perf_counter()
        self._replay()
        self._cuda.synchronize()
        return StepRun(time.perf_counter() - begun, ())

    def _captured(self) -> Replay:
        """The step as a graph. What the steps before the capture change is put back."""
        before_capture = [(t, t.clone()) for t in self._step.static.values()]
        side = self._cuda.stream()
        side.wait_stream(self._cuda.current_stream())
        with self._cuda.on(side):
            for _ in range(_BEFORE_CAPTURE):
                self._step.begin()
                self._issue(timed=False)
        self._cuda.current_stream().wait_stream(side)
        self._cuda.synchronize()
        for tensor, before in before_capture:
            tensor.copy_(before)
        del before_capture
        self._step.begin()

        def issue() -> None:
            self._issue(timed=False)

        return self._cuda.capture(issue)


def issue_order(slots: Sequence[Sequence[Slot]]) -> tuple[tuple[int, Slot], ...]:
    """Lane and slot of every task, each after all that it waits for and after its lane's earlier ones."""
    at = [0] * len(slots)
    issued: set[int] = set()
    order: list[tuple[int, Slot]] = []
    while len(order) < sum(map(len, slots)):
        for lane, lane_slots in enumerate(slots):
            if at[lane] < len(lane_slots) and issued.issuperset(lane_slots[at[lane]].waits):
                order.append((lane, lane_slots[at[lane]]))
                issued.add(lane_slots[at[lane]].task)
                at[lane] += 1
    return tuple(order)
