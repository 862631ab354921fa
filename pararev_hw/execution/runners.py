"""Ways to run a job's step, each with its own copy of the network: on the lanes of a schedule, or as a plain loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Protocol

import torch
from torch import nn

from pararev_hw.cuda_calls import CUDA, Cuda
from pararev_hw.execution.bound_step import StepRun, bind
from pararev_hw.execution.job import Batch, Job, plain_loop, start
from pararev_hw.execution.memory import LiveBytes
from pararev_hw.execution.scalars import Scalars
from pararev_hw.execution.state import network_state
from pararev_hw.execution.streams import LaneStreams, make_streams
from pararev_hw.execution.threads import LaneThreads
from pararev_hw.measurement import computing_threads
from pararev_hw.tracing.model_state import state_preserved

Orders = Sequence[Sequence[int]]


class Runner(Protocol):
    """Trains `model`, step after step. Use it as a context."""

    model: nn.Module

    def step(self, batch: Batch) -> StepRun: ...

    def loss(self) -> float | None: ...

    def forget(self) -> None:
        """Let go of what the last step left."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LaneRunner:
    """The traced step on lanes: threads of a CPU, streams of a GPU (of `cuda`, which may play them on a CPU).

    Step n of two of them draws the same random numbers, whatever their lanes."""

    def __init__(
        self,
        job: Job,
        orders: Orders,
        *,
        intra_op: int = 1,
        launch: Literal["eager", "graph"] = "eager",
        note: Callable[[torch.Tensor], None] | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        self.model, self._state = start(job)
        self._scalars = Scalars(job.traced, job.optimizer)
        self._seed, self._steps = job.seed, 0
        cuda = CUDA if cuda is None and job.device == "cuda" else cuda
        streams = [] if cuda is None else make_streams(len(orders), cuda)
        self._bound = bind(
            job.graph,
            job.traced.program,
            self._state,
            orders,
            varying=self._scalars.calls,
            note=note,
            streams=streams,
            lend=(cuda or CUDA).lend,
        )
        self._lanes: LaneStreams | LaneThreads = (
            LaneThreads(self._bound, intra_op=intra_op)
            if cuda is None
            else LaneStreams(self._bound, streams, launch=launch, cuda=cuda)
        )

    def step(self, batch: Batch) -> StepRun:
        for name, tensor in batch.items():
            self._state[name].copy_(tensor)
        self._steps += 1
        return self._lanes.run(self._seed * 1_000_003 + self._steps, self._scalars.at(self._steps))

    def start_tensors(self) -> list[torch.Tensor]:
        """What is there before a step."""
        return list(self._bound.static.values())

    def loss(self) -> float | None:
        loss = self._bound.results().get("loss")
        return None if loss is None else float(loss)

    def results(self) -> dict[str, torch.Tensor]:
        """Gradients, outputs and loss of the last step, by name."""
        return self._bound.results()

    def forget(self) -> None:
        self._bound.begin()

    def __enter__(self) -> LaneRunner:
        self._lanes.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lanes.__exit__(kind, error, trace)


class LoopRunner:
    """PyTorch's own loop: forward, loss, backward and update by autograd, with `threads` inside operations.

    Each step begins, as the traced one does, with the attributes that the network came with: membranes and other state
    that an earlier step left in them are put back, tensors that are updated in place (weights, statistics) are not.
    """

    def __init__(self, job: Job, threads: int = 1) -> None:
        self.model, self._step = plain_loop(job)
        self._threads = threads
        self._on_gpu = job.device == "cuda"
        self._loss: torch.Tensor | None = None

    def step(self, batch: Batch) -> StepRun:
        with computing_threads(self._threads), state_preserved(self.model, values=False):
            self._settle()
            begun = time.perf_counter()
            self._loss = self._step(batch)
            self._settle()
            return StepRun(time.perf_counter() - begun, ())

    def _settle(self) -> None:
        if self._on_gpu:
            CUDA.synchronize()

    def loss(self) -> float | None:
        return None if self._loss is None or self._loss.dim() else float(self._loss)

    def forget(self) -> None:
        for p in self.model.parameters():
            p.grad = None

    def __enter__(self) -> LoopRunner:
        return self

    def __exit__(self, *_: object) -> None:
        return


def peak_bytes(job: Job, orders: Orders, batch: Batch) -> int:
    """Most bytes alive at once in one step on these lanes, what is there before it included.

    On a CPU the storages that were alive; on a GPU what torch's allocator had given out, less what was before.
    """
    if job.device == "cuda":
        CUDA.synchronize()
        before = CUDA.allocated_bytes()
        with LaneRunner(job, orders) as runner:
            runner.step(batch)
            runner.forget()
            CUDA.reset_peak()
            runner.step(batch)
            return CUDA.peak_bytes() - before
    live_bytes = LiveBytes()
    with LaneRunner(job, orders, note=live_bytes) as runner:
        for tensor in runner.start_tensors():
            live_bytes(tensor)
        runner.step(batch)
    return live_bytes.peak_bytes


def difference(one: Runner, other: Runner) -> float:
    """The largest difference between two networks' parameters and buffers; 0: they are equal bit for bit."""
    a, b = network_state(one.model), network_state(other.model)
    return max((_apart(a[n], b[n]) for n in a), default=0.0)


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    if torch.equal(a, b):
        return 0.0
    largest = float((a.double() - b.double()).abs().nan_to_num(nan=0.0 if _same_nans(a, b) else float("inf")).max())
    return largest


def _same_nans(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.isnan(), b.isnan()))
