"""Small spiking networks without named neurons: layers with a threshold behind each, as a loop and folded."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

import pararev_hw as ph
from pararev_hw.types import BlockGraph

STEPS, BATCH = 6, 2


class Net(nn.Module):
    """Layers with a threshold behind each, as a loop over [T, B, ...] or folded into [T x B, ...]."""

    def __init__(self, *layers: nn.Module, folded: bool = False) -> None:
        super().__init__()
        self.layers, self.is_folded = nn.ModuleList(layers), folded

    def current(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        current: torch.Tensor = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return 4 * current

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_folded:
            for layer in self.layers:
                current = self.current(layer, x.flatten(0, 1)).unflatten(0, x.shape[:2])
                v, spikes = torch.zeros_like(current[0]), []
                for t in range(len(current)):
                    v = v + current[t]
                    spikes.append((v >= 1).to(v.dtype))
                    v = v * (1 - spikes[-1])
                x = torch.stack(spikes)
            return x.mean(0)
        potentials: list[Any] = [0.0] * len(self.layers)
        total: Any = 0.0
        for t in range(len(x)):
            y = x[t]
            for k, layer in enumerate(self.layers):
                v = potentials[k] + self.current(layer, y)
                y = (v >= 1).to(v.dtype)
                potentials[k] = v * (1 - y)
            total = total + y
        return total / len(x)


def events(*shape: int, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(STEPS, BATCH, *shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def mlp(folded: bool = False, sizes: tuple[int, ...] = (40, 30, 8)) -> BlockGraph:
    torch.manual_seed(0)
    net = Net(*(nn.Linear(a, b) for a, b in pairwise(sizes)), folded=folded)
    return ph.trace(net, events(sizes[0]), mode="infer", layout="TB")


def conv(folded: bool = False) -> BlockGraph:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.Linear(8 * 4 * 4, 5)
    return ph.trace(Net(*layers, folded=folded), events(2, 8, 8), mode="infer", layout="TB")
