"""Many unlike layers side by side in one network: what a calibration replays to see how shapes and forms differ.

A network as people write them runs few shapes, each several times. Here every layer has an input of its own, so that
one replayed step tells of as many shapes as it has layers. Forms that common networks hold rarely (grouped, dilated,
transposed, channels last, wide kernels) come as often as others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from pararev_hw.calibration.suite.entry import Draw

Shape = tuple[int, ...]
Branch = tuple[Shape, nn.Module]
_CLASSES = 10
_CONVOLUTIONS, _PRODUCTS, _LAYERS = 8, 8, 15  # in one network
_MOST_FLOPS = 2e8  # of one convolution
_MOST_ELEMENTS = 1 << 20  # of the input of one layer
_WITHOUT_GRADIENT = 0.15  # of convolutions: as the first of a network, its image needs none


class Assortment(nn.Module):
    """Branches with an input each; logits `[1, classes]` of their means. What is fed in is added to the logits."""

    def __init__(self, branches: list[Branch], learnt: list[bool]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch for _, branch in branches)
        self.inputs = nn.ParameterList(
            nn.Parameter(torch.empty(shape), requires_grad=wanted)
            for (shape, _), wanted in zip(branches, learnt, strict=True)
        )
        self.head = nn.Linear(len(branches), _CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = [branch(y).mean() for branch, y in zip(self.branches, self.inputs, strict=True)]
        logits: torch.Tensor = self.head(torch.stack(means).unsqueeze(0)) + x
        return logits


class _Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def assorted_convolutions(draw: Draw) -> tuple[nn.Module, torch.Tensor]:
    """Convolutions of all forms, each followed by an activation."""
    branches = [_convolution(draw) for _ in range(_CONVOLUTIONS)]
    return Assortment(branches, [not draw.flag(_WITHOUT_GRADIENT) for _ in branches]), torch.empty(1, _CLASSES)


def assorted_products(draw: Draw) -> tuple[nn.Module, torch.Tensor]:
    """Linear layers, products of two activations, attention, recurrent layers."""
    branches = [
        draw.option((_linear, _linear, _linear, _scores, _attention, _recurrent))(draw) for _ in range(_PRODUCTS)
    ]
    return Assortment(branches, [True] * len(branches)), torch.empty(1, _CLASSES)


def assorted_layers(draw: Draw) -> tuple[nn.Module, torch.Tensor]:
    """Pooling, normalisation, resizing, padding and copies, and what else moves rather than multiplies."""
    makers = (
        *(_pooled, _pooled, _normalised, _normalised, _resized, _moved, _moved, _pointwise, _reduced),
        *(_series, _spread, _transformed),
    )
    branches = [draw.option(makers)(draw) for _ in range(_LAYERS)]
    return Assortment(branches, [True] * len(branches)), torch.empty(1, _CLASSES)


def _convolution(draw: Draw) -> Branch:
    form = draw.option(
        ("plain", "plain", "plain", "strided", "strided", "dilated", "grouped", "grouped", "depthwise", "depthwise",
         "transposed", "transposed", "1d", "1d", "3d", "3d")
    )  # fmt: skip
    extents = int(form[0]) if form.endswith("d") and form[0].isdigit() else 2
    while True:
        kernel = draw.integer((3, 3, 3, 1, 2, 4, 5, 7, 9) if extents < 3 else (3, 3, 1, 2))
        stride = draw.integer((2, 2, 4)) if form in ("strided", "transposed") else draw.integer((1, 1, 1, 2))
        stride = 1 if form in ("dilated", "plain") else stride
        dilation = draw.integer((2, 4, 8)) if form == "dilated" or (extents == 1 and draw.flag(0.3)) else 1
        groups = draw.integer((2, 3, 4, 8)) if form == "grouped" else 1
        x, y = groups * draw.log(1 if form == "plain" else 4, 96), groups * draw.log(4, 128)
        if form == "depthwise":
            x = y = groups = draw.log(8, 192)
        batch = draw.log(1, 32)
        side = draw.log(16, 1000) if extents == 1 else draw.log(3, 64 if extents == 2 else 20)
        pad = draw.option((dilation * (kernel // 2), dilation * (kernel // 2), 0))
        stride = 1 if dilation > 1 else stride
        flops = 2 * batch * side**extents * kernel**extents * x * y / groups / stride**extents
        if form == "transposed":
            flops *= stride ** (2 * extents)
        fits = side + 2 * pad > dilation * (kernel - 1) + stride and batch * max(x, y) * side**extents < _MOST_ELEMENTS
        if fits and 1e5 < flops < _MOST_FLOPS:
            break
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    kind = nn.ConvTranspose2d if form == "transposed" else kinds[extents]
    layers: list[nn.Module] = [
        kind(x, y, kernel, stride, pad, dilation=dilation, groups=groups, bias=draw.flag()),
        draw.option((nn.ReLU(), nn.ReLU(), nn.Tanh())),
    ]
    if extents == 2 and draw.flag(0.25):
        layers = [_Function(_channels_last), *layers]
    return (batch, x, *(side,) * extents), nn.Sequential(*layers)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _linear(draw: Draw) -> Branch:
    inner, outer = draw.log(8, 768), draw.log(4, 1024)
    rows: Shape = (draw.log(2, 512),) if draw.flag() else (draw.log(1, 32), draw.log(4, 128))
    if math.prod(rows) * inner * outer > _MOST_FLOPS:
        rows = (draw.log(2, 64),)
    return (*rows, inner), nn.Sequential(nn.Linear(inner, outer, bias=draw.flag(0.7)), nn.ReLU())


def _scores(draw: Draw) -> Branch:
    """Products of activations as in attention that is written out."""
    batch, heads, length, width = draw.log(1, 32), draw.integer((1, 2, 4, 6)), draw.log(8, 160), draw.log(8, 64)
    scaled = draw.flag()

    def scores(x: torch.Tensor) -> torch.Tensor:
        product = x @ x.transpose(-2, -1)
        return (product * width**-0.5).softmax(-1) @ x if scaled else (product @ x).relu()

    return (batch, heads, length, width), _Function(scores)


def _attention(draw: Draw) -> Branch:
    batch, heads, length, width = draw.log(1, 32), draw.integer((1, 2, 4, 6)), draw.log(8, 160), 8 * draw.log(1, 8)
    causal = draw.flag(0.3)
    return (batch, heads, length, width), _Function(
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=causal).tanh()
    )


class _Last(nn.Module):
    """What a recurrent layer gives out at its last step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last: torch.Tensor = self.layer(x)[0][:, -1]
        return last


