"""T-RevSNN: reversible in time instead of in depth (Hu et al., 2024, arXiv 2405.16466).

T columns, one per time step and each with weights of its own, pass four states on. At step t, with c⁻ the state of
step t − 1 (nothing at the first step) and α learnt per channel,

    c0 = L0(x, c1⁻) + α0 c0⁻     c1 = L1(c0, c2⁻) + α1 c1⁻     c2 = L2(c1, c3⁻) + α2 c2⁻     c3 = L3(c2) + α3 c3⁻

and backwards c3⁻ = (c3 − L3(c2)) / α3, ..., c0⁻ = (c0 − L0(x, c1⁻)) / α0: training keeps the four states of the last
step, runs every level again with a graph, and takes its gradient. A level needs only c_{j+1} of the step before, so
columns follow each other at a distance of two levels: 2 (T − 1) + 4 levels on the longest path, not 4 T.

Time is in the four states alone: every neuron is memoryless, Quant(x) = ⌊clamp(x, 0, 1) + ½⌋ with the gradient 1 where
0 ≤ x ≤ 1. Layers and parameter counts are those of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput
from pararev_hw.models.reversible import recomputing
from pararev_hw.models.spec import Spec, no_options, whole

_LEVELS = 4
_SMALLEST = 1e-3  # |α|: below it the inverse would blow up
_SUPERVISED = 4  # classifiers on the way through T, each trained

_CHANNELS = {"trevsnn_tiny": (64, 128, 256, 384), "trevsnn_small": (96, 192, 384, 512)}

SPECS = (
    *(Spec(name, "trevsnn", 16, (), channels, 4, (3, 224, 224), "image", 1000) for name, channels in _CHANNELS.items()),
    Spec("trevsnn_tiny_dvs", "trevsnn", 16, (), (32, 64, 128, 256), 8, (2, 128, 128), "events", 10),
)


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    kernel_size: int = 5,
    keep: str = "last",
    **options: Any,
) -> TRevSNN:
    """The network. `keep` says what forward leaves for backward: "last" (the states after the last step: O(L) in T),
    "columns" (those after every step, as the published code does) or "all" (plain autograd).
    """
    no_options(spec.name, options)
    if keep not in ("last", "columns", "all"):
        raise BadInput(f"{spec.name}: keep is {keep!r}: it must be last, columns or all")
    if not spec.event and timesteps % _SUPERVISED:
        raise BadInput(f"{spec.name}: timesteps is {timesteps}: its {_SUPERVISED} classifiers need a multiple of them")
    if whole("kernel_size", kernel_size) % 2 == 0:
        raise BadInput(f"{spec.name}: kernel_size is {kernel_size}: it must be odd")
    channels = tuple(max(1, round(c * width)) for c in spec.channels)
    image = spec.input_shape[0] if in_channels is None else in_channels
    net = TRevSNN(image, channels, timesteps, num_classes, kernel_size, events=spec.event, keep=keep)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net


class Quant(nn.Module):
    """A memoryless spiking neuron: ⌊clamp(x, 0, 1) + ½⌋, gradient 1 where 0 ≤ x ≤ 1."""

    is_spiking_neuron = True

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = _Quant.apply(x)  # type: ignore[no-untyped-call]
        return spikes


class _Quant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward((x < 0) | (x > 1))
        return torch.floor(x.clamp(0, 1) + 0.5)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (outside,) = ctx.saved_tensors
        return g.masked_fill(outside, 0)


class StandardisedConv(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance 1 / fan-in per output channel, times a gain (NF-Net's)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        scale = torch.rsqrt(var + 1e-6) * (self.gain * self.weight[0].numel() ** -0.5)
        y: Tensor = self._conv_forward(x, (self.weight - mean) * scale, self.bias)
        return y


def _depthwise(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


class Block(nn.Module):
    """Quant → DW k×k → 1×1 C→4C → Quant → 1×1 4C→C → DW k×k, times γ where there is one, plus the input."""

    def __init__(self, channels: int, kernel: int, last: tuple[nn.Module, nn.Module] | None) -> None:
        super().__init__()
        self.sn1, self.sn2 = Quant(), Quant()
        self.dw1 = _depthwise(channels, kernel)
        self.pw1 = StandardisedConv(channels, 4 * channels, 1)
        # the second block of a level shares its last two convolutions with those of the other time steps
        is_first = last is None
        self.pw2 = StandardisedConv(4 * channels, channels, 1) if last is None else last[0]
        self.dw2 = _depthwise(channels, kernel) if last is None else last[1]
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1)) if is_first else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dw2(self.pw2(self.sn2(self.pw1(self.dw1(self.sn1(x))))))
        return x + (out if self.gamma is None else out * self.gamma)


def _sampled(in_channels: int, out_channels: int, kernel: int, stride: int, up: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    layers = [Quant(), conv, nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, *([nn.Upsample(scale_factor=2, mode="nearest")] if up else []))


class Level(nn.Module):
    """What one state takes in at one time step: from the level below, from the one above at the step before."""

    def __init__(self, j: int, channels: Sequence[int], kernel: int, first: bool, last: Any) -> None:
        super().__init__()
        c = channels[j]
        self.down = None if j == 0 else _sampled(channels[j - 1], c, 1 if j == 3 else 3, 1 if j == 3 else 2)
        self.up = None if first or j == 3 else _sampled(channels[j + 1], c, 1, 1, up=j < 2)
        self.blocks = nn.Sequential(Block(c, kernel, None), Block(c, kernel, last))

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        x = below if self.down is None else self.down(below)
        if self.up is not None:
            assert above is not None
            x = x + self.up(above)
        out: Tensor = self.blocks(x)
        return out


class Column(nn.Module):
    """The four levels of one time step and their α. It is never called: its levels are."""

    def __init__(self, channels: Sequence[int], kernel: int, first: bool, shared: Sequence[Any]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(j, channels, kernel, first, shared[j]) for j in range(_LEVELS))
        self.alphas = nn.ParameterList(torch.full((1, c, 1, 1), 0.5) for c in channels)

    def alpha(self, j: int) -> Tensor:
        """α_j, its magnitude at least 1e−3."""
        a: Tensor = self.alphas[j]
        return torch.where(a < 0, a.clamp(max=-_SMALLEST), a.clamp(min=_SMALLEST))


class TRevSNN(nn.Module):
    """`[B, C, H, W]`, or frames `[T, B, C, H, W]`, in; logits `[B, classes]` out, in training the supervised ones'
    mean, so that one cross-entropy trains all.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        timesteps: int,
        classes: int,
        kernel: int,
        *,
        events: bool,
        keep: str,
    ) -> None:
        super().__init__()
        self.timesteps, self.events, self.keep = timesteps, events, keep
        self.stems = nn.ModuleList(_stem(in_channels, channels[0], events) for _ in range(timesteps if events else 1))
        shared = [(StandardisedConv(4 * c, c, 1), _depthwise(c, kernel)) for c in channels]
        self.columns = nn.ModuleList(Column(channels, kernel, t == 0, shared) for t in range(timesteps))
        heads = 1 if events else _SUPERVISED
        self.heads = nn.ModuleList(Head(channels[-1], classes, spiking=k == heads - 1) for k in range(heads))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 + self.events or (self.events and len(x) != self.timesteps):
            expected_shape = f"[{self.timesteps}, B, C, H, W]" if self.events else "[B, C, H, W]"
            raise BadInput(f"the network's input has shape {tuple(x.shape)}: it must be {expected_shape}")
        stems = [stem(frame) for stem, frame in zip(self.stems, x if self.events else [x], strict=True)]
        tops = self.tops(stems)
        if self.events:
            return self.heads[0](sum(tops[1:], tops[0]) / self.timesteps)  # type: ignore[no-any-return]
        every = self.timesteps // _SUPERVISED
        logits = [head(tops[(k + 1) * every - 1]) for k, head in enumerate(self.heads)]
        return sum(logits[1:], logits[0]) / _SUPERVISED  # type: ignore[no-any-return]

    def tops(self, stems: Sequence[Tensor]) -> list[Tensor]:
        """c3 after every time step; `stems` is what enters level 0, one for all steps or one per step."""
        params = tuple(self.columns.parameters())  # weights that columns share come once
        if self.keep == "all" or not torch.is_grad_enabled():
            return _through(self, stems)[0]
        return list(_Columns.apply(self, len(stems), *stems, *params))  # type: ignore[no-untyped-call]


