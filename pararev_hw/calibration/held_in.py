"""The networks whose whole steps enter a fit. None of them may appear in a validation.

One of the zoo (RevSNN of 21 layers, at several sizes) and one that is not: plain convolutions, normalisation, neurons
and pooling, without anything reversible. ParaRevSNN and MS-ResNet are left to validation at every size. On a CPU the
plain network only trains: untrained and in eval mode, hardly a neuron of it fires, which no trained network does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pararev_hw import models
from pararev_hw.defaults import default_optimizer
from pararev_hw.tracing import StepDescription, optimizer_named, trace_step
from pararev_hw.training.step import Loop, eager_step
from pararev_hw.types import BlockGraph

CLASSES = 10


@dataclass(frozen=True, slots=True)
class HeldIn:
    """A step to measure: a network at a size."""

    network: str  # "revsresnet21", or "plain" for the one outside the zoo
    mode: Literal["train", "infer"]
    dtype: str
    width: float
    batch: int
    timesteps: int

    @property
    def name(self) -> str:
        size = f"width {self.width:g}, batch {self.batch}, T {self.timesteps}"
        return f"{self.network} {self.mode}, {size}, {self.dtype}"


CPU = (  # the second lets go of more memory than others: it tells how much the allocator keeps
    HeldIn("revsresnet21", "train", "float32", 0.125, 2, 2),
    HeldIn("plain", "train", "float32", 0.5, 16, 4),
    HeldIn("plain", "train", "float32", 0.25, 4, 2),
    HeldIn("revsresnet21", "infer", "float32", 0.125, 4, 4),
    HeldIn("revsresnet21", "train", "float32", 0.25, 8, 4),
    HeldIn("revsresnet21", "infer", "float32", 0.25, 8, 4),
    HeldIn("revsresnet21", "train", "bfloat16", 0.25, 4, 2),
    HeldIn("revsresnet21", "train", "float32", 0.5, 8, 2),
    HeldIn("plain", "train", "bfloat16", 0.25, 8, 4),
    HeldIn("revsresnet21", "infer", "bfloat16", 0.25, 2, 2),
    HeldIn("revsresnet21", "train", "float32", 0.125, 32, 4),
    HeldIn("revsresnet21", "infer", "float32", 0.5, 8, 2),
)
CUDA = (
    HeldIn("revsresnet21", "train", "float32", 0.25, 8, 2),
    HeldIn("plain", "train", "float32", 1.0, 32, 4),
    HeldIn("revsresnet21", "infer", "float32", 1.0, 64, 4),
    HeldIn("revsresnet21", "train", "float32", 1.0, 32, 4),
    HeldIn("plain", "infer", "float32", 0.25, 8, 4),
    HeldIn("revsresnet21", "train", "bfloat16", 1.0, 64, 4),
    HeldIn("plain", "train", "bfloat16", 1.0, 64, 4),
    HeldIn("revsresnet21", "train", "float32", 2.0, 32, 2),
)


class Plain(nn.Module):
    """Eight convolutions, each with normalisation and a neuron, three poolings and a classifier, nothing residual.

    `[B, 3, 32, 32]` in, logits `[B, classes]` out; `width` 1 is 64 to 512 channels.
    """

    def __init__(self, width: float, timesteps: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.timesteps = timesteps
        widths = [max(4, round(c * width)) for c in (64, 64, 128, 128, 256, 256, 512, 512)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip([3, *widths], widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths)
        self.neurons = nn.ModuleList(models.IF() for _ in widths)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(0).expand(self.timesteps, *x.shape).flatten(0, 1)
        for k, (conv, norm, neuron) in enumerate(zip(self.convs, self.norms, self.neurons, strict=True)):
            x = norm(conv(x))
            x = neuron(x.unflatten(0, (self.timesteps, -1))).flatten(0, 1)
            if k in (1, 3, 5):
                x = self.pool(x)
        logits: torch.Tensor = self.head(x.mean((-2, -1)))
        mean: torch.Tensor = logits.unflatten(0, (self.timesteps, -1)).mean(0)
        return mean


def networks(device: str) -> tuple[HeldIn, ...]:
    """Those whose steps a calibration of the device measures."""
    return CUDA if device == "cuda" else CPU


def network(case: HeldIn) -> nn.Module:
    """The network with fresh weights, drawn from torch's global generator."""
    if case.network == "plain":
        return Plain(case.width, case.timesteps)
    return models.create(case.network, width=case.width, timesteps=case.timesteps, num_classes=CLASSES)


def traced(case: HeldIn, device: str) -> BlockGraph:
    """The step, traced without data."""
    with torch.device("meta"):
        model, x = network(case), torch.empty(case.batch, 3, 32, 32)
    return trace_step(
        model,
        x,
        loop=Loop(optimizer=optimizer_named(_optimizer(device))) if case.mode == "train" else None,
        description=StepDescription(name=case.name, timesteps=case.timesteps),
        dtype=case.dtype,
    ).graph


def step(case: HeldIn, device: str, seed: int) -> Callable[[], object]:
    """The same step on real tensors, ready to be run again and again."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network(case).to(device).train(case.mode == "train")
    x = torch.randn(case.batch, 3, 32, 32, generator=generator).to(device)
    y = torch.randint(0, CLASSES, (case.batch,), generator=generator).to(device)

    loop = Loop(optimizer_named(_optimizer(device))) if case.mode == "train" else None
    run = eager_step(model, loop, case.dtype, device)
    return lambda: run((x,), y)


def _optimizer(device: str) -> str:
    return default_optimizer(device)
