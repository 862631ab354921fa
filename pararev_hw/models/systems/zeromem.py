"""Zero-memory-footprint training (Lei et al., 2023, arXiv 2308.08649): a spiking neuron that can be run backwards.

Input and state are halves by channel, X = [X1, X2], V = [V1, V2], and one time step is

    M1 = V1 + (X1 − V1)/τ    Y1 = H(M1 − θ) + β X2    V̂1 = (1 − Y1) M1 + α V2
    M2 = V̂1 + (Y1 − V̂1)/τ    Y2 = H(M2 − θ) + β X1    V̂2 = (1 − Y2) M2 + α V1

From (Y, V̂) of a step its X and V follow, so a neuron keeps its outputs, which the next layer keeps anyway, and its last
state: nothing else, whatever T. Backward, "direct", takes the gradient in closed form from what the inverse has made;
"classic" is the usual reversible one, inverse, then forward again with a graph; "stored" is plain autograd.

Convolutions between neurons are not invertible: their inputs are kept. The equations are a reconstruction that agrees
with all that is known of the paper, whose text was not to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw.errors import BadInput
from pararev_hw.models.neurons import fire
from pararev_hw.models.spec import Spec, no_options
from pararev_hw.models.surrogates import ATan, Surrogate

Backward = Literal["direct", "classic", "stored"]
_ASSUMED = (
    "equations reconstructed, not read in the paper; τ = 2, α = β = 0.5 and T = 4 are assumed",
    "neurons alone are reversible: the inputs of convolutions are stored",
)

SPECS = (
    Spec("zeromem_vgg11", "zeromem", 9, (), (64, 128, 256, 512), 4, (3, 32, 32), "image", 10, assumptions=_ASSUMED),
    Spec(
        "zeromem_resnet18", "zeromem", 18, (2, 2, 2, 2), (64, 128, 256, 512), 4, (3, 32, 32), "image", 10,
        assumptions=_ASSUMED,
    ),
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    backward: Backward = "direct",
    **options: Any,
) -> nn.Module:
    """The network; `backward` is "direct", "classic" or "stored"."""
    no_options(spec.name, options)
    if backward not in ("direct", "classic", "stored"):
        raise BadInput(f"{spec.name}: backward is {backward!r}: it must be direct, classic or stored")
    channels = [2 * max(1, round(c * width / 2)) for c in spec.channels]  # even: they are halved
    image = spec.input_shape[0] if in_channels is None else in_channels
    body = _resnet(channels, spec.blocks, backward) if spec.blocks else _vgg(channels, backward)
    return ZeroMemNet(image, channels[0], channels[-1], body, num_classes, timesteps, backward)


class Constants(NamedTuple):
    """τ, θ, α, β, and the surrogate."""

    tau: float
    threshold: float
    alpha: float
    beta: float
    surrogate: Surrogate


class _Step(NamedTuple):
    """What one time step knows, all `[B, C/2, ...]`."""

    x1: Tensor
    x2: Tensor
    v1: Tensor
    v2: Tensor
    m1: Tensor
    m2: Tensor


def stepped(x1: Tensor, x2: Tensor, v1: Tensor, v2: Tensor, c: Constants) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Y1, Y2, V̂1, V̂2 of one time step, differentiable through the surrogate."""
    m1 = v1 + (x1 - v1) / c.tau
    y1 = fire(m1, c.threshold, c.surrogate)[0] + c.beta * x2
    w1 = (1 - y1) * m1 + c.alpha * v2
    m2 = w1 + (y1 - w1) / c.tau
    y2 = fire(m2, c.threshold, c.surrogate)[0] + c.beta * x1
    return y1, y2, w1, (1 - y2) * m2 + c.alpha * v1


def inverted(y1: Tensor, y2: Tensor, w1: Tensor, w2: Tensor, c: Constants) -> _Step:
    """The step that gave (Y1, Y2, V̂1, V̂2)."""
    m2 = w1 + (y1 - w1) / c.tau
    x1 = (y2 - (m2 >= c.threshold).to(m2.dtype)) / c.beta
    v1 = (w2 - (1 - y2) * m2) / c.alpha
    m1 = v1 + (x1 - v1) / c.tau
    x2 = (y1 - (m1 >= c.threshold).to(m1.dtype)) / c.beta
    v2 = (w1 - (1 - y1) * m1) / c.alpha
    return _Step(x1, x2, v1, v2, m1, m2)


