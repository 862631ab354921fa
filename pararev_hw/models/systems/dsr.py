"""DSR, differentiation on spike representation (Meng et al., 2022, arXiv 2205.00459).

Forward simulates T steps; backward knows only rates. A spiking layer, with threshold θ trained, is

    IF    v ← v + x[t]; s[t] = θ·1[v ≥ α θ]; v ← v − s[t]; output s[t]
    LIF   v ← k v + (1 − k) x[t], k = exp(−Δt/τ); the same firing; output s[t] / Δt

A spike train stands for its (for LIF weighted, w_t = exp(−Δt (T − t)/τ)) mean r, and the layer for

    r_out = clamp(r_in, 0, θ)  (IF)        r_out = clamp(r_in / τ, 0, θ / Δt)  (LIF)

so that the gradient has no time: with ḡ = Σ g[t] (IF) or ḡ = T Σ w_t g[t] / Σ w_t (LIF),

    dx[t] = ḡ 1[0 ≤ r_in ≤ θ] / T  (IF)    dx[t] = ḡ 1[0 < r_in < θ τ / Δt] / (T τ)  (LIF)    the same at every t

and dθ is ḡ where the clamp is from above (times Δt for LIF). Since all T cotangents are equal, the convolutions between
need one backward pass, not T: `backward="ideal"` takes it, with Σ_t x[t] for the weight's gradient, `"reference"` runs
it on T·B as the published code does. Both agree where no norm in training mode stands between; there the ideal one
takes the norm's Jacobian at the mean activation, an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw.errors import BadInput
from pararev_hw.models.spec import Spec, no_options

_FLOOR = 0.01  # θ_min

SPECS = (
    Spec(
        "dsr_preactresnet18", "dsr", 18, (2, 2, 2, 2), (64, 128, 256, 512), 20, (3, 32, 32), "image", 10, method="DSR"
    ),
    Spec(
        "dsr_vgg11_dvs", "dsr", 9, (), (64, 128, 256, 512), 20, (2, 48, 48), "events", 10, method="DSR",
        assumptions=("event frames of 48×48 and T = 20: neither is in the sources that were read",),
    ),
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    neuron: str = "lif",
    backward: str = "reference",
    **options: Any,
) -> nn.Module:
    """The network; `neuron` is "lif" or "if", `backward` "reference" (T passes) or "ideal" (one)."""
    no_options(spec.name, options)
    if neuron not in ("lif", "if"):
        raise BadInput(f"{spec.name}: neuron is {neuron!r}: it must be lif or if")
    if backward not in ("reference", "ideal"):
        raise BadInput(f"{spec.name}: backward is {backward!r}: it must be reference or ideal")
    image = spec.input_shape[0] if in_channels is None else in_channels
    channels = [max(1, round(c * width)) for c in spec.channels]
    layers = _Layers(neuron, backward == "ideal", timesteps)
    if spec.event:
        return DSRVGG(image, channels, num_classes, layers)
    return DSRPreActResNet(image, channels, spec.blocks, num_classes, timesteps, layers)


class _Rate(torch.autograd.Function):
    """A spiking layer over `[T, B, ...]` with the gradient of its rate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, alpha: float, tau: float | None, dt: float) -> Tensor:
        steps = len(x)
        keep = 1.0 if tau is None else math.exp(-dt / tau)
        gain, fire_at = 1.0 if tau is None else 1.0 - keep, alpha * theta
        spikes = []
        v = torch.zeros_like(x[0])
        for x_t in x.unbind(0):
            v = v * keep + x_t * gain
            s = (v >= fire_at).to(x.dtype) * theta
            v = v - s
            spikes.append(s)
        weights = _weights(steps, tau, dt, x)
        rate = torch.tensordot(weights / weights.sum(), x, dims=1)
        ctx.save_for_backward(rate, theta, weights)
        ctx.tau, ctx.dt = tau, dt
        out = torch.stack(spikes)
        return out if tau is None else out / dt

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        rate, theta, weights = ctx.saved_tensors
        steps = len(g)
        if ctx.tau is None:
            total, slope, scale = g.sum(0), 1.0 / steps, 1.0
            inside, above = (rate >= 0) & (rate <= theta), rate > theta
        else:
            total, slope, scale = (
                torch.tensordot(weights * (steps / weights.sum()), g, dims=1),
                1 / (steps * ctx.tau),
                ctx.dt,
            )
            top = theta * ctx.tau / ctx.dt
            inside, above = (rate > 0) & (rate < top), rate > top
        dx = (total * inside * slope).expand(steps, *total.shape)
        return dx, (total * above).sum().reshape(theta.shape) * scale, None, None, None


