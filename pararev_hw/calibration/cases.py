"""What is measured: single aten ops with operands of a given shape, dtype and content.

A case is a recipe. It runs on real tensors, and on fake ones it gives the very `OpType` that a trace would hold, so
that measured and predicted ops are described by the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import torch

from pararev_hw.check.replay import filled
from pararev_hw.costmodels.calibrated.features import BRANCHING
from pararev_hw.torch_private import FakeTensorMode
from pararev_hw.tracing.recorder import Recorder
from pararev_hw.types import OpType
from pararev_hw.types.op_names import base_name

Content = Literal["normal", "positive", "spikes", "small", "ones"]
CHANNELS_LAST = (0, 3, 1, 2)  # an `Operand.order`
SPIKE_RATE = 0.2  # of the operands that hold spikes: a branch that follows them is taken as in a real network


MASKS, MASK_ELEMENTS = 64, 1 << 21  # of which a CPU's predictor remembers few


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor to make. `order` permutes a contiguous tensor's dimensions: (0, 3, 1, 2) is channels last.

    Content "small" is integers below `below`; "spikes" is 0 and 1 (False and True), 1 with the share `density`.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    content: Content = "normal"
    order: tuple[int, ...] | None = None
    below: int = 1
    density: float = SPIKE_RATE

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def make(self, device: str, generator: torch.Generator | None) -> torch.Tensor:
        """The tensor with fresh values; without a generator uninitialised, as fake tensors need no values."""
        dtype = getattr(torch, self.dtype)
        stored = self.shape
        if self.order is not None:
            stored = tuple(self.shape[self.order.index(d)] for d in range(len(self.shape)))
        if generator is None:
            tensor = torch.empty(stored, dtype=dtype, device=device)
        elif self.content == "small":
            tensor = torch.randint(0, self.below, stored, generator=generator).to(device=device, dtype=dtype)
        elif self.content == "spikes":
            tensor = (torch.rand(stored, generator=generator) < self.density).to(device=device, dtype=dtype)
        elif self.content == "ones":
            tensor = torch.ones(stored, dtype=dtype, device=device)
        else:
            values = torch.randn(stored, generator=generator)
            tensor = (values.abs_().add_(0.1) if self.content == "positive" else values).to(device=device, dtype=dtype)
        return tensor if self.order is None else tensor.permute(self.order)


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `torch.ops.<function>`, its tensors replaced by `Hole(k)` for operand k."""

    function: str  # "aten.add.Tensor"
    operands: tuple[Operand, ...]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()

    @property
    def callable(self) -> Callable[..., Any]:
        function: Any = torch.ops
        for part in self.function.split("."):
            function = getattr(function, part)
        return function  # type: ignore[no-any-return]

    @property
    def density(self) -> float | None:
        """The share of its mask that is set, of an op whose time depends on it."""
        masks = [o.density for o in self.operands if o.dtype == "bool"]
        return masks[0] if masks and base_name(self.function) in BRANCHING else None

    def call(self, device: str, generator: torch.Generator | None) -> Callable[[], Any]:
        """The op on tensors of its own, ready to be called again and again.

        An op that branches on a mask gets different masks in turn, so that the branch predictor cannot learn them.
        """
        sets = 1
        if device == "cpu" and self.density is not None:
            sets = max(1, min(MASKS, MASK_ELEMENTS // max(1, self.operands[0].elements)))
        function = self.callable
        calls = []
        for _ in range(sets):
            tensors = [o.make(device, generator) for o in self.operands]
            calls.append((filled(self.args, tensors), {n: filled(v, tensors) for n, v in self.kwargs}))
        if sets == 1:
            ((args, kwargs),) = calls
            return lambda: function(*args, **kwargs)
        turns = cycle(calls)

        def in_turn() -> Any:
            args, kwargs = next(turns)
            return function(*args, **kwargs)

        return in_turn

    def op_type(self) -> OpType:
        """What a trace says of this op."""
        fake = FakeTensorMode()
        recorder = Recorder(fake)
        with fake:
            tensors = [o.make("cpu", None) for o in self.operands]
        with torch.no_grad(), recorder:
            self.callable(*filled(self.args, tensors), **{n: filled(v, tensors) for n, v in self.kwargs})
        return recorder.entries[0].op_type
