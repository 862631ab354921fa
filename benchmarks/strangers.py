"""Networks as people write them elsewhere, at sizes that no fit ever measured: a validation suite of strangers.

    pararev-hw validate benchmarks/strangers.py:vit benchmarks/strangers.py:unet --device cpu --measure

Every factory takes `batch` and gives the network and its inputs; a step takes some 10 to 300 ms on one core. Nothing of
the toolkit is used here. The networks of `tests/helpers/memory_networks.py` come in other widths and image sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers import memory_networks as others

Made = tuple[nn.Module, torch.Tensor]


class AtanSpike(torch.autograd.Function):
    """A step function with the arctangent surrogate."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (v,) = ctx.saved_tensors
        return grad / (1 + (torch.pi * v) ** 2)


class LIFNode(nn.Module):
    """A neuron that keeps its membrane potential between calls, as SpikingJelly's single-step nodes do."""

    def __init__(self, tau: float = 2.0) -> None:
        super().__init__()
        self.tau, self.v = tau, 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = self.v + (x - self.v) / self.tau
        spike = AtanSpike.apply(v - 1.0)
        self.v = v * (1 - spike)
        return spike


class SingleStepSNN(nn.Module):
    """SpikingJelly style: the network is called once per time step and its neurons are reset before."""

    def __init__(self, timesteps: int, width: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.layers = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), LIFNode(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), LIFNode(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * width * 81, 110), LIFNode(), nn.Linear(110, 10), LIFNode(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.modules():
            if isinstance(module, LIFNode):
                module.v = 0.0
        return torch.stack([self.layers(x[t]) for t in range(self.timesteps)]).mean(0)


class MultiStepSNN(nn.Module):
    """SpikingJelly's multi-step mode: convolutions over `[T * B]`, neurons in a loop over T."""

    def __init__(self, timesteps: int, width: int) -> None:
        super().__init__()
        widths = (3, width, width, 2 * width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths[1:])
        self.fc, self.timesteps = nn.Linear(2 * width, 10), timesteps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])
            v, spikes = torch.zeros_like(y[0]), []
            for u in y:
                v = v + (u - v) / 2.0
                spike = AtanSpike.apply(v - 0.5)
                v = torch.where(spike.bool(), torch.zeros_like(v), v)
                spikes.append(spike)
            x = F.avg_pool2d(torch.stack(spikes).flatten(0, 1), 2).unflatten(0, x.shape[:2])
        return self.fc(x.mean((0, 3, 4)))


class LeakyMLP(nn.Module):
    """snnTorch's first tutorial: two linear layers, learned decay, membrane passed along, spikes stacked."""

    def __init__(self, timesteps: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.timesteps = nn.Linear(600, width), nn.Linear(width, 10), timesteps
        self.beta1, self.beta2 = nn.Parameter(torch.tensor(0.9)), nn.Parameter(torch.tensor(0.8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m1, m2 = torch.zeros(x.shape[0], self.fc1.out_features), torch.zeros(x.shape[0], 10)
        spikes = []
        for _ in range(self.timesteps):
            m1 = self.beta1 * m1 + self.fc1(x) - (m1 > 1).detach().float()
            s1 = AtanSpike.apply(m1 - 1)
            m2 = self.beta2 * m2 + self.fc2(s1) - (m2 > 1).detach().float()
            spikes.append(AtanSpike.apply(m2 - 1))
        return torch.stack(spikes).mean(0)


class GroupedSNN(nn.Module):
    """A stepwise network whose convolutions have three groups."""

    def __init__(self, timesteps: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, groups=3)
        self.body, self.mix = nn.Conv2d(width, width, 3, padding=1, groups=3), nn.Conv2d(width, width, 1)
        self.fc, self.timesteps = nn.Linear(width, 10), timesteps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, total = torch.zeros(()), torch.zeros(())
        for _ in range(self.timesteps):
            u = 0.7 * u + self.mix(self.body(self.stem(x)))
            spike = AtanSpike.apply(u - 0.3)
            u = u - spike
            total = total + self.fc(spike.mean((2, 3)))
        return total / self.timesteps


class SpikingAttention(nn.Module):
    """Spikformer's block: spikes as query, key and value, no softmax."""

    def __init__(self, width: int, heads: int, timesteps: int) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, width, 4, 4), nn.BatchNorm2d(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.head, self.heads, self.timesteps = nn.Linear(width, 10), heads, timesteps

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return AtanSpike.apply(x - 0.2).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patch(x)).flatten(2).transpose(1, 2)
        x = AtanSpike.apply(x.repeat(self.timesteps, 1, 1))
        q, k, v = self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))
        mixed = 0.125 * (q @ k.transpose(-2, -1)) @ v
        x = x + AtanSpike.apply(self.out(mixed.transpose(1, 2).flatten(2)) - 0.1)
        x = x + AtanSpike.apply(self.down(AtanSpike.apply(self.up(x))))
        return self.head(x.unflatten(0, (self.timesteps, -1)).mean((0, 2)))