def _weights(steps: int, tau: float | None, dt: float, like: Tensor) -> Tensor:
    """w_t of t = 1..T."""
    if tau is None:
        return torch.ones(steps, dtype=like.dtype, device=like.device)
    late = torch.arange(steps - 1, -1, -1, dtype=like.dtype, device=like.device)
    return torch.exp(late * (-dt / tau))


class RateNeuron(nn.Module):
    """IF (θ = 6, α = 0.5) or LIF (θ = 0.3, τ = 1, Δt = 0.05, α = 0.3), θ trained and never below 0.01."""

    is_spiking_neuron = True

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.tau = None if kind == "if" else 1.0
        self.dt, self.alpha = (1.0, 0.5) if kind == "if" else (0.05, 0.3)
        self.theta = nn.Parameter(torch.tensor(6.0 if kind == "if" else 0.3))

    def forward(self, x: Tensor) -> Tensor:
        theta = nnf.relu(self.theta - _FLOOR) + _FLOOR
        s: Tensor = _Rate.apply(x, theta, self.alpha, self.tau, self.dt)  # type: ignore[no-untyped-call]
        return s


class _OnePass(torch.autograd.Function):
    """conv (and batch norm) over T·B forward; backward once, for cotangents that are equal at all t."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x.sum(0), weight)
        ctx.steps, ctx.stride, ctx.padding, ctx.bias = len(x), stride, padding, bias is not None
        out = nnf.conv2d(x.flatten(0, 1), weight, bias, stride, padding)
        return out.view(*x.shape[:2], *out.shape[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        dx, dw, db = torch.ops.aten.convolution_backward(
            g[0], total, weight, [weight.shape[0]], [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1,
            [ctx.needs_input_grad[0], True, ctx.bias],
        )  # fmt: skip
        dx = None if dx is None else dx.expand(ctx.steps, *dx.shape)
        return dx, dw, None if db is None else db * ctx.steps, None, None


class _OnePassNorm(torch.autograd.Function):
    """Batch norm over T·B in training mode; its Jacobian is taken at the mean over T of the normalised activation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        folded = x.flatten(0, 1)
        out, mean, rstd = torch.ops.aten.native_batch_norm(
            folded, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        ctx.save_for_backward((x.mean(0) - _channels(mean)) * _channels(rstd), weight, rstd)
        ctx.steps = len(x)
        return out.view(x.shape)  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        at, weight, rstd = ctx.saved_tensors
        once = g[0]
        along = (0, 2, 3)
        centred = once - once.mean(along, keepdim=True) - at * (once * at).mean(along, keepdim=True)
        dx = centred * _channels(weight * rstd)
        return dx.expand(ctx.steps, *dx.shape), (once * at).sum(along) * ctx.steps, once.sum(along) * ctx.steps, None


def _channels(x: Tensor) -> Tensor:
    return x.view(1, -1, 1, 1)


class _Layers:
    """Makes the layers of a network: which neuron, and how often backward runs."""

    def __init__(self, neuron: str, ideal: bool, timesteps: int) -> None:
        self._kind, self._ideal, self.timesteps = neuron, ideal, timesteps

    def neuron(self) -> RateNeuron:
        return RateNeuron(self._kind)

    def conv(self, a: int, b: int, kernel: int = 3, stride: int = 1, *, bias: bool = True) -> nn.Module:
        return StepConv(nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=bias), self._ideal)

    def norm(self, channels: int) -> nn.Module:
        return StepNorm(nn.BatchNorm2d(channels), self._ideal)


class StepConv(nn.Module):
    """A convolution over `[T, B, C, H, W]`."""

    def __init__(self, conv: nn.Conv2d, ideal: bool) -> None:
        super().__init__()
        self.conv, self.ideal = conv, ideal

    def forward(self, x: Tensor) -> Tensor:
        if self.ideal and self.training:
            stride, padding = self.conv.stride[0], int(self.conv.padding[0])
            y: Tensor = _OnePass.apply(x, self.conv.weight, self.conv.bias, stride, padding)  # type: ignore[no-untyped-call]
            return y
        return _folded(self.conv, x)


