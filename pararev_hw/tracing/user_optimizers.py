"""Optimizers that a user's own training step made over the network's parameters, for the time of a trace.

While the network is on fake tensors its parameters are others than those that such an optimizer holds: its update
would go nowhere. So each optimizer that is alive and holds parameters of the network is given their twins, and a new
state.
"""

from __future__ import annotations

import contextlib
import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch


@contextlib.contextmanager
def on_twins(twins: Mapping[int, torch.Tensor]) -> Iterator[tuple[torch.optim.Optimizer, ...]]:
    """The optimizers, on the twins of their parameters (by the id of the real one); put back on exit."""
    optimizers = [o for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer) and _holds_one_of(o, twins)]
    before = [(o, [dict(group) for group in o.param_groups], o.state) for o in optimizers]
    try:
        for o in optimizers:
            for group in o.param_groups:
                group["params"] = [twins.get(id(p), p) for p in group["params"]]
            o.state = defaultdict(dict)
        yield tuple(optimizers)
    finally:
        for o, groups, state in before:
            for group, values in zip(o.param_groups, groups, strict=True):
                group.clear()
                group.update(values)
            o.state = state


def _holds_one_of(optimizer: Any, twins: Mapping[int, torch.Tensor]) -> bool:
    groups = getattr(optimizer, "param_groups", ())
    return any(id(p) in twins for group in groups for p in group.get("params", ()))
