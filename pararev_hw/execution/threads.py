"""Lanes as threads of the CPU: the calling thread is lane 0, every other lane has a thread of its own.

A lane waits for another only where an edge of the graph goes from one to the other, on a lock that is let go when the
task it waits for has ended (and that, taken, is ready for the next step). Torch's operations release the interpreter's
lock while they compute, so lanes run side by side as far as their operations are long: what Python does between two of
them, it does for one lane at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch

from pararev_hw.errors import BadInput
from pararev_hw.execution.bound_step import BoundStep, StepRun, TaskRun

_BoundSlot = tuple[int, Callable[[], None], tuple[Any, ...], tuple[Any, ...]]  # task, what it runs, waits, signals


class LaneThreads:
    """Runs a bound step on its lanes, each computing with `intra_op` threads. As a context it ends its threads.

    Torch's thread count of the calling thread is put back after every step.
    """

    def __init__(self, step: BoundStep, *, intra_op: int = 1) -> None:
        if intra_op < 1:
            raise BadInput(f"a lane cannot compute with {intra_op} threads: at least 1 is needed")
        self._step, self._intra_op = step, intra_op
        locks = {
            (w, lane): _locked() for lane, lane_slots in enumerate(step.slots) for t in lane_slots for w in t.waits
        }
        self._slots: list[list[_BoundSlot]] = [
            [
                (
                    t.task,
                    step.run_task[t.task],
                    tuple(locks[w, lane].acquire for w in t.waits),
                    tuple(locks[t.task, other].release for other in t.signals),
                )
                for t in lane_slots
            ]
            for lane, lane_slots in enumerate(step.slots)
        ]
        self._locks = tuple(locks.values())
        self._ran: list[list[tuple[int, float, float]]] = [[] for _ in step.slots]
        self._errors: list[BaseException] = []
        self._stop = self._closed = False
        self._go = [_locked() for _ in step.slots]
        self._done = [_locked() for _ in step.slots]
        self._threads = [
            threading.Thread(target=self._serve, args=(lane,), name=f"lane {lane}", daemon=True)
            for lane in range(1, len(step.slots))
        ]

    def __enter__(self) -> LaneThreads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = self._stop = True
        for lock in (*self._go[1:], *self._locks):
            _open(lock)
        for thread in self._threads:
            thread.join()

    def run(self, step_seed: int | None = None, scalars_now: Sequence[Any] | None = None) -> StepRun:
        """One step. Raises StepFailed where an op raised; then, as after an interrupt, no further step can run."""
        if self._stop:
            raise BadInput("the lanes of this step have stopped: start new ones")
        self._step.begin(step_seed, scalars_now)
        before = torch.get_num_threads()
        torch.set_num_threads(self._intra_op)
        begun = time.perf_counter()
        for lane in range(1, len(self._go)):
            self._go[lane].release()
        try:
            self._lane(0)
            for done in self._done[1:]:
                done.acquire()
        except BaseException:
            self._fail()
            raise
        finally:
            ended = time.perf_counter()
            torch.set_num_threads(before)
        if self._errors:
            raise self._step.explained(self._errors[0]) from self._errors[0]
        runs = [
            TaskRun(t, lane, a - begun, b - begun) for lane, lane_runs in enumerate(self._ran) for t, a, b in lane_runs
        ]
        return StepRun(ended - begun, tuple(sorted(runs, key=lambda r: (r.start_s, r.lane, r.end_s))))

    def _serve(self, lane: int) -> None:
        torch.set_num_threads(self._intra_op)  # of this thread alone: OpenMP keeps it per thread
        while True:
            self._go[lane].acquire()
            if self._closed:
                return
            try:
                self._lane(lane)
            finally:
                self._done[lane].release()

    def _lane(self, lane: int) -> None:
        ran: list[tuple[int, float, float]] = []
        clock = time.perf_counter
        try:
            for task, run, waits, signals in self._slots[lane]:
                for wait in waits:
                    wait()
                if self._stop:
                    break
                begin = clock()
                run()
                ran.append((task, begin, clock()))
                for signal in signals:
                    signal()
        except Exception as error:  # an op may raise anything; once all stop, it may be a lock opened twice
            if not self._stop:
                self._errors.append(error)
            self._fail()
        self._ran[lane] = ran

    def _fail(self) -> None:
        """Let every lane come to its end."""
        self._stop = True
        for lock in self._locks:
            _open(lock)


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _open(lock: threading.Lock) -> None:
    if lock.locked():
        try:
            lock.release()
        except RuntimeError:
            return  # somebody else was faster
