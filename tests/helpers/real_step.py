"""A training step as plain PyTorch runs it, and the same step replayed from its trace: what tests compare."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pararev_hw.check import replay
from pararev_hw.training.step import OPTIMIZERS
from pararev_hw.types import Program


@dataclass(frozen=True)
class Step:
    """A network in the steady state of training (optimizer state exists), with a batch and a target."""

    model: nn.Module
    state: Mapping[str, Mapping[str, torch.Tensor]]
    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor


def steady(model: nn.Module, *inputs: torch.Tensor, classes: int = 10, optimizer: str = "sgd", seed: int = 0) -> Step:
    """The step of `model` after one that set up the optimizer's state."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model).train()
    chosen = OPTIMIZERS[optimizer](list(model.parameters()))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    chosen.step()
    names = {p: n for n, p in model.named_parameters()}
    state = {
        names[p]: {k: v.clone() for k, v in values.items() if isinstance(v, torch.Tensor)}
        for p, values in chosen.state.items()
    }
    for p in model.parameters():
        p.grad = None
    return Step(model, state, inputs, torch.randint(0, classes, (inputs[0].shape[0],)))


def default_loss(out: Any, target: torch.Tensor) -> torch.Tensor:
    """The tracer's own default, written again: cross-entropy for `[B, classes]`, mean squares for everything else."""
    if isinstance(out, torch.Tensor) and out.dim() == 2:
        return nn.functional.cross_entropy(out, target)
    tensors = [out] if isinstance(out, torch.Tensor) else list(out.values() if isinstance(out, dict) else out)
    total = tensors[0].float().square().mean()
    return sum((t.float().square().mean() for t in tensors[1:]), total)


def eager(step: Step, optimizer: str = "sgd") -> dict[str, torch.Tensor]:
    """Loss, gradients, updated parameters and buffers of the step under plain autograd."""
    model = copy.deepcopy(step.model)
    chosen = OPTIMIZERS[optimizer](list(model.parameters()))
    for n, p in model.named_parameters():
        for k, v in step.state.get(n, {}).items():
            chosen.state[p][k] = v.clone()
    loss = default_loss(model(*step.inputs), step.target)
    loss.backward()
    chosen.step()
    found = {"loss": loss.detach()}
    found |= {f"gradient:{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found | _tensors(model)


def replayed(
    step: Step, program: Program, order: Iterable[int] | None = None, seed_rng: Callable[[int], None] | None = None
) -> dict[str, torch.Tensor]:
    """The same of the trace, its ops run in `order`."""
    model = copy.deepcopy(step.model)
    values: dict[str, torch.Tensor] = {f"input:{k}": x for k, x in enumerate(step.inputs)} | {"target:0": step.target}
    values |= _tensors(model)
    values |= {f"optimizer:{n}:{k}": v.clone() for n, state in step.state.items() for k, v in state.items()}
    results = replay(program, values, order, seed_rng=seed_rng)
    return {n: t for n, t in results.items() if not n.startswith("output:")} | _tensors(model)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {f"parameter:{n}": p.data for n, p in model.named_parameters()}
    return found | {f"buffer:{n}": b for n, b in model.named_buffers()}


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Every tensor bit-equal."""
    assert set(found) == set(expected), set(found) ^ set(expected)
    different = [n for n in expected if not torch.equal(found[n], expected[n])]
    assert not different, different
