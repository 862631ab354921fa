"""The calls to CUDA that running and measuring a step makes, in one place.

Whoever runs on streams takes a `Cuda`: `TorchCuda` is the device itself, `pararev_hw.execution.played_cuda.PlayedCuda`
plays the same calls on the CPU and writes each of them down, so that a wait that was forgotten is seen without a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch

Replay = Callable[[], None]


class Event(Protocol):
    """A point on a stream."""

    def record(self, stream: Any = None) -> None:
        """Put the point behind what the stream (None: the current one) was given so far."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from this point to another, both passed."""


class Stream(Protocol):
    """A queue of work on the device."""

    def wait_event(self, event: Any) -> None:
        """What the stream is given from here on starts after the event has passed."""

    def wait_stream(self, stream: Any) -> None:
        """What the stream is given from here on starts after what the other one was given so far."""


class Cuda(Protocol):
    """What running a step asks of CUDA."""

    def stream(self) -> Stream:
        """A new stream."""

    def current_stream(self) -> Stream:
        """The stream that operations go to now."""

    def on(self, stream: Stream) -> contextlib.AbstractContextManager[Any]:
        """Operations inside go to that stream."""

    def event(self, timed: bool = False) -> Event:
        """A new event; `timed` ones know how much time lies between them."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""

    def lend(self, tensor: torch.Tensor, stream: Stream) -> None:
        """The tensor's memory is not given away before what the stream was given so far has run."""

    def capture(self, run: Callable[[], None]) -> Replay:
        """What `run` issues as a CUDA graph; nothing runs before the graph is replayed."""

    def allocated_bytes(self) -> int:
        """Bytes that tensors hold now."""

    def reset_peak(self) -> None:
        """Forget the most bytes that tensors held."""

    def peak_bytes(self) -> int:
        """The most bytes that tensors held since `reset_peak`."""


class TorchCuda:
    """The current CUDA device, by torch."""

    def stream(self) -> Stream:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def current_stream(self) -> Stream:
        return torch.cuda.current_stream()

    def on(self, stream: Stream) -> contextlib.AbstractContextManager[Any]:
        return torch.cuda.stream(stream)  # type: ignore[arg-type]

    def event(self, timed: bool = False) -> Event:
        return torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def lend(self, tensor: torch.Tensor, stream: Stream) -> None:
        tensor.record_stream(stream)  # type: ignore[arg-type]

    def capture(self, run: Callable[[], None]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay

    def allocated_bytes(self) -> int:
        return torch.cuda.memory_allocated()

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated()


CUDA = TorchCuda()