class StepNorm(nn.Module):
    """Batch norm over `[T, B, C, H, W]`."""

    def __init__(self, norm: nn.BatchNorm2d, ideal: bool) -> None:
        super().__init__()
        self.norm, self.ideal = norm, ideal

    def forward(self, x: Tensor) -> Tensor:
        if self.ideal and self.training:
            y: Tensor = _OnePassNorm.apply(x, self.norm.weight, self.norm.bias, self.norm)  # type: ignore[no-untyped-call]
            return y
        return _folded(self.norm, x)


def _folded(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    out = layer(x.flatten(0, 1))
    return out.view(*x.shape[:2], *out.shape[1:])


def _pooled(x: Tensor, kernel: int) -> Tensor:
    return _folded(lambda folded: nnf.avg_pool2d(folded, kernel), x)


class PreActBlock(nn.Module):
    """BN → SN → conv3×3 → BN → SN → conv3×3, plus the input (after BN → SN and a 1×1 where the shape changes)."""

    def __init__(self, a: int, b: int, stride: int, layers: _Layers) -> None:
        super().__init__()
        self.norm1, self.sn1, self.conv1 = layers.norm(a), layers.neuron(), layers.conv(a, b, 3, stride)
        self.norm2, self.sn2, self.conv2 = layers.norm(b), layers.neuron(), layers.conv(b, b)
        self.shortcut = layers.conv(a, b, 1, stride) if stride != 1 or a != b else None

    def forward(self, x: Tensor) -> Tensor:
        s = self.sn1(self.norm1(x))
        out: Tensor = self.conv2(self.sn2(self.norm2(self.conv1(s))))
        return out + (x if self.shortcut is None else self.shortcut(s))


class DSRPreActResNet(nn.Module):
    """`[B, C, H, W]`, shown at all T steps, in; logits `[B, classes]`, the mean over T, out."""

    def __init__(
        self,
        in_channels: int,
        channels: list[int],
        blocks: tuple[int, ...],
        classes: int,
        timesteps: int,
        layers: _Layers,
    ) -> None:
        super().__init__()
        self.timesteps, self.in_channels = timesteps, in_channels
        self.stem = layers.conv(in_channels, channels[0], bias=False)
        modules: list[nn.Module] = []
        before = channels[0]
        for i, (c, n) in enumerate(zip(channels, blocks, strict=True)):
            for k in range(n):
                modules.append(PreActBlock(before, c, 2 if i and not k else 1, layers))
                before = c
        self.blocks = nn.ModuleList(modules)
        self.norm, self.sn, self.sn_pooled = layers.norm(before), layers.neuron(), layers.neuron()
        self.fc = nn.Linear(before, classes)
        self.norm_out, self.sn_out = nn.BatchNorm1d(classes), layers.neuron()

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise BadInput(f"the network's input has shape {tuple(x.shape)}: it must be [B, {self.in_channels}, H, W]")
        x = self.stem(x.expand(self.timesteps, *x.shape))
        for block in self.blocks:
            x = block(x)
        x = self.sn(self.norm(x))
        x = self.sn_pooled(x.mean((3, 4)))
        logits = _folded(lambda folded: self.norm_out(self.fc(folded)), x)
        out: Tensor = self.sn_out(logits).mean(0)
        return out


class DSRVGG(nn.Module):
    """Event frames `[T, B, C, H, W]` in; logits `[B, classes]`, the mean over T, out."""

    def __init__(self, in_channels: int, channels: list[int], classes: int, layers: _Layers) -> None:
        super().__init__()
        self.in_channels = in_channels
        plan = [
            channels[0],
            channels[1],
            0,
            channels[2],
            channels[2],
            0,
            channels[3],
            channels[3],
            0,
            *channels[3:] * 2,
        ]
        modules: list[nn.Module] = []
        self.pools: list[bool] = []
        before = in_channels
        for c in plan:
            if c == 0:
                self.pools[-1] = True
                continue
            modules.append(nn.Sequential(layers.conv(before, c), layers.norm(c), layers.neuron()))
            self.pools.append(False)
            before = c
        self.features = nn.ModuleList(modules)
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5 or x.shape[2] != self.in_channels or 0 in x.shape:
            raise BadInput(
                f"the network's input has shape {tuple(x.shape)}: it must be [T, B, {self.in_channels}, H, W]"
            )
        for layer, pooled in zip(self.features, self.pools, strict=True):
            x = layer(x)
            x = _pooled(x, 2) if pooled else x
        logits: Tensor = _folded(self.fc, x.mean((3, 4)))
        return logits.mean(0)