class ReversibleFunction(torch.autograd.Function):
    """RevNet's block by hand: the inputs are recomputed from the outputs."""

    @staticmethod
    def forward(ctx: Any, x1: torch.Tensor, x2: torch.Tensor, f: nn.Module, g: nn.Module, *weights: Any) -> Any:
        with torch.no_grad():
            y1 = x1 + f(x2)
            y2 = x2 + g(y1)
        ctx.f, ctx.g = f, g
        ctx.save_for_backward(y1, y2)
        return y1, y2

    @staticmethod
    def backward(ctx: Any, d1: torch.Tensor, d2: torch.Tensor) -> Any:
        y1, y2 = ctx.saved_tensors
        with torch.enable_grad():
            y1 = y1.detach().requires_grad_()
            gy = ctx.g(y1)
        back_g = torch.autograd.grad(gy, (y1, *ctx.g.parameters()), d2)
        d1 = d1 + back_g[0]
        with torch.enable_grad():
            x2 = (y2 - gy).detach().requires_grad_()
            fx = ctx.f(x2)
        back_f = torch.autograd.grad(fx, (x2, *ctx.f.parameters()), d1)
        return d1, d2 + back_f[0], None, None, *back_f[1:], *back_g[1:]


class HandRevNet(nn.Module):
    """RevNet with GroupNorm, its autograd function written by hand."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * width, 3, padding=1)
        self.f, self.g = (nn.ModuleList(self._unit(width) for _ in range(depth)) for _ in range(2))
        self.fc = nn.Linear(2 * width, 10)

    @staticmethod
    def _unit(width: int) -> nn.Module:
        return nn.Sequential(nn.GroupNorm(4, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.stem(x).chunk(2, 1)
        for f, g in zip(self.f, self.g, strict=True):
            a, b = ReversibleFunction.apply(a, b, f, g, *f.parameters(), *g.parameters())
        return self.fc(torch.cat([a, b], 1).mean((2, 3)))


class Leapfrog(nn.Module):
    """A leapfrog net with GroupNorm: every state is the one before the last plus a function of the last."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 5, 2, 2)
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(6, width), nn.SiLU())
            for _ in range(depth)
        )
        self.fc = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = now = self.stem(x)
        for step in self.steps:
            before, now = now, before + step(now)
        return self.fc(now.mean((2, 3)))


class StyleTransfer(nn.Module):
    """InstanceNorm, reflection padding, nearest upsampling; gives an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(4), nn.Conv2d(3, width, 9), nn.InstanceNorm2d(width, affine=True), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width, affine=True), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.InstanceNorm2d(2 * width, affine=True), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(2 * width, width, 3, padding=1),
            nn.InstanceNorm2d(width, affine=True), nn.ReLU(), nn.ReflectionPad2d(4), nn.Conv2d(width, 3, 9),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.body(x))


class MBConv(nn.Module):
    """EfficientNet's block: depthwise 5x5, squeeze-and-excitation, SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 4 * width
        self.up = nn.Sequential(nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(inplace=True))
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU(inplace=True)
        )
        self.squeeze, self.excite = nn.Conv2d(wide, width // 4, 1), nn.Conv2d(width // 4, wide, 1)
        self.down = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.up(x))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.down(y * gate)


class MixerBlock(nn.Module):
    """MLP-Mixer: a perceptron over patches, one over channels."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches))
        self.channels = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(MixerBlock(81, width) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class WindowAttention(nn.Module):
    """Swin's attention spelt out: windows, softmax over scores with a learned bias."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, width, 2, 2), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, window**2, window**2))
        self.head, self.heads, self.window = nn.Linear(width, 10), heads, window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        n = self.window
        x = x.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(-1, n * n, c)
        q, k, v = self.qkv(self.norm(x)).view(-1, n * n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1) + self.bias
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, n * n, c))
        return self.head(x.view(b, -1, c).mean(1))


class CausalTCN(nn.Module):
    """Dilated causal convolutions over a sequence, padded and cut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(12, width, 1)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**k) for k in range(5))
        self.fc, self.dropout = nn.Linear(width, 10), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for k, conv in enumerate(self.convs):
            x = x + self.dropout(F.relu(conv(F.pad(x, (2 ** (k + 1), 0)))))
        return self.fc(x[..., -1])


class CellLoop(nn.Module):
    """LSTM cells called in a Python loop."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(28, width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(x.shape[0], self.cell.hidden_size)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return self.fc(h)