def _stem(in_channels: int, channels: int, events: bool) -> nn.Module:
    if events:
        return nn.Sequential(StandardisedConv(in_channels, channels, 3, padding=1))
    return nn.Sequential(
        StandardisedConv(in_channels, channels, 7, stride=2, padding=3),
        StandardisedConv(channels, channels, 3, stride=2, padding=1),
    )


class Head(nn.Module):
    """Mean over the image, then 1×1 to classes; the last one reads spikes and has two layers."""

    def __init__(self, channels: int, classes: int, *, spiking: bool) -> None:
        super().__init__()
        self.sn = Quant() if spiking else None
        self.conv = StandardisedConv(channels, classes, 1)
        self.conv2 = StandardisedConv(classes, classes, 1) if spiking else None

    def forward(self, c: Tensor) -> Tensor:
        c = (c if self.sn is None else self.sn(c)).mean((2, 3), keepdim=True)
        out: Tensor = self.conv(c)
        return (out if self.conv2 is None else self.conv2(out)).flatten(1)


def _through(net: TRevSNN, stems: Sequence[Tensor]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """c3 of every step, and all states after every step."""
    before: list[Tensor | None] = [None] * _LEVELS
    tops, states = [], []
    for t, column in enumerate(cast("Sequence[Column]", net.columns)):
        below = stems[min(t, len(stems) - 1)]
        after: list[Tensor] = []
        for j, level in enumerate(column.levels):
            above = before[j + 1] if j + 1 < _LEVELS else None
            c, past = level(below, above), before[j]
            c = c if past is None else c + column.alpha(j) * past
            after.append(c)
            below = c
        tops.append(after[-1])
        states.append(after)
        before = list(after)
    return tops, states


class _Columns(torch.autograd.Function):
    """`_through` that keeps the stems and the last states (or every step's), and walks the columns back."""

    @staticmethod
    def forward(ctx: Any, net: TRevSNN, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.net, ctx.count = net, count
        tops, all_states = _through(net, [s.detach() for s in tensors[:count]])
        states = [c for after in (all_states if net.keep == "columns" else all_states[-1:]) for c in after]
        ctx.save_for_backward(*tensors[:count], *states)
        return tuple(tops)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dtops: Tensor) -> tuple[Tensor | None, ...]:
        net: TRevSNN = ctx.net
        stems, states = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        dstems: list[Tensor | None] = [None] * len(stems)
        grads: dict[int, Tensor] = {}
        after = list(states[-_LEVELS:])
        g: list[Tensor | None] = [None] * _LEVELS  # of the states after the step that is walked back
        with recomputing(net):
            for t in reversed(range(len(net.columns))):
                column = cast("Column", net.columns[t])
                g[3] = _plus(g[3], dtops[t])
                restored = states[(t - 1) * _LEVELS : t * _LEVELS] if net.keep == "columns" and t > 0 else None
                before: list[Tensor] = [after[0]] * _LEVELS
                past: list[Tensor | None] = [None] * _LEVELS
                for j in reversed(range(_LEVELS)):
                    stem = min(t, len(stems) - 1)
                    below = after[j - 1] if j else stems[stem]
                    above = before[j + 1] if t > 0 and j + 1 < _LEVELS else None
                    cotangent = g[j]
                    assert cotangent is not None
                    out, dbelow, dabove = _level_back(column.levels[j], below, above, cotangent, grads)
                    if t > 0:
                        with torch.enable_grad():
                            alpha = column.alpha(j)
                        a = alpha.detach()
                        before[j] = (after[j] - out) / a if restored is None else restored[j]
                        dalpha = (cotangent * before[j]).sum((0, 2, 3), keepdim=True)
                        (da,) = torch.autograd.grad(alpha, column.alphas[j], dalpha)
                        grads[id(column.alphas[j])] = da
                        past[j] = _plus(past[j], cotangent * a)
                        if dabove is not None:
                            past[j + 1] = _plus(past[j + 1], dabove)
                    if j:
                        g[j - 1] = _plus(g[j - 1], dbelow)
                    else:
                        dstems[stem] = _plus(dstems[stem], dbelow)
                g, after = past, before
        gradients = (grads.get(id(p)) for p in net.columns.parameters())
        return None, None, *dstems, *gradients


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def _level_back(
    level: nn.Module, below: Tensor, above: Tensor | None, cotangent: Tensor, grads: dict[int, Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The level's output once more, and the gradients of what it read; those of its weights are added to `grads`."""
    leaves = [x.detach().requires_grad_() for x in (below, above) if x is not None]
    weights = list(dict.fromkeys(p for p in level.parameters() if p.requires_grad))
    with torch.enable_grad():
        views = [x.view_as(x) for x in leaves]
        out: Tensor = level(views[0], views[1] if len(views) == 2 else None)
    gradients = torch.autograd.grad(out, [*leaves, *weights], cotangent)
    for w, dw in zip(weights, gradients[len(leaves) :], strict=True):
        grads[id(w)] = grads[id(w)] + dw if id(w) in grads else dw
    return out.detach(), gradients[0], gradients[1] if above is not None else None
