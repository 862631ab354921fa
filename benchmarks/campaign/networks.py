"""The networks of the paper's comparison: RevSNN and ParaRevSNN of equal pairs in each of four stages, by depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from pararev_hw import models
from pararev_hw.models.fused_neurons import use_fused

PAIRS: Mapping[int, int] = {21: 1, 37: 2, 69: 4, 117: 7, 165: 10}  # depth -> pairs in each stage
FAMILIES: Mapping[str, tuple[str, str]] = {
    "rev": ("revsresnet21", "unfused"),
    "para": ("pararevsnn21", "unfused"),
    "merged": ("pararevsnn21", "merged"),  # the paper's block M
    "fused": ("pararevsnn21", "fused"),  # both units as a wider one, the same function exactly
}
NEURONS = ("reference", "triton")

Factory = Callable[..., tuple[nn.Module, torch.Tensor]]


def target(family: str, depth: int, neuron: str) -> str:
    """What `pararev_hw.execution.prepare` is given for that network."""
    return f"{__file__}:{family}{depth}_{neuron}"


def _factory(family: str, depth: int, neuron: str) -> Factory:
    name, form = FAMILIES[family]

    def make(batch: int = 32, timesteps: int = 4, width: float = 1.0) -> tuple[nn.Module, torch.Tensor]:
        network = models.create(
            name, blocks=(PAIRS[depth],) * 4, num_classes=10, timesteps=timesteps, width=width, form=form
        )
        if neuron == "triton":
            use_fused(network)
        return network, torch.rand(batch, 3, 32, 32)

    return make


globals().update(
    {f"{f}{d}_{n}": _factory(f, d, n) for f in FAMILIES for d in PAIRS for n in NEURONS}  # as targets name them
)
