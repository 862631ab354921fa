"""The spiking residual networks of the zoo: `[B, C, H, W]` or `[T, B, C, H, W]` in, logits `[B, classes]` out.

A static image passes the stem once and is then shown at all T steps; event frames pass the stem one by one.
Convolution, norm and pooling see T folded into the batch. Logits are the mean over T of the classifier's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from pararev_hw.errors import BadInput
from pararev_hw.models.neurons import Neuron
from pararev_hw.models.reversible import Coupling, MergedSequence, Reversible, ReversibleSequence

MakeNeuron = Callable[[], Neuron]
Form = Literal["unfused", "merged", "fused"]


class Stem(nn.Module):
    """Image to stream: conv3×3 without bias, BN and, where given, a pool. `[N, C, H, W]` to `[N, c, h, w]`."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, pool: nn.Module | None) -> None:
        super().__init__()
        self.conv = _conv3x3(in_channels, channels, stride)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out if self.pool is None else self.pool(out)


class Unit(nn.Module):
    """A residual function, SN → conv3×3 → norm → SN → conv3×3 → BN, `[T, B, c_in, H, W]` to `[T, B, c_out, h, w]`.

    `norm1` is BN unless another is given; `stride` is that of the first convolution.
    """

    def __init__(
        self,
        neuron: MakeNeuron,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm1: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, mid_channels, stride)
        self.norm1 = nn.BatchNorm2d(mid_channels) if norm1 is None else norm1
        self.sn1 = neuron()
        self.conv2 = _conv3x3(mid_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.sn2 = neuron()

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[:2]
        out = self.norm1(self.conv1(self.sn1(x).flatten(0, 1))).unflatten(0, steps)
        out = self.norm2(self.conv2(self.sn2(out).flatten(0, 1)))
        return _unfolded(out, steps)


class FusedUnit(nn.Module):
    """G_i and F_{i+1} of equal widths in one, exactly: G_i(a) + F_{i+1}(a), `[T, B, c, H, W]` both ways.

    The neuron they share runs once, the first convolutions are stacked by output channel, the second ones are two
    groups of one convolution; each branch keeps its own norms, as halves of the channels.
    """

    def __init__(self, neuron: MakeNeuron, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, 2 * channels)
        self.norm1 = nn.BatchNorm2d(2 * channels)
        self.sn1 = neuron()
        self.conv2 = _conv3x3(2 * channels, 2 * channels, groups=2)
        self.norm2 = nn.BatchNorm2d(2 * channels)
        self.sn2 = neuron()

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[:2]
        out = self.norm1(self.conv1(self.sn1(x).flatten(0, 1))).unflatten(0, steps)
        g, f = self.norm2(self.conv2(self.sn2(out).flatten(0, 1))).chunk(2, 1)
        return _unfolded(g + f, steps)


class Downsample(nn.Module):
    """SN → pool (where given) → conv1×1 → BN, `[T, B, c_in, H, W]` to `[T, B, c_out, H/2, W/2]`."""

    def __init__(self, neuron: MakeNeuron, in_channels: int, out_channels: int, *, pool: nn.Module | None) -> None:
        super().__init__()
        self.sn = neuron()
        self.pool = pool
        stride = 2 if pool is None else 1
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.sn(x).flatten(0, 1)
        if self.pool is not None:
            out = self.pool(out)
        return _unfolded(self.norm(self.conv(out)), x.shape[:2])


class BasicBlock(nn.Module):
    """MS-ResNet's block: unit(x) + x, the shortcut downsampled where the shape changes (arXiv 2112.08954)."""

    def __init__(self, neuron: MakeNeuron, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.unit = Unit(neuron, in_channels, channels, channels, stride=stride)
        changes = stride != 1 or in_channels != channels
        self.downsample = Downsample(neuron, in_channels, channels, pool=None) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.unit(x)
        return out + (x if self.downsample is None else self.downsample(x))


class SpikingResNet(nn.Module):
    """Stem, `stages` with `downsamples` between them (there may be none), SN, global mean, linear, mean over T.

    Raises BadInput for an input that is not `[B, C, H, W]` or `[T, B, C, H, W]` with the channels of the stem.
    """

    def __init__(
        self,
        stem: Stem,
        stages: Sequence[nn.Module],
        downsamples: Sequence[nn.Module],
        sn: Neuron,
        features: int,
        *,
        timesteps: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.downsamples = nn.ModuleList(downsamples)
        self.sn = sn
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self._stream(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i < len(self.downsamples):
                x = self.downsamples[i](x)
        steps = x.shape[:2]
        out = self.pool(self.sn(x).flatten(0, 1)).flatten(1)
        logits: Tensor = self.fc(_unfolded(out, steps))
        return logits.mean(0)

    def _stream(self, x: Tensor) -> Tensor:
        channels = self.stem.conv.in_channels
        if x.dim() not in (4, 5) or x.shape[-3] != channels or 0 in x.shape:
            raise BadInput(
                f"the network's input has shape {tuple(x.shape)}: it must be [B, {channels}, H, W] "
                f"or [T, B, {channels}, H, W], with no dimension of 0"
            )
        if x.dim() == 4:
            once: Tensor = self.stem(x)
            return once.expand(self.timesteps, -1, -1, -1, -1)
        return _unfolded(self.stem(x.flatten(0, 1)), x.shape[:2])


def reversible_stage(
    neuron: MakeNeuron, channels: int, pairs: int, *, coupling: Coupling, form: Form = "unfused", store: bool = False
) -> Reversible:
    """`pairs` reversible blocks on two streams of `channels` each; `store` keeps their activations (plain autograd).

    The merged unit M (Xu et al., 2025, give it in prose only) is taken to be SN → conv3×3 c→2c → GN → SN → conv3×3
    2c→c → BN: the first convolutions of G_i and F_{i+1} stacked, the second ones summed. Its group norm has 32 groups,
    fewer where 32 does not divide 2c.
    """

    def unit() -> Unit:
        return Unit(neuron, channels, channels, channels)

    def merged() -> nn.Module:
        if form == "fused":
            return FusedUnit(neuron, channels)
        norm1 = nn.GroupNorm(math.gcd(32, 2 * channels), 2 * channels)
        return Unit(neuron, channels, 2 * channels, channels, norm1=norm1)

    if form == "unfused":
        return ReversibleSequence([(unit(), unit()) for _ in range(pairs)], coupling=coupling, reversible=not store)
    return MergedSequence(unit(), [merged() for _ in range(pairs - 1)], unit(), reversible=not store)


def initialise(net: nn.Module) -> None:
    """The published code's start: convolutions Kaiming-normal by fan-out, norms 1 and 0, the classifier torch's own."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d) and not m.weight.is_meta:  # torch would load its compiler to draw nothing
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def _unfolded(x: Tensor, steps: Sequence[int]) -> Tensor:
    return x.view(*steps, *x.shape[1:])
