"""A network's copy with tensors of its own, of networks too that Python's deepcopy refuses or damages.

deepcopy takes no tensor that autograd made (a weight that weight norm or pruning computes, a membrane that a neuron
keeps), and gives a scripted module's parameters back as results of an operation. Here the former are copied as the
numbers that they hold, and the latter are made parameters again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pararev_hw.errors import BadInput, first_line


def copied_network(model: nn.Module, name: str) -> nn.Module:
    """The copy. Raises BadInput where an attribute of the network cannot be copied."""
    try:
        with _CopiesResults():
            twin = copy.deepcopy(model)
    except Exception as error:
        # an attribute may be anything: an open file, a lock, a generator
        reason = f"{type(error).__name__}: {first_line(error, 200)}"
        raise BadInput(f"{name} cannot be copied, and each way to run it needs a copy: {reason}") from error
    for module in twin.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.is_leaf:
                setattr(module, key, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
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
