"""Binary networks trained under a full-precision teacher, block by block (Ye et al., 2020, arXiv 2007.05223).

A binary convolution multiplies signs: weights sign(w) · mean|w| per output channel, activations sign(a), both with the
straight-through gradient 1[|·| ≤ 1]. On hardware it is XNOR and popcount, y = 2 popcount(xnor(a, w)) − K over K valid
taps, 64 of which fit a word. Stem, 1×1 shortcuts and classifier stay in full precision.

Each block b of the student is drawn towards the teacher's by its own loss: L = CE + Σ_b w_b ‖F_b − F_b^teacher‖². With
`local` the student's block reads the teacher's features and its gradient ends there: all blocks train at the same time.
A squeeze-and-interaction branch per block adds a channel gate to the shortcut, a tenth of the parameters at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw.errors import BadInput
from pararev_hw.models.spec import Spec, no_options

SPECS = (
    Spec(
        "bnn_resnet18", "bnn", 18, (2, 2, 2, 2), (64, 128, 256, 512), 1, (3, 224, 224), "image", 1000,
        method="distilled",
        assumptions=(
            "block losses: mean square, weight 1; norm and weights are not in the sources",
            "squeeze-and-interaction branch: pooled features through C/16 to a gate of the shortcut; the sources give "
            "no details",
            "student blocks read their own student's features (end-to-end); local=True trains them apart",
        ),
    ),
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    local: bool = False,
    teacher: bool = True,
    **options: Any,
) -> BinaryResNet:
    """The student with its teacher. `local` trains each block on the teacher's features; without `teacher` the student
    trains on the labels alone. `timesteps` means nothing here.
    """
    no_options(spec.name, options)
    channels = tuple(max(2, round(c * width)) for c in spec.channels)
    image = spec.input_shape[0] if in_channels is None else in_channels
    return BinaryResNet(image, channels, spec.blocks, num_classes, local=local, teacher=teacher)


class _Sign(torch.autograd.Function):
    """sign(x), 1 at 0; gradient 1[|x| ≤ 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.abs() > 1)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (outside,) = ctx.saved_tensors
        return g.masked_fill(outside, 0)


def sign(x: Tensor) -> Tensor:
    """sign(x) with the straight-through gradient."""
    signs: Tensor = _Sign.apply(x)  # type: ignore[no-untyped-call]
    return signs


@torch.library.custom_op("pararev_hw::xnor_conv2d", mutates_args=())
def xnor_conv2d(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution of signs, 2 popcount(xnor(x, w)) − K; an operation of its own, so that hardware may price it so."""
    return nnf.conv2d(x, weight, None, stride, padding)


@xnor_conv2d.register_fake
def _(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    return nnf.conv2d(x, weight, None, stride, padding)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _back(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    dx, dw, _ = torch.ops.aten.convolution_backward(
        g, x, weight, None, [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1,
        [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
    )  # fmt: skip
    return dx, dw, None, None


xnor_conv2d.register_autograd(_back, setup_context=_keep)


class BinaryConv(nn.Conv2d):
    """conv3×3 of signs; outside the image there is nothing (taps that fall there do not count)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean((1, 2, 3))
        y: Tensor = xnor_conv2d(sign(x), sign(self.weight), self.stride[0], int(self.padding[0]))
        return y * scale.view(1, -1, 1, 1)


class Block(nn.Module):
    """Two convolutions, each with its norm and a shortcut of its own (Bi-Real), ReLU in between where not binary."""

    def __init__(self, a: int, b: int, stride: int, *, binary: bool) -> None:
        super().__init__()
        self.binary = binary
        make = BinaryConv if binary else _full
        self.conv1, self.conv2 = make(a, b, stride), make(b, b, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(b), nn.BatchNorm2d(b)
        changes = stride != 1 or a != b
        self.shortcut = (
            nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b)) if changes else None
        )
        hidden = max(1, b // 16)
        self.gate = (
            nn.Sequential(nn.Linear(b, hidden), nn.ReLU(), nn.Linear(hidden, b), nn.Sigmoid()) if binary else None
        )

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.shortcut is None else self.shortcut(x)
        if self.gate is not None:
            short = short * self.gate(short.mean((2, 3)))[:, :, None, None]
        middle = self.norm1(self.conv1(x)) + short
        if not self.binary:
            middle = nnf.relu(middle)
        out: Tensor = self.norm2(self.conv2(middle)) + middle
        return out if self.binary else nnf.relu(out)


def _full(a: int, b: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, stride, 1, bias=False)


class Branch(nn.Module):
    """Stem, blocks, classifier: the student or the teacher."""

    def __init__(
        self, image: int, channels: Sequence[int], blocks: Sequence[int], classes: int, *, binary: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(image, channels[0], 7, 2, 3, bias=False), nn.BatchNorm2d(channels[0]), nn.MaxPool2d(3, 2, 1)
        )
        layers: list[nn.Module] = []
        before = channels[0]
        for i, (c, n) in enumerate(zip(channels, blocks, strict=True)):
            for k in range(n):
                layers.append(Block(before, c, 2 if i and not k else 1, binary=binary))
                before = c
        self.blocks = nn.ModuleList(layers)
        self.fc = nn.Linear(before, classes)

    def features(self, x: Tensor, features: Sequence[Tensor] | None = None) -> list[Tensor]:
        """What each block gives; with `given`, block b reads given[b] instead of what came before it."""
        x = self.stem(x)
        out = []
        for b, block in enumerate(self.blocks):
            x = block(x if features is None or b == 0 else features[b - 1])
            out.append(x)
        return out


class BinaryResNet(nn.Module):
    """`[B, C, H, W]` in; the student's logits `[B, classes]` out. Trained by `training_step`."""

    def __init__(
        self,
        image: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        classes: int,
        *,
        local: bool,
        teacher: bool,
    ) -> None:
        super().__init__()
        self.student = Branch(image, channels, blocks, classes, binary=True)
        self.teacher = Branch(image, channels, blocks, classes, binary=False) if teacher else None
        self.local = local
        if local and not teacher:
            raise BadInput("blocks are trained apart on the teacher's features: local needs a teacher")
        if self.teacher is not None:
            self.teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or 0 in x.shape:
            raise BadInput(f"the network's input has shape {tuple(x.shape)}: it must be [B, C, H, W]")
        logits: Tensor = self.student.fc(self.student.features(x)[-1].mean((2, 3)))
        return logits

    def training_step(self, inputs: tuple[Tensor, ...], optimizer: torch.optim.Optimizer) -> Tensor:
        """One batch (x, y): cross-entropy and a loss per block."""
        x, y = inputs
        optimizer.zero_grad(set_to_none=True)
        teacher_features: list[Tensor] = []
        if self.teacher is not None:
            self.teacher.eval()
            with torch.no_grad():
                teacher_features = self.teacher.features(x)
        features = self.student.features(x, teacher_features if self.local else None)
        loss = nnf.cross_entropy(self.student.fc(features[-1].mean((2, 3))), y)
        for mine, theirs in zip(features, teacher_features, strict=False):  # no teacher: no block losses
            loss = loss + nnf.mse_loss(mine, theirs)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()
