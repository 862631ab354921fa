"""Training steps of networks as people write them, drawn at random: what a calibration replays, op by op.

Each family is a kind of architecture; widths, depths, sizes and the details that pick a kernel (kernel size, stride,
groups, activation, normalisation) are drawn anew every time. What a user's network runs is then likely to lie among
what was measured, whatever its shapes. No network of a validation is among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from pararev_hw import models
from pararev_hw.calibration.assortments import assorted_convolutions, assorted_layers, assorted_products
from pararev_hw.calibration.suite.entry import HELD_OUT_EVERY, SEED, Draw
from pararev_hw.execution.loop_overheads import Spike
from pararev_hw.tracing import StepDescription, optimizer_named, trace_step
from pararev_hw.training.step import Loop
from pararev_hw.types import BlockGraph

Network = tuple[nn.Module, torch.Tensor]
_CLASSES = (4, 10, 100)


Family = Callable[[Draw], Network]


@dataclass(frozen=True, slots=True)
class DrawnNetwork:
    """A network of a family, drawn from a seed of its own. A held-out one enters no fit."""

    family: Family
    number: int
    held_out: bool

    @property
    def family_name(self) -> str:
        return self.family.__name__.strip("_").replace("_", " ")

    @property
    def name(self) -> str:
        return f"{self.family_name}, network {self.number}"

    @property
    def is_assorted(self) -> bool:
        """Whether it is none that people write, but many layers side by side."""
        return self.family in (assorted_convolutions, assorted_layers, assorted_products)

    def traced(self) -> BlockGraph:
        """Its training step, traced without data."""
        draw = Draw(f"{SEED} {self.name}")
        with torch.random.fork_rng(devices=[]):  # on the CPU: elsewhere recurrent layers run other ops
            model, x = self.family(draw)
        optimizer = optimizer_named(draw.option(("sgd", "sgd", "adamw")))
        return trace_step(model, x, loop=Loop(optimizer=optimizer), description=StepDescription(name=self.name)).graph


def drawn_networks() -> Iterator[DrawnNetwork]:
    """Networks of all families in turn, endlessly. Every fifth is held out: another family's each time, so that a short
    calibration holds some out as well."""
    for number in itertools.count():
        turn, n = divmod(number, len(FAMILIES))
        yield DrawnNetwork(FAMILIES[n], number, (n + turn) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1)


def _norm(draw: Draw, width: int) -> nn.Module:
    groups = next(g for g in (draw.integer((2, 4, 8)), 2, 1) if width % g == 0)
    return draw.option(
        (nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.GroupNorm(groups, width),
         nn.InstanceNorm2d(width, affine=draw.flag()))
    )  # fmt: skip


def _activation(draw: Draw) -> nn.Module:
    usual = (nn.ReLU(), nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU())
    return draw.option((*usual, nn.LeakyReLU(0.1), nn.ELU(), nn.Hardswish(), nn.Tanh()))


class _Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = x + self.body(x)
        return total


class _Head(nn.Module):
    """Mean over all that follows the channels, then a linear layer."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(x.flatten(2).mean(2))
        return logits