def _recurrent(draw: Draw) -> Branch:
    channels, width = draw.log(4, 96), draw.log(8, 192)
    return (draw.log(1, 64), draw.log(4, 64), channels), _Last(nn.LSTM(channels, width, batch_first=True))


def _image(draw: Draw, low: int = 4) -> Shape:
    """[B, C, H, W] of at most so many elements as a layer reads."""
    while True:
        side = draw.log(low, 64)
        shape = (draw.log(1, 32), draw.log(3, 128), side, side)
        if (1 << 10) < math.prod(shape) < _MOST_ELEMENTS:
            return shape


def _laid_out(draw: Draw, shape: Shape, *layers: nn.Module) -> Branch:
    """Channels last in a quarter of cases, an activation before it."""
    order: list[nn.Module] = [_Function(_channels_last)] if draw.flag(0.25) else []
    return shape, nn.Sequential(*order, nn.ReLU(), *layers)


def _pooled(draw: Draw) -> Branch:
    kernel, stride = draw.integer((2, 2, 3, 3, 5)), draw.integer((1, 2, 2))
    kinds = (nn.MaxPool2d, nn.MaxPool2d, nn.MaxPool2d, nn.AvgPool2d, nn.AvgPool2d)
    if draw.flag(0.15):
        shape = (draw.log(1, 8), draw.log(3, 48), *(draw.log(6, 16),) * 3)
        return shape, nn.Sequential(nn.ReLU(), draw.option((nn.MaxPool3d(2), nn.AvgPool3d(2))))
    pool = draw.option(kinds)(kernel, stride, kernel // 2 if kernel > 2 else 0)
    return _laid_out(draw, _image(draw, 6), pool, nn.Tanh())


def _normalised(draw: Draw) -> Branch:
    shape = _image(draw)
    width = shape[1]
    groups = next(g for g in (draw.integer((2, 4, 8)), 2, 1) if width % g == 0)
    norms = (
        *(nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.GroupNorm(groups, width)),
        *(nn.InstanceNorm2d(width, affine=draw.flag()), nn.LayerNorm(shape[-1])),
    )
    return _laid_out(draw, shape, draw.option(norms), draw.option((nn.ReLU(), nn.SiLU(), nn.Hardtanh(0, 6))))


def _resized(draw: Draw) -> Branch:
    batch, width, side, _ = _image(draw)
    shape = (batch, width - width % 4 + 4, max(4, side // 2), max(4, side // 2))
    layers = (
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        *(nn.PixelShuffle(2), nn.ReflectionPad2d(draw.integer((1, 2, 3))), nn.ZeroPad2d(1)),
        nn.AdaptiveAvgPool2d(draw.integer((1, 2, 4))),
    )
    return _laid_out(draw, shape, draw.option(layers), nn.Tanh())


def _moved(draw: Draw) -> Branch:
    """Copies: into another order, side by side, repeated, of zeros."""
    shape = _image(draw)
    functions: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda x: x.transpose(1, 2).contiguous().relu(),
        lambda x: x.permute(0, 2, 3, 1).contiguous().relu(),
        lambda x: torch.cat((x, x.relu()), 1).tanh(),
        lambda x: torch.stack((x, x.relu())).tanh(),
        lambda x: x.repeat(2, 1, 1, 1).relu(),
        lambda x: x.roll(1, 2).relu(),
        lambda x: torch.where(x > 0, x, torch.zeros_like(x)).tanh(),
        lambda x: torch.zeros_like(x).add(x).relu(),
        lambda x: (x + x.transpose(-2, -1)).relu(),
        lambda x: x.masked_fill(x > 0, 0.0).tanh(),
        lambda x: x.chunk(2, 0)[0].clone().relu(),
    )
    return shape, _Function(draw.option(functions))


def _pointwise(draw: Draw) -> Branch:
    usual = (nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.Hardswish())
    others = (
        *(nn.LeakyReLU(0.1), nn.Hardtanh(0, 6)),
        _Function(lambda x: x * x + x),
        _Function(lambda x: (x - x.mean((2, 3), keepdim=True)).exp()),
        _Function(lambda x: x / (1 + x.abs())),
        _Function(lambda x: (x**2 + 1).sqrt()),
        nn.Dropout(0.2),
    )
    return _laid_out(draw, _image(draw), draw.option((*usual, *others)), nn.ReLU())


def _series(draw: Draw) -> Branch:
    """Functions of series of terms, two after one another; the gradient of a sine is a cosine's product, and so on."""
    functions: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        *(torch.sin, torch.cos, torch.exp, torch.log1p),
        *(torch.erf, F.softplus, F.mish),
    )
    first, second = draw.option(functions), draw.option(functions)
    return _image(draw), _Function(lambda x: second(first(x).sigmoid()).relu())


def _spread(draw: Draw) -> Branch:
    """Sums and products of tensors of which one is spread over a dimension of the other: rows, mostly short ones."""
    functions: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda x: x * x.mean(-1, keepdim=True),
        lambda x: x / (x.abs().amax(-1, keepdim=True) + 1.0),
        lambda x: x - x.mean(-2, keepdim=True),
        lambda x: x[..., :1] * x.mean(-2, keepdim=True),
        lambda x: x.unsqueeze(-1) - torch.linspace(0.0, 1.0, 4),
    )
    return (draw.log(1, 16), draw.log(32, 4096), draw.log(2, 64)), _Function(draw.option(functions))


