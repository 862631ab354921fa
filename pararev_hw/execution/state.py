"""What a step starts from: a network's own tensors under the names that a program knows them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from pararev_hw.errors import BadInput
from pararev_hw.types import Program

MakeOptimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


def network_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, the tensors themselves: a step that updates them updates the network."""
    state = {f"parameter:{n}": p.data for n, p in model.named_parameters()}
    return state | {f"buffer:{n}": b for n, b in model.named_buffers()}


def fresh_optimizer_state(model: nn.Module, make: MakeOptimizer) -> dict[str, torch.Tensor]:
    """The state of a new optimizer, as it would be after a step that changed nothing: all zeros.

    Momenta, second moments and step counts of torch's optimizers start at zero, whether they exist from the beginning
    or are made by the first step. The parameters are left as they are.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    twins = {n: nn.Parameter(torch.zeros_like(p)) for n, p in parameters.items()}
    for twin in twins.values():
        twin.grad = torch.zeros_like(twin)
    optimizer = make(list(twins.values()))
    optimizer.step()
    return {
        f"optimizer:{n}:{key}": torch.zeros_like(value)
        for n, twin in twins.items()
        for key, value in optimizer.state.get(twin, {}).items()
        if isinstance(value, torch.Tensor)
    }


def bound(program: Program, state: Mapping[str, torch.Tensor]) -> dict[int, torch.Tensor]:
    """The program's externals and constants by slot. Raises BadInput where the state lacks one."""
    missing = sorted(set(program.externals.values()) - set(state))
    if missing:
        raise BadInput(f"the step starts from {missing[0]!r}, which the given state lacks")
    return {s: state[n] for s, n in program.externals.items()} | dict(program.constants)
