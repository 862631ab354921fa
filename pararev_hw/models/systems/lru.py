"""The linear recurrent unit (Orvieto et al., 2023, arXiv 2303.06349), as a loop and as a parallel scan.

    x_k = λ ⊙ x_{k−1} + γ ⊙ (B u_k)      y_k = Re(C x_k) + D ⊙ u_k      λ = exp(−exp(ν) + i exp(φ))

with λ, B, C complex. The recurrence is linear, so pairs (a, b) with (a_i, b_i)•(a_j, b_j) = (a_j a_i, a_j b_i + b_j)
combine in any order: a scan over L steps is 2⌈log2 L⌉ deep (Blelloch), where the loop is L deep. Powers of λ stand for
the a's, so a combine is one complex product and one sum per channel. A block is BN → LRU → GELU → GLU, + skip.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw.errors import BadInput
from pararev_hw.models.spec import Spec, no_options, whole

Form = Literal["scan", "loop"]

SPECS = (
    Spec(
        "lru_scifar", "lru", 6, (6,), (512,), 1024, (3,), "sequence", 10,
        assumptions=("LRU: 6 blocks of width 512 with 384 states, batch norm, dropout 0: widths were not found",),
    ),
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    form: Form = "scan",
    depth: int | None = None,
    states: int | None = None,
    **options: Any,
) -> LRUClassifier:
    """The network; `form` is "scan" (log-deep) or "loop" (as long as the sequence)."""
    no_options(spec.name, options)
    if form not in ("scan", "loop"):
        raise BadInput(f"{spec.name}: form is {form!r}: it must be scan or loop")
    features = max(1, round(spec.channels[0] * width))
    count = max(1, round(384 * width)) if states is None else whole("states", states)
    blocks = spec.depth if depth is None else whole("depth", depth)
    image = spec.input_shape[0] if in_channels is None else in_channels
    return LRUClassifier(image, features, count, blocks, num_classes, form)


class LRU(nn.Module):
    """u `[B, L, H]` to y `[B, L, H]` with N complex states."""

    def __init__(
        self, features: int, states: int, form: Form, *, r_min: float = 0.9, r_max: float = 0.999, phase: float = 0.314
    ) -> None:
        super().__init__()
        self.form = form
        u1, u2 = torch.rand(states), torch.rand(states)
        self.nu = nn.Parameter(torch.log(-0.5 * torch.log(u1 * (r_max**2 - r_min**2) + r_min**2)))
        self.phi = nn.Parameter(torch.log(phase * u2))
        self.gamma_log = nn.Parameter(0.5 * torch.log(1 - torch.exp(-2 * torch.exp(self.nu.detach()))))
        self.b = nn.Parameter(torch.randn(2, states, features) / math.sqrt(2 * features))  # real, imaginary
        self.c = nn.Parameter(torch.randn(2, features, states) / math.sqrt(states))
        self.d = nn.Parameter(torch.randn(features))

    def forward(self, u: Tensor) -> Tensor:
        if u.dim() != 3 or u.shape[1] == 0:
            raise BadInput(f"an LRU's input has shape {tuple(u.shape)}: it must be [B, L, H] with L >= 1")
        lam = torch.exp(torch.complex(-torch.exp(self.nu), torch.exp(self.phi)))
        gamma = torch.exp(self.gamma_log)
        driven = torch.complex(u @ (self.b[0] * gamma[:, None]).t(), u @ (self.b[1] * gamma[:, None]).t())
        x = scanned(lam, driven) if self.form == "scan" else looped(lam, driven)
        return x.real @ self.c[0].t() - x.imag @ self.c[1].t() + u * self.d


def looped(lam: Tensor, b: Tensor) -> Tensor:
    """x_k = λ x_{k−1} + b_k over dimension 1 of `[B, L, N]`, one step after the other."""
    x = b[:, 0]
    out = [x]
    for b_k in b.unbind(1)[1:]:
        x = lam * x + b_k
        out.append(x)
    return torch.stack(out, 1)


def scanned(lam: Tensor, b: Tensor) -> Tensor:
    """The same by halves: pairs are combined, the half-long sequence is scanned with λ², and the rest filled in."""
    steps = b.shape[1]
    if steps == 1:
        return b
    even, odd = b[:, : steps - steps % 2 : 2], b[:, 1::2]
    at_odd = scanned(lam * lam, lam * even + odd)  # x_1, x_3, ...
    rest = b[:, 2::2]  # x_2, x_4, ...
    at_even = torch.cat((b[:, :1], lam * at_odd[:, : rest.shape[1]] + rest), 1)
    paired = torch.stack((at_even[:, : at_odd.shape[1]], at_odd), 2).flatten(1, 2)
    return paired if steps % 2 == 0 else torch.cat((paired, at_even[:, -1:]), 1)


class LRUBlock(nn.Module):
    """BN → LRU → GELU → GLU, plus the input; `[B, L, H]` both ways."""

    def __init__(self, features: int, states: int, form: Form) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.lru = LRU(features, states, form)
        self.value, self.gate = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, u: Tensor) -> Tensor:
        # contiguous: torch lays the norm of a transposed tensor out otherwise than its shape functions say
        z = self.norm(u.transpose(1, 2).contiguous()).transpose(1, 2)
        z = nnf.gelu(self.lru(z))
        out: Tensor = self.value(z) * torch.sigmoid(self.gate(z))
        return u + out


class LRUClassifier(nn.Module):
    """`[B, L, features]` in; logits `[B, classes]` out, from the mean over L."""

    def __init__(self, in_features: int, features: int, states: int, depth: int, classes: int, form: Form) -> None:
        super().__init__()
        self.encoder = nn.Linear(in_features, features)
        self.blocks = nn.ModuleList(LRUBlock(features, states, form) for _ in range(depth))
        self.fc = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or x.shape[2] != self.encoder.in_features or 0 in x.shape:
            expected_shape = f"[B, L, {self.encoder.in_features}]"
            raise BadInput(f"the network's input has shape {tuple(x.shape)}: it must be {expected_shape}")
        x = self.encoder(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.fc(x.mean(1))
        return logits