class TextCNN(nn.Module):
    """Word embeddings, convolutions of three widths, maximum over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(3000, 72)
        self.convs = nn.ModuleList(nn.Conv1d(72, width, k) for k in (3, 4, 5))
        self.fc = nn.Linear(3 * width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens).transpose(1, 2)
        return self.fc(torch.cat([F.relu(conv(x)).amax(-1) for conv in self.convs], 1))


class SuperResolution(nn.Module):
    """ESPCN: convolutions at low resolution, then PixelShuffle. Gives an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2), nn.Tanh(), nn.Conv2d(width, width // 2, 3, padding=1), nn.Tanh(),
            nn.Conv2d(width // 2, 9, 3, padding=1), nn.PixelShuffle(3),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class ChannelsLast(others.ResNet):
    """A ResNet in channels-last memory."""

    def __init__(self, layers: tuple[int, ...], width: int) -> None:
        super().__init__(layers, width)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.contiguous(memory_format=torch.channels_last))


def _images(batch: int, side: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, channels, side, side)


def resnet(batch: int = 6) -> Made:
    return others.ResNet((2, 1, 2, 1), 24), _images(batch, 88)


def resnet_channels_last(batch: int = 6) -> Made:
    return ChannelsLast((1, 2, 1, 1), 40), _images(batch, 72)


def resnet_checkpointed(batch: int = 5) -> Made:
    return others.ResNet((1, 2, 2, 1), 28, "plain"), _images(batch, 80)


def language_model(batch: int = 10) -> Made:
    return others.Transformer(112, 4, 3), torch.randint(0, 128, (batch, 32))


def vit(batch: int = 6) -> Made:
    return others.Encoder(120), _images(batch, 36)


def stepwise_snn(batch: int = 7) -> Made:
    return others.shaped(others.StepwiseSNN(5, 22), (3, 26, 26)), _images(batch, 26)


def googlenet(batch: int = 9) -> Made:
    return others.GoogLeNet(), _images(batch, 44)


def mobilenet(batch: int = 7) -> Made:
    return others.MobileNet(), _images(batch, 104)


def unet(batch: int = 3) -> Made:
    return others.UNet(20), _images(batch, 56)


def autoencoder(batch: int = 18) -> Made:
    return others.Autoencoder(), _images(batch, 60)


def lstm(batch: int = 28) -> Made:
    return others.Recurrent("lstm"), torch.rand(batch, 36, 20)


def gru(batch: int = 44) -> Made:
    return others.Recurrent("gru"), torch.rand(batch, 30, 20)


def densenet(batch: int = 6) -> Made:
    return others.DenseNet(12, 7), _images(batch, 34)


def vgg(batch: int = 11) -> Made:
    return others.VGG(), _images(batch, 52)


def convnext(batch: int = 7) -> Made:
    return others.ConvNeXt(56), _images(batch, 60)


def speech(batch: int = 14) -> Made:
    return others.Speech(), torch.rand(batch, 8, 900)


def video(batch: int = 3) -> Made:
    return others.Video(), torch.rand(batch, 3, 10, 26, 26)


def mlp(batch: int = 150) -> Made:
    return others.Perceptron(), torch.rand(batch, 192)


def single_step_snn(batch: int = 6) -> Made:
    return SingleStepSNN(5, 20), (torch.rand(5, batch, 2, 36, 36) < 0.15).float()


def multi_step_snn(batch: int = 5) -> Made:
    return MultiStepSNN(6, 26), _images(batch, 28)


def leaky_mlp(batch: int = 72) -> Made:
    return LeakyMLP(20, 700), torch.rand(batch, 600)


def grouped_snn(batch: int = 5) -> Made:
    return GroupedSNN(5, 30), _images(batch, 30)


def spiking_attention(batch: int = 6) -> Made:
    return SpikingAttention(104, 4, 3), _images(batch, 36)


def hand_revnet(batch: int = 6) -> Made:
    return HandRevNet(28, 4), _images(batch, 30)


def leapfrog(batch: int = 7) -> Made:
    return Leapfrog(42, 6), _images(batch, 54)


def style_transfer(batch: int = 2) -> Made:
    return StyleTransfer(14), _images(batch, 60)


def efficientnet(batch: int = 5) -> Made:
    stem, blocks = nn.Conv2d(3, 20, 3, 2, 1), [MBConv(20) for _ in range(4)]
    return nn.Sequential(stem, *blocks, others.Pooled(20)), _images(batch, 68)


def mixer(batch: int = 7) -> Made:
    return Mixer(88, 4), _images(batch, 36)


def window_attention(batch: int = 5) -> Made:
    return WindowAttention(84, 3, 6), _images(batch, 60)


def causal_tcn(batch: int = 12) -> Made:
    return CausalTCN(44), torch.rand(batch, 12, 310)


def cell_loop(batch: int = 26) -> Made:
    return CellLoop(110), torch.rand(batch, 34, 28)


def text_cnn(batch: int = 18) -> Made:
    return TextCNN(60), torch.randint(0, 3000, (batch, 70))


def super_resolution(batch: int = 5) -> Made:
    return SuperResolution(44), _images(batch, 50, 1)


STRANGERS: tuple[Callable[..., Made], ...] = (
    resnet, resnet_channels_last, resnet_checkpointed, language_model, vit, stepwise_snn, googlenet, mobilenet, unet,
    autoencoder, lstm, gru, densenet, vgg, convnext, speech, video, mlp, single_step_snn, multi_step_snn, leaky_mlp,
    grouped_snn, spiking_attention, hand_revnet, leapfrog, style_transfer, efficientnet, mixer, window_attention,
    causal_tcn, cell_loop, text_cnn, super_resolution,
)  # fmt: skip
