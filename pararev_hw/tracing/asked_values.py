"""What a network asks its tensors for while it runs: numbers (`if x.min() < 0`, `.item()`), and which elements of a
mask are set (`torch.where(mask)`, `x[mask]`), so that shapes depend on them.

Fake tensors tell neither. Where the inputs are real, the network is run on them once and the answers are written down
line by line; the traced forward then asks the same questions there in the same order, and goes the way that it goes on
these inputs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pararev_hw.errors import INTERRUPTS, TraceError, first_line
from pararev_hw.torch_private import DispatchMode, OpOverload
from pararev_hw.tracing.fused_paths import spelt_out
from pararev_hw.tracing.model_state import in_mode, state_preserved, uncopied_state
from pararev_hw.tracing.user_line import source_line

# the source line that asks, and whether for the elements of a mask that are set, or a number
Question = tuple[tuple[str, int], bool]
ASKS = torch.ops.aten._local_scalar_dense.default
NONZERO = torch.ops.aten.nonzero.default
INDEXED = frozenset(
    {
        torch.ops.aten.index.Tensor,
        torch.ops.aten.index_put.default,
        torch.ops.aten.index_put_.default,
        torch.ops.aten._index_put_impl_.default,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class RowsOnItsInputs:
    """Finds the elements that are set, as `nonzero` does, and gives those that were set on the network's own inputs:
    what follows was traced for as many."""

    rows: torch.Tensor

    def __call__(self, mask: torch.Tensor) -> torch.Tensor:
        rows = mask.nonzero()
        return rows if rows.shape == self.rows.shape else self.rows.to(rows.device, copy=True)


class ValueAsked(TraceError):
    """A traced network asked a tensor for a value that its inputs decide."""


def masks_of(func: OpOverload, args: Sequence[Any]) -> list[int]:
    """Which of the indices of an op are masks whose elements it looks for; one number fills a mask as it is."""
    if func not in INDEXED or (len(args) > 2 and args[2].numel() == 1):
        return []
    return [k for k, index in enumerate(args[1]) if index is not None and index.dtype == torch.bool]


class _Answers(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.answers: defaultdict[Question, list[Any]] = defaultdict(list)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        if masks := masks_of(func, args):
            self.answers[source_line(), True] += [args[1][k].nonzero() for k in masks]
        out = func(*args, **(kwargs or {}))
        if func is ASKS:
            self.answers[source_line(), False].append(out)
        elif func is NONZERO:
            self.answers[source_line(), True].append(out.clone(memory_format=torch.preserve_format))
        return out


def answers_on(
    model: nn.Module, inputs: Sequence[torch.Tensor], *, name: str, train: bool
) -> Mapping[Question, Sequence[Any]]:
    """All that one forward pass on `inputs` asks for; nothing where it cannot run here and now."""
    tensors = (*inputs, *model.parameters(), *model.buffers())
    if any(t.device.type == "meta" for t in tensors) or uncopied_state(model) is not None:
        return {}
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
    return answers.answers
