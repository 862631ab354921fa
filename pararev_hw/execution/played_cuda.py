"""CUDA's calls played on the CPU, each written down: a rehearsal of what a GPU would be asked to do.

An operation runs at once, whatever stream it is issued to, so results are those of the order of issue. What tells a
forgotten wait is the record: `calls`, in order, each a name and numbers of streams, events and captures. A capture
runs under a dispatch mode that holds the step to the rules of graph capture (no value read by the host, no change of a
tensor's place) and is replayed op by op into the same tensors, as a graph writes to the same addresses.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from pararev_hw.errors import StepFailed
from pararev_hw.torch_private import DispatchMode, schema, tree_flatten

# Operations whose result the host waits for, or whose output's size only the device knows.
_HOST_READS = (
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique", "aten._unique", "aten.is_nonzero",
    "aten.equal", "aten.bincount", "aten.repeat_interleave.Tensor",
)  # fmt: skip

# Operations that give a tensor other memory: a replay would read and write where it was.
_MOVES = ("aten.set_", "aten.resize_", "aten.resize_as_")

# Operations that update running statistics, which their schema does not say.
_UPDATES_SILENTLY = ("aten.native_batch_norm", "aten.cudnn_batch_norm")

Call = tuple[str | int, ...]


@dataclass(eq=False)
class PlayedEvent:
    """A point in the order of issue."""

    number: int
    calls: list[Call]
    player: PlayedCuda
    at_s: float | None = None

    def record(self, stream: PlayedStream | None = None) -> None:
        on = self.player.current_stream() if stream is None else stream
        self.at_s = time.perf_counter()
        self.calls.append(("record", self.number, on.number))

    def elapsed_time(self, end_event: PlayedEvent) -> float:
        if self.at_s is None or end_event.at_s is None:
            raise RuntimeError("an event that was never recorded has no time")
        return (end_event.at_s - self.at_s) * 1e3


@dataclass(eq=False)
class PlayedStream:
    """A stream by number; 0 is the default one."""

    number: int
    calls: list[Call]

    def wait_event(self, event: PlayedEvent) -> None:
        self.calls.append(("wait_event", self.number, event.number))

    def wait_stream(self, stream: PlayedStream) -> None:
        self.calls.append(("wait_stream", self.number, stream.number))


@dataclass(eq=False)
class PlayedCuda:
    """Plays `pararev_hw.cuda_calls.Cuda` on the CPU. `calls` is what was asked, in order."""

    calls: list[Call] = field(default_factory=list)
    _streams: list[PlayedStream] = field(default_factory=list)
    _current: list[PlayedStream] = field(default_factory=list)
    _events: int = 0

    def __post_init__(self) -> None:
        self._current.append(self.stream())

    def stream(self) -> PlayedStream:
        self._streams.append(PlayedStream(len(self._streams), self.calls))
        return self._streams[-1]

    def current_stream(self) -> PlayedStream:
        return self._current[-1]

    @contextlib.contextmanager
    def on(self, stream: PlayedStream) -> Iterator[None]:
        self.calls.append(("on", stream.number))
        self._current.append(stream)
        try:
            yield
        finally:
            self._current.pop()

    def event(self, timed: bool = False) -> PlayedEvent:
        self._events += 1
        return PlayedEvent(self._events, self.calls, self)

    def synchronize(self) -> None:
        self.calls.append(("synchronize",))

    def lend(self, tensor: torch.Tensor, stream: PlayedStream) -> None:
        self.calls.append(("lend", stream.number))

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        self.calls.append(("capture",))
        recording = _Recording()
        with recording:
            run()
        recording.put_back()

        def replay() -> None:
            self.calls.append(("replay",))
            recording.replay()

        return replay

    def allocated_bytes(self) -> int:
        return 0

    def reset_peak(self) -> None:
        self.calls.append(("reset_peak",))

    def peak_bytes(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class _Recorded:
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]


class _Recording(DispatchMode):
    """Writes operations down with their very tensors, and refuses what a graph cannot capture."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ops: list[_Recorded] = []
        self._new: set[int] = set()  # memory that came to be during the capture
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # what was there, and what it held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if name.startswith(_HOST_READS):
            raise StepFailed(f"{name} makes the host wait for the device: a CUDA graph cannot capture it")
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        if name.startswith("aten.index") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:]):
            raise StepFailed(f"{name} by a mask makes the host wait for its size: a CUDA graph cannot capture it")
        if name.startswith(_MOVES) and tensors and _memory(tensors[0]) not in self._new:
            raise StepFailed(f"{name} gives a tensor from outside other memory: a replay would use where it was")
        if schema(func).is_mutable or name.startswith(_UPDATES_SILENTLY):
            for t in tensors:
                if _memory(t) not in self._new and _memory(t) not in self._before:
                    self._before[_memory(t)] = (_whole(t), _whole(t).clone())
        out = func(*args, **kwargs)
        outputs = tuple(t for t in tree_flatten(out)[0] if isinstance(t, torch.Tensor))
        memories = {_memory(t) for t in tensors}
        self._new |= {_memory(t) for t in outputs if _memory(t) not in memories}
        self._ops.append(_Recorded(func, args, kwargs, outputs))
        return out

    def put_back(self) -> None:
        """A capture changes nothing: what was there before it holds again what it held."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    def replay(self) -> None:
        """Every operation again, on the same tensors; what is not a view is written where it was the first time."""
        with torch.no_grad():
            for op in self._ops:
                operand_memory = {
                    _memory(t) for t in tree_flatten((op.args, op.kwargs))[0] if isinstance(t, torch.Tensor)
                }
                if not schema(op.function).is_mutable and any(_memory(t) in operand_memory for t in op.outputs):
                    continue  # a view of the same memory shows what is there now
                out = op.function(*op.args, **op.kwargs)
                again = tuple(t for t in tree_flatten(out)[0] if isinstance(t, torch.Tensor))
                for before, now in zip(op.outputs, again, strict=True):
                    if before.data_ptr() != now.data_ptr():
                        before.copy_(now)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor's memory, as bytes."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
