"""What a network asks its tensors for while it runs: numbers (`if x.min() < 0`, `.item()`, `.numpy()`), and which
elements of a mask are set, or how many differ (`x[mask]`, `torch.unique`), so that shapes depend on them.

Fake tensors tell neither. Where the inputs are real, the network is run on them once and the answers are written down
line by line; the traced forward then asks the same questions there in the same order, and goes the way that it goes on
these inputs.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pararev_hw.errors import INTERRUPTS, TraceError, first_line
from pararev_hw.torch_private import DispatchMode, FakeTensor, OpOverload
from pararev_hw.tracing.fused_paths import spelt_out
from pararev_hw.tracing.length_lists import lengths_by_operations
from pararev_hw.tracing.model_state import in_mode, state_preserved, uncopied_state
from pararev_hw.tracing.user_line import source_line

Question = tuple[tuple[str, int], str]  # the source line that asks, and by which op, or method of a tensor
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


PACK = torch.ops.aten._pack_padded_sequence.default


@dataclass(frozen=True, slots=True, eq=False)
class OnItsInputs:
    """Calls an op the shapes of whose outputs depend on values, and gives what it gave on the network's own inputs
    where the shapes are others now: what follows was traced for those."""

    function: Callable[..., Any]
    outputs: tuple[torch.Tensor, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self.function(*args, **kwargs)
        now = out if isinstance(out, tuple) else (out,)
        if all(a.shape == b.shape for a, b in zip(now, self.outputs, strict=True)):
            return out
        given = tuple(a.to(b.device, b.dtype, copy=True) for a, b in zip(self.outputs, now, strict=True))
        return given if isinstance(out, tuple) else given[0]


def shaped_by_values(func: OpOverload) -> bool:
    """Whether the shapes of what an op gives depend on the numbers in its tensors, masks among indices left aside."""
    return func is PACK or (torch.Tag.dynamic_output_shape in func.tags and func not in INDEXED)


def tells_values(func: OpOverload) -> bool:
    """Whether an op gives numbers of Python that its tensors hold."""
    return torch.Tag.data_dependent_output in func.tags


@contextlib.contextmanager
def methods_answered(answer: Callable[[str, torch.Tensor, Callable[[torch.Tensor], Any]], Any]) -> Iterator[None]:
    """Within it, `tensor.numpy()` and `tensor.tolist()`, which are no ops and which no dispatch mode sees, give what
    `answer(name, tensor, the method)` gives."""
    with contextlib.ExitStack() as put_back:
        for kind, name in ((torch.Tensor, "numpy"), (torch.Tensor, "tolist"), (FakeTensor, "tolist")):
            method = getattr(kind, name)
            put_back.callback(*((setattr, kind, name, method) if name in vars(kind) else (delattr, kind, name)))
            setattr(kind, name, _asking(name, method, answer))
        yield


def _asking(name: str, method: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tensor, **options: answer(name, tensor, lambda t: method(t, **options))


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
            self.answers[source_line(), str(NONZERO)] += [args[1][k].nonzero() for k in masks]
        out = func(*args, **(kwargs or {}))
        if tells_values(func):
            self.answers[source_line(), str(func)].append(out)
        elif shaped_by_values(func):
            outputs = out if isinstance(out, tuple) else (out,)
            copies = tuple(o.clone(memory_format=torch.preserve_format) for o in outputs)
            self.answers[source_line(), str(func)].append(copies if isinstance(out, tuple) else copies[0])
        return out

    def by_method(self, name: str, tensor: torch.Tensor, method: Callable[[torch.Tensor], Any]) -> Any:
        """What a tensor's method gives, written down."""
        out = method(tensor)
        self.answers[source_line(), name].append(copy.deepcopy(out))
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
        quiet.enter_context(lengths_by_operations())
        quiet.enter_context(methods_answered(answers.by_method))
        quiet.enter_context(answers)
        try:
            model(*inputs)
        except INTERRUPTS:
            raise
        except BaseException as error:  # a network may raise anything
            raise TraceError(f"{name}: {type(error).__name__} when run on its inputs: {first_line(error)}") from error
    return answers.answers