def _transformed(draw: Draw) -> Branch:
    """There and back by Fourier transforms of rows or planes; between them each is multiplied, or of the lowest the
    channels of all images."""
    dims, lowest = draw.option(((-1,), (-2, -1))), draw.integer((0, 4, 8))

    def transformed(x: torch.Tensor) -> torch.Tensor:
        spectrum: torch.Tensor = torch.fft.rfftn(x, dim=dims)
        low = spectrum[..., :lowest, :lowest]
        mixed = torch.einsum("bixy,oixy->boxy", low, low) if lowest else spectrum * spectrum
        back: torch.Tensor = torch.fft.irfftn(mixed, s=[x.shape[d] for d in dims], dim=dims)
        return back

    return _image(draw), _Function(transformed)


def _reduced(draw: Draw) -> Branch:
    """Sums along one dimension or several, softmax, dots of rows."""
    functions: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda x: x.sum(1).relu(),
        lambda x: x.mean((2, 3)).relu(),
        lambda x: x.mean(-1).relu(),
        lambda x: x.flatten(0, 2).softmax(-1).relu(),
        lambda x: x.flatten(0, 2).log_softmax(-1).relu(),
        lambda x: x.amax(1).relu(),
        lambda x: x.var(1).relu(),
    )
    return _image(draw), nn.Sequential(nn.Tanh(), _Function(draw.option(functions)))
