"""The numbers that a network asks its tensors for while it runs: `if x.min() < 0`, `.item()`.

Fake tensors have none. Where the inputs are real, the network is run on them once and the answers are written down in
order; the traced forward then asks the same questions in the same order, and goes the way that it goes on these inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pararev_hw.errors import INTERRUPTS, TraceError, first_line
from pararev_hw.torch_private import DispatchMode, OpOverload
from pararev_hw.tracing.fused_paths import spelt_out
from pararev_hw.tracing.model_state import in_mode, state_preserved, uncopied_state

ASKS = torch.ops.aten._local_scalar_dense.default


class ValueAsked(TraceError):
    """A traced network asked a tensor for a value that its inputs decide."""


class _Answers(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[bool | int | float | complex] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is ASKS:
            self.numbers.append(out)
        return out


def answers_on(model: nn.Module, inputs: Sequence[torch.Tensor], *, name: str, train: bool) -> tuple[Any, ...]:
    """Every number that one forward pass on `inputs` asks for; none where it cannot run here and now."""
    tensors = (*inputs, *model.parameters(), *model.buffers())
    if any(t.device.type == "meta" for t in tensors) or uncopied_state(model) is not None:
        return ()
    answers = _Answers()
    with contextlib.ExitStack() as quiet:
        quiet.enter_context(torch.random.fork_rng(devices=[]))
        quiet.enter_context(state_preserved(model, values=True))
        quiet.enter_context(in_mode(model, train))
        quiet.enter_context(torch.no_grad())
        quiet.enter_context(spelt_out(model))
        quiet.enter_context(answers)
        try:
            model(*inputs)
        except INTERRUPTS:
            raise
        except BaseException as error:  # a network may raise anything
            raise TraceError(f"{name}: {type(error).__name__} when run on its inputs: {first_line(error)}") from error
    return tuple(answers.numbers)