def _convolutions(draw: Draw) -> Network:
    """Convolutions with normalisation and activation, residual or not, at falling sizes."""
    batch, side, width = draw.log(2, 48), draw.log(12, 64), draw.log(8, 96)
    layers: list[nn.Module] = [nn.Conv2d(3, width, draw.integer((3, 3, 5, 7)), draw.integer((1, 1, 2)), 2, bias=False)]
    layers += [_norm(draw, width), _activation(draw)]
    for _ in range(draw.integer((2, 3, 4))):
        wider = width * draw.integer((1, 1, 2))
        if draw.flag():
            body = [nn.Conv2d(width, width, 3, padding=1, bias=False), _norm(draw, width), _activation(draw)]
            layers.append(
                _Residual(nn.Sequential(*body, nn.Conv2d(width, width, draw.integer((1, 3)), padding="same")))
            )
        kernel, stride = draw.integer((1, 3, 3, 3, 5)), draw.integer((1, 1, 2))
        layers += [nn.Conv2d(width, wider, kernel, stride, kernel // 2, bias=draw.flag()), _norm(draw, wider)]
        layers.append(_activation(draw))
        if draw.flag(0.3):
            layers.append(draw.option((nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1))))
        width = wider
    return nn.Sequential(*layers, _Head(width, draw.integer(_CLASSES))), torch.empty(batch, 3, side, side)


def _channels_last(draw: Draw) -> Network:
    """Convolutions whose weights and images have channels last in memory."""
    net, x = _convolutions(draw)
    return net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Gate(nn.Module):
    """Squeeze and excitation: channels scaled by what their means say."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale: torch.Tensor = self.outer(F.silu(self.inner(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * scale


def _depthwise(draw: Draw) -> Network:
    """Inverted residuals: pointwise, depthwise, gate, pointwise; or grouped convolutions between pointwise ones."""
    batch, side, width = draw.log(2, 32), draw.log(12, 64), 8 * draw.log(1, 6)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
    for _ in range(draw.integer((2, 3, 4))):
        inner, kernel, stride = width * draw.integer((2, 3, 4, 6)), draw.integer((3, 3, 5, 7)), draw.integer((1, 1, 2))
        groups = draw.option((inner, inner, inner, width // 4, 2))
        body: list[nn.Module] = [nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), _activation(draw)]
        body += [nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=groups, bias=False)]
        body += [nn.BatchNorm2d(inner), _activation(draw)]
        body += [_Gate(inner, max(4, width // 4))] if draw.flag(0.4) else []
        body += [nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)]
        layers.append(_Residual(nn.Sequential(*body)) if stride == 1 else nn.Sequential(*body))
    return nn.Sequential(*layers, _Head(width, draw.integer(_CLASSES))), torch.empty(batch, 3, side, side)


class _LastNorm(nn.Module):
    """Layer normalisation over the channels of images, moved last for it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = self.norm(x.permute(0, 2, 3, 1))
        return moved.permute(0, 3, 1, 2)


class _LastMlp(nn.Module):
    """Two linear layers over the channels of images, moved last for them."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.wide, self.narrow = nn.Linear(width, factor * width), nn.Linear(factor * width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(F.gelu(self.wide(self.norm(x.permute(0, 2, 3, 1)))))
        scaled: torch.Tensor = (self.scale * y).permute(0, 3, 1, 2)
        return scaled


def _patches(draw: Draw) -> Network:
    """Patches, then depthwise convolutions and layers over the channels of each patch."""
    batch, side, width, patch = draw.log(2, 32), draw.log(24, 64), 8 * draw.log(1, 12), draw.integer((2, 4))
    layers: list[nn.Module] = [nn.Conv2d(3, width, patch, patch), _LastNorm(width)]
    for _ in range(draw.integer((2, 3))):
        kernel = draw.integer((3, 5, 7, 9))
        layers.append(nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width))
        layers.append(_Residual(_LastMlp(width, draw.integer((2, 4)))))
    return nn.Sequential(*layers, _Head(width, draw.integer(_CLASSES))), torch.empty(batch, 3, side, side)


def _sequences(draw: Draw) -> Network:
    """Convolutions over time: strided, dilated, grouped."""
    batch, length, width = draw.log(2, 48), draw.log(24, 800), draw.log(8, 128)
    channels = draw.log(1, 40)
    layers: list[nn.Module] = []
    for _ in range(draw.integer((2, 3, 4))):
        kernel, dilation = draw.integer((1, 3, 3, 5, 9)), draw.integer((1, 1, 2, 4))
        stride = draw.integer((1, 1, 2)) if dilation == 1 else 1
        pad = dilation * (kernel // 2)
        layers.append(nn.Conv1d(channels, width, kernel, stride, pad, dilation))
        layers.append(draw.option((nn.BatchNorm1d(width), nn.BatchNorm1d(width), nn.Identity())))
        layers.append(_activation(draw))
        if draw.flag(0.3):
            layers.append(nn.Conv1d(width, width, 3, padding=1, groups=width))
        channels = width
        width = width * draw.integer((1, 1, 2))
    return nn.Sequential(*layers, _Head(channels, draw.integer(_CLASSES))), torch.empty(batch, _first(layers), length)


def _first(layers: list[nn.Module]) -> int:
    """Channels that the first convolution reads."""
    return next(layer.in_channels for layer in layers if isinstance(layer, nn.Conv1d))


def _volumes(draw: Draw) -> Network:
    """Convolutions over space and time."""
    batch, frames, side, width = draw.log(1, 8), draw.log(3, 8), draw.log(10, 32), draw.log(4, 32)
    layers: list[nn.Module] = [nn.Conv3d(3, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(), nn.MaxPool3d(2)]
    layers += [nn.Conv3d(width, 2 * width, 3, draw.integer((1, 2)), 1), nn.BatchNorm3d(2 * width), nn.ReLU()]
    return nn.Sequential(*layers, _Head(2 * width, draw.integer(_CLASSES))), torch.empty(batch, 3, frames, side, side)


class _Attention(nn.Module):
    """Self-attention before a normalisation, its product written out or PyTorch's own."""

    def __init__(self, width: int, heads: int, written_out: bool, causal: bool) -> None:
        super().__init__()
        self.heads, self.written_out, self.causal = heads, written_out, causal
        self.norm, self.three, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.three(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        if self.written_out:
            scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
            mixed = scores.softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        total: torch.Tensor = x + self.out(mixed.transpose(1, 2).flatten(2))
        return total


class _Mlp(nn.Module):
    """Two linear layers after a normalisation, added to their input."""

    def __init__(self, width: int, factor: int, activation: nn.Module, dropout: float) -> None:
        super().__init__()
        layers = [nn.LayerNorm(width), nn.Linear(width, factor * width), activation]
        layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear(factor * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = x + self.layers(x)
        return total


class _Transformer(nn.Module):
    """Patches or tokens, a position for each, attention and layers, a classifier."""

    def __init__(self, entry: nn.Module, length: int, width: int, blocks: list[nn.Module], classes: int) -> None:
        super().__init__()
        self.entry, self.position = entry, nn.Parameter(torch.zeros(1, length, width))
        self.blocks, self.norm, self.head = nn.Sequential(*blocks), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.entry(x)
        x = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
        logits: torch.Tensor = self.head(self.norm(self.blocks(x + self.position)).mean(1))
        return logits


def _transformer(draw: Draw) -> Network:
    """Attention over patches or tokens."""
    batch, heads, each = draw.log(2, 48), draw.integer((2, 3, 4, 6)), 8 * draw.log(1, 6)
    width, classes = heads * each, draw.integer(_CLASSES)
    written_out, factor = draw.flag(), draw.integer((2, 3, 4))
    blocks: list[nn.Module] = []
    for _ in range(draw.integer((1, 2, 3))):
        activation = draw.option((nn.GELU(), nn.GELU(), nn.ReLU(), nn.SiLU()))
        blocks.append(_Attention(width, heads, written_out, draw.flag(0.3)))
        blocks.append(_Mlp(width, factor, activation, draw.integer((0, 0, 1)) / 10))
    if draw.flag():
        length, words = draw.log(8, 128), draw.log(50, 4000)
        return _Transformer(nn.Embedding(words, width), length, width, blocks, classes), torch.zeros(
            batch, length, dtype=torch.long
        )
    patch, tiles = draw.integer((4, 8)), draw.log(4, 10)
    entry = nn.Conv2d(3, width, patch, patch)
    return _Transformer(entry, tiles * tiles, width, blocks, classes), torch.empty(
        batch, 3, patch * tiles, patch * tiles
    )


class _Recurrent(nn.Module):
    """A recurrent layer over [B, T, C], or a cell called once per step, then a classifier of its last output."""

    def __init__(self, layer: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, nn.GRUCell | nn.RNNCell):
            h = self.layer(x[:, 0])
            for t in range(1, x.shape[1]):
                h = self.layer(x[:, t], h)
        elif isinstance(self.layer, nn.LSTMCell):
            h, c = self.layer(x[:, 0])
            for t in range(1, x.shape[1]):
                h, c = self.layer(x[:, t], (h, c))
        else:
            h = self.layer(x)[0][:, -1]
        logits: torch.Tensor = self.head(h)
        return logits


def _recurrent(draw: Draw) -> Network:
    """Recurrences other than `_lstm`, and cells called step by step."""
    batch, length, channels, width = draw.log(2, 100), draw.log(4, 48), draw.log(4, 64), draw.log(8, 160)
    kind = draw.option((nn.GRU, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell))
    if kind in (nn.GRU, nn.RNN):
        layer = kind(channels, width, num_layers=draw.integer((1, 1, 2)), batch_first=True)
    else:
        layer, length = kind(channels, width), min(length, 12)
    return _Recurrent(layer, width, draw.integer(_CLASSES)), torch.empty(batch, length, channels)


def _lstm(draw: Draw) -> Network:
    """One or two layers of LSTM, the library's own kernel on a CPU."""
    batch, length, channels, width = draw.log(2, 64), draw.log(4, 48), draw.log(4, 64), draw.log(8, 160)
    layer = nn.LSTM(channels, width, num_layers=draw.integer((1, 1, 2)), batch_first=True)
    return _Recurrent(layer, width, draw.integer(_CLASSES)), torch.empty(batch, length, channels)


class _HourGlass(nn.Module):
    """Down to half the size and up again, joined with what was there before."""

    def __init__(self, width: int, up: nn.Module, joined: nn.Module, down: nn.Module, classes: int) -> None:
        super().__init__()
        self.first, self.down, self.up, self.joined = nn.Conv2d(3, width, 3, padding=1), down, up, joined
        self.out = _Head(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.first(x).relu()
        logits: torch.Tensor = self.out(self.joined(torch.cat((wide, self.up(self.down(wide))), 1)))
        return logits


def _up_and_down(draw: Draw) -> Network:
    """Convolutions down and up: transposed ones, or images enlarged."""
    batch, side, width = draw.log(2, 16), 4 * draw.log(3, 16), draw.log(8, 48)
    wider = 2 * width
    down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, wider, 3, padding=1), _norm(draw, wider), _activation(draw))
    if draw.flag():
        kernel = draw.integer((2, 4))
        up: nn.Module = nn.ConvTranspose2d(wider, width, kernel, 2, (kernel - 2) // 2)
    else:
        how = {"mode": "nearest"} if draw.flag() else {"mode": "bilinear", "align_corners": False}
        up = nn.Sequential(nn.Upsample(scale_factor=2, **how), nn.Conv2d(wider, width, 3, padding=1))
    joined = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), _norm(draw, width), _activation(draw))
    return _HourGlass(width, up, joined, down, draw.integer(_CLASSES)), torch.empty(batch, 3, side, side)


def _layers(draw: Draw) -> Network:
    """Linear layers, with normalisation and dropout or without."""
    batch, width, size = draw.log(8, 512), draw.log(16, 768), draw.log(16, 1024)
    layers: list[nn.Module] = []
    for _ in range(draw.integer((2, 3, 4))):
        layers += [nn.Linear(size, width), _activation(draw)]
        layers += [draw.option((nn.BatchNorm1d(width), nn.LayerNorm(width), nn.Dropout(0.2), nn.Identity()))]
        size, width = width, max(8, width // draw.integer((1, 1, 2)))
    return nn.Sequential(*layers, nn.Linear(size, draw.integer(_CLASSES))), torch.empty(batch, _features(layers))


def _features(layers: list[nn.Module]) -> int:
    """Features that the first linear layer reads."""
    return next(layer.in_features for layer in layers if isinstance(layer, nn.Linear))


class _Stepwise(nn.Module):
    """A spiking network run one time step after the other, its membranes kept in a list."""

    def __init__(self, stages: list[nn.Module], head: nn.Module, timesteps: int, decay: float, reset: str) -> None:
        super().__init__()
        self.stages, self.head = nn.ModuleList(stages), head
        self.timesteps, self.decay, self.reset = timesteps, decay, reset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        membranes: list[torch.Tensor | None] = [None] * len(self.stages)
        total: torch.Tensor = torch.zeros(())
        for t in range(self.timesteps):
            s = x
            for k, stage in enumerate(self.stages):
                current, before = stage(s), membranes[k]
                v = current if before is None else self.decay * before + current
                s = Spike.apply(v - 1.0)
                membranes[k] = v * (1.0 - s) if self.reset == "to zero" else v - s
            total = self.head(s) if t == 0 else total + self.head(s)
        return total / self.timesteps


def _spiking(draw: Draw) -> Network:
    """Convolutions or linear layers with leaky neurons, a loop over time."""
    batch, timesteps, classes = draw.log(2, 48), draw.integer((2, 3, 4, 6)), draw.integer(_CLASSES)
    decay, reset = draw.option((0.5, 0.9)), draw.option(("to zero", "by subtraction"))
    if draw.flag(0.3):
        sizes = [draw.log(64, 800), *(draw.log(32, 256) for _ in range(2))]
        stages: list[nn.Module] = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        head: nn.Module = nn.Linear(sizes[-1], classes)
        return _Stepwise(stages, head, timesteps, decay, reset), torch.empty(4 * batch, sizes[0])
    side, width = draw.log(8, 32), draw.log(8, 64)
    stages = [nn.Sequential(nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))]
    for _ in range(draw.integer((1, 2))):
        wider = width * draw.integer((1, 2))
        layers = [nn.Conv2d(width, wider, 3, draw.integer((1, 2)), 1, bias=False), nn.BatchNorm2d(wider)]
        stages.append(nn.Sequential(*layers))
        width = wider
    return _Stepwise(stages, _Head(width, classes), timesteps, decay, reset), torch.empty(batch, 2, side, side)


def _reversible(draw: Draw) -> Network:
    """The zoo's RevSNN of 21 layers, whose blocks are computed again in backward."""
    width, timesteps = draw.integer((2, 3, 4, 6)) / 16, draw.integer((1, 2, 4))
    net = models.create("revsresnet21", width=width, timesteps=timesteps, num_classes=draw.integer(_CLASSES))
    side = 8 * draw.integer((2, 3, 4))
    return net, torch.empty(draw.log(1, 8), 3, side, side)


FAMILIES: tuple[Family, ...] = (
    *(_convolutions, assorted_convolutions, assorted_layers, _transformer, _depthwise, _spiking),
    *(assorted_products, _reversible, assorted_convolutions, _layers, _recurrent, assorted_layers),
    *(_convolutions, assorted_convolutions, _sequences, _lstm, _up_and_down, _patches, assorted_layers),
    *(_spiking, _volumes, _channels_last),
)
"""In turn; what is met most comes twice, and what tells most in a short time three times."""
