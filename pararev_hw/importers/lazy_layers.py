"""Lazy layers (`nn.LazyLinear` and its like), whose weights get their shapes from the first batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, is_lazy

from pararev_hw.errors import INTERRUPTS, BadInput, first_line
from pararev_hw.tracing.model_state import in_mode

_UNSHAPED: Any = UninitializedBuffer


def give_shapes(network: nn.Module, inputs: Sequence[torch.Tensor], where: str) -> None:
    """Give weights without a shape the one that these inputs lead to, zeros where they are shapes alone.

    A copy of the network runs on them once and tells what each lazy layer is given; the layers themselves then run on
    that, one by one, so that nothing else of the network changes. Raises BadInput where that gives one no shape.
    """
    if not any(map(is_lazy, (*network.parameters(), *network.buffers()))):
        return
    calls: dict[str, tuple[Any, Any]] = {}
    try:
        # torch cannot copy buffers without a shape
        memo = {id(b): _UNSHAPED(False, b.device, b.dtype) for b in network.buffers() if is_lazy(b)}
        twin = copy.deepcopy(network, memo)
        for name in [n for n, m in twin.named_modules() if isinstance(m, LazyModuleMixin)]:
            twin.get_submodule(name).register_forward_pre_hook(_remember(calls, name), with_kwargs=True)
        with torch.no_grad(), in_mode(twin, False):
            twin(*[torch.zeros(x.shape, dtype=x.dtype) if x.device.type == "meta" else x for x in inputs])
    except INTERRUPTS:
        raise
    except BaseException as error:  # a network may raise anything
        raise BadInput(
            f"{where}: {type(error).__name__} when run once to give its lazy layers shapes: {first_line(error)}"
        ) from error
    with torch.no_grad(), in_mode(network, False):
        for name, (args, kwargs) in calls.items():
            network.get_submodule(name)(*args, **kwargs)
    lazy = next((n for n, p in (*network.named_parameters(), *network.named_buffers()) if is_lazy(p)), None)
    if lazy is not None:
        raise BadInput(f"{where}: {lazy} has no shape yet, and forward does not run its layer: run it in the factory")


def _remember(calls: dict[str, tuple[Any, Any]], name: str) -> Any:
    def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
        calls.setdefault(name, (args, kwargs))

    return hook
