"""A network's copy with tensors of its own, of networks too that Python's deepcopy refuses or damages.

deepcopy takes no tensor that autograd made (a weight that weight norm or pruning computes, a membrane that a neuron
keeps), and gives a scripted module's parameters back as results of an operation. Here the former are copied as the
numbers that they hold, and the latter are made parameters again. A network that holds what nothing copies (a generator,
an open file, a lock) is made anew by its factory, and given the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pararev_hw.errors import BadInput, first_line
from pararev_hw.tracing import uncopied_state


def copied_network(model: nn.Module, name: str, remade: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The copy. `remade` makes the network anew, for one that cannot be copied. Raises BadInput where nothing does."""
    if remade is not None and uncopied_state(model) is not None:
        return _with_numbers_of(model, remade())
    try:
        with _CopiesResults():
            twin = copy.deepcopy(model)
    except Exception as error:
        # an attribute may be anything: an open file, a lock, a generator
        if remade is not None:
            return _with_numbers_of(model, remade())
        reason = f"{type(error).__name__}: {first_line(error, 200)}"
        raise BadInput(
            f"{name} cannot be copied, and each way to run it needs a copy: {reason}: name the factory that makes it, "
            "as in net.py:make"
        ) from error
    for module in twin.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.is_leaf:
                setattr(module, key, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
    return twin


def _with_numbers_of(model: nn.Module, twin: nn.Module) -> nn.Module:
    """The twin on the same device, in the same mode, with the same parameters and buffers."""
    first = next(model.parameters(), None)
    if first is not None:
        twin.to(first.device, first.dtype if first.dtype is torch.float64 else None)
    twin.load_state_dict(model.state_dict(), strict=False)
    for module, like in zip(twin.modules(), model.modules(), strict=True):
        module.training = like.training
    return twin


class _CopiesResults(TorchFunctionMode):
    """Lets deepcopy copy the numbers of a tensor that an operation made."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