def pulled_back(
    s: _Step, y: tuple[Tensor, Tensor], g: tuple[Tensor, Tensor, Tensor, Tensor], c: Constants
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of X1, X2, V1, V2 from those of Y1, Y2, V̂1, V̂2, in closed form."""
    (y1, y2), (gy1, gy2, gw1, gw2) = y, g
    q2 = gy2 - gw2 * s.m2
    gm2 = c.surrogate.vjp(s.m2 - c.threshold, q2) + gw2 * (1 - y2)
    gy1 = gy1 + gm2 / c.tau
    gw1 = gw1 + gm2 * (1 - 1 / c.tau)
    q1 = gy1 - gw1 * s.m1
    gm1 = c.surrogate.vjp(s.m1 - c.threshold, q1) + gw1 * (1 - y1)
    return c.beta * q2 + gm1 / c.tau, c.beta * q1, c.alpha * gw2 + gm1 * (1 - 1 / c.tau), c.alpha * gw1


def _unrolled(x: Tensor, c: Constants) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Y `[T, B, C, ...]` and the last state."""
    a, b = x.chunk(2, 2)
    v1, v2 = torch.zeros_like(a[0]), torch.zeros_like(b[0])
    out = []
    for x1, x2 in zip(a.unbind(0), b.unbind(0), strict=True):
        y1, y2, v1, v2 = stepped(x1, x2, v1, v2, c)
        out.append(torch.cat((y1, y2), 1))
    return torch.stack(out), (v1, v2)


class _Reversible(torch.autograd.Function):
    """`_unrolled` that keeps Y and the last state, and walks time back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Constants, classic: bool) -> Tensor:
        y, (v1, v2) = _unrolled(x.detach(), c)
        ctx.save_for_backward(y, v1, v2)
        ctx.c, ctx.classic = c, classic
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        y, w1, w2 = ctx.saved_tensors
        gw1, gw2 = torch.zeros_like(w1), torch.zeros_like(w2)
        input_gradients = []
        for y_t, g_t in zip(reversed(y.unbind(0)), reversed(g.unbind(0)), strict=True):
            y1, y2 = y_t.chunk(2, 1)
            gy1, gy2 = g_t.chunk(2, 1)
            s = inverted(y1, y2, w1, w2, ctx.c)
            if ctx.classic:
                leaves = [part.detach().requires_grad_() for part in s[:4]]
                with torch.enable_grad():
                    again = stepped(leaves[0], leaves[1], leaves[2], leaves[3], ctx.c)
                gx1, gx2, gw1, gw2 = torch.autograd.grad(again, leaves, (gy1, gy2, gw1, gw2))
            else:
                gx1, gx2, gw1, gw2 = pulled_back(s, (y1, y2), (gy1, gy2, gw1, gw2), ctx.c)
            input_gradients.append(torch.cat((gx1, gx2), 1))
            w1, w2 = s.v1, s.v2
        return torch.stack(input_gradients[::-1]), None, None


class ReversibleNeuron(nn.Module):
    """x `[T, B, C, ...]`, C even, to y of the same shape (not binary: spikes plus β times the other half's input)."""

    is_spiking_neuron = True

    def __init__(
        self,
        backward: Backward = "direct",
        *,
        tau: float = 2.0,
        threshold: float = 1.0,
        alpha: float = 0.5,
        beta: float = 0.5,
        surrogate: Surrogate = ATan(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        if not (tau > 1 and alpha > 0 and beta > 0):
            raise BadInput(f"a reversible neuron needs τ > 1, α > 0 and β > 0, not {tau}, {alpha}, {beta}")
        self.constants, self.backward = Constants(tau, threshold, alpha, beta, surrogate), backward

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 3 or x.shape[2] % 2:
            raise BadInput(f"a reversible neuron's input has shape {tuple(x.shape)}: it must be [T, B, C, ...], C even")
        if self.backward == "stored" or not torch.is_grad_enabled():
            return _unrolled(x, self.constants)[0]
        y: Tensor = _Reversible.apply(x, self.constants, self.backward == "classic")  # type: ignore[no-untyped-call]
        return y


class ConvNorm(nn.Module):
    """Convolution and BN over `[T, B, C, H, W]`, with a pool first where given."""

    def __init__(self, a: int, b: int, kernel: int = 3, stride: int = 1, pool: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(b)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        folded = x.flatten(0, 1)
        out: Tensor = self.norm(self.conv(nnf.avg_pool2d(folded, 2) if self.pool else folded))
        return out.view(*x.shape[:2], *out.shape[1:])


class BasicBlock(nn.Module):
    """conv → BN → neuron → conv → BN, plus the input, → neuron."""

    def __init__(self, a: int, b: int, stride: int, neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.sn1, self.second = ConvNorm(a, b, 3, stride), neuron(), ConvNorm(b, b)
        self.shortcut = ConvNorm(a, b, 1, stride) if stride != 1 or a != b else None
        self.sn2 = neuron()

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.sn1(self.first(x))) + (x if self.shortcut is None else self.shortcut(x))
        y: Tensor = self.sn2(out)
        return y


def _vgg(channels: Sequence[int], backward: Backward) -> nn.Module:
    a, b, c, d = channels
    plan = ((a, b, False), (b, c, True), (c, c, False), (c, d, True), (d, d, False), (d, d, True), (d, d, False))
    return nn.Sequential(*(nn.Sequential(ConvNorm(m, n, pool=pool), ReversibleNeuron(backward)) for m, n, pool in plan))


def _resnet(channels: Sequence[int], blocks: Sequence[int], backward: Backward) -> nn.Module:
    layers: list[nn.Module] = []
    before = channels[0]
    for i, (c, n) in enumerate(zip(channels, blocks, strict=True)):
        for k in range(n):
            layers.append(BasicBlock(before, c, 2 if i and not k else 1, lambda: ReversibleNeuron(backward)))
            before = c
    return nn.Sequential(*layers)


class ZeroMemNet(nn.Module):
    """`[B, C, H, W]`, shown at all T steps, in; logits `[B, classes]`, the mean over T, out."""

    def __init__(
        self,
        image: int,
        first: int,
        last: int,
        body: nn.Module,
        classes: int,
        timesteps: int,
        backward: Backward,
    ) -> None:
        super().__init__()
        self.timesteps, self.image = timesteps, image
        self.stem, self.sn, self.body = ConvNorm(image, first), ReversibleNeuron(backward), body
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.image or 0 in x.shape:
            raise BadInput(f"the network's input has shape {tuple(x.shape)}: it must be [B, {self.image}, H, W]")
        once = self.stem(x.unsqueeze(0))
        out = self.body(self.sn(once.expand(self.timesteps, *once.shape[1:])))
        logits: Tensor = self.fc(out.mean((3, 4)))
        return logits.mean(0)
