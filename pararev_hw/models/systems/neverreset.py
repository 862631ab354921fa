"""Never reset again (Yin and Corradi, 2024, arXiv 2412.15983): a loss at every step, and a state that is never reset.

The stream goes on from sample to sample; m_t says where a step tells something. Where it does the loss is
cross-entropy, elsewhere the divergence from "nothing known":

    L = 1/T Σ_t [ m_t CE(p_t, y_t) + (1 − m_t) KL(uniform ‖ p_t) ]

so the network learns to forget by itself, and inference needs no reset and no word of where a sample ends. The readout,
its softmax and the divergence run at every step. `loss="last"` is the ordinary training beside it: one readout, after
the last step, of a state that starts from zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from pararev_hw.errors import BadInput
from pararev_hw.models.neurons import fire
from pararev_hw.models.spec import Spec, no_options
from pararev_hw.models.surrogates import ATan
from pararev_hw.models.systems.feedback import GRUCell, unrolled

_ASSUMED = "KL of the uniform distribution from the prediction, weight 1: direction and weights are not in the sources"

SPECS = tuple(
    Spec(
        f"neverreset_{kind}", "neverreset", 2, (), (256,), 128, (40,), "steps", 10, assumptions=(_ASSUMED, size),
        method="BPTT",
    )
    for kind, size in (
        ("gru", "one GRU layer of 256 on 40 features: sizes are not in the sources"),
        ("snn", "one recurrent LIF layer of 256 on 40 features, soft reset: sizes are not in the sources"),
    )
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    in_channels: int | None = None,
    loss: str = "all",
    **options: Any,
) -> StreamClassifier:
    """The network; `loss` is "all" (every step, state carried on) or "last" (after the last step, state reset)."""
    no_options(spec.name, options)
    if loss not in ("all", "last"):
        raise BadInput(f"{spec.name}: loss is {loss!r}: it must be all or last")
    features = max(1, round(spec.channels[0] * width))
    inputs = spec.input_shape[0] if in_channels is None else in_channels
    layer: nn.Module = GRULayer(inputs, features) if spec.name.endswith("gru") else SpikingLayer(inputs, features)
    return StreamClassifier(layer, features, num_classes, every_step=loss == "all")


class GRULayer(nn.Module):
    """x `[B, T, features]` and h `[B, H]` to all h `[B, T, H]` and the last."""

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.cell = GRUCell(in_features, features)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        h = unrolled(self.cell, x, None if state is None else state.unsqueeze(1))[:, :, 0]
        return h, h[:, -1]


class SpikingLayer(nn.Module):
    """Recurrent LIF neurons with soft reset: u ← λ u + W x + V s, s = H(u − 1), u ← u − s. The state is u and s."""

    is_spiking_neuron = True

    def __init__(self, in_features: int, features: int, *, tau: float = 20.0) -> None:
        super().__init__()
        self.input = nn.Linear(in_features, features)
        self.recurrent = nn.Linear(features, features, bias=False)
        self.keep, self.surrogate = math.exp(-1.0 / tau), ATan()

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        current = self.input(x)
        u, s = torch.zeros_like(current[:, 0]), torch.zeros_like(current[:, 0])
        if state is not None:
            u, s = state.unbind(1)
        out = []
        for c in current.unbind(1):
            h = u * self.keep + c + self.recurrent(s)
            s, _ = fire(h, 1.0, self.surrogate)
            u = h - s
            out.append(s)
        return torch.stack(out, 1), torch.stack((u, s), 1)


class StreamClassifier(nn.Module):
    """x `[B, T, features]` in; logits at every step `[B, T, classes]` out, or of the last step `[B, classes]`."""

    def __init__(self, layer: nn.Module, features: int, classes: int, *, every_step: bool) -> None:
        super().__init__()
        self.layer, self.readout, self.every_step = layer, nn.Linear(features, classes), every_step

    def forward(self, x: Tensor) -> Tensor:
        return self.stream(x, None)[0]

    def stream(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits, and the state with which the stream goes on."""
        if x.dim() != 3 or 0 in x.shape:
            raise BadInput(f"the network's input has shape {tuple(x.shape)}: it must be [B, T, features] with T >= 1")
        h, state = self.layer(x, state)
        logits: Tensor = self.readout(h if self.every_step else h[:, -1])
        return logits, state

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of logits against y `[B, T]`, −1 at the steps that tell nothing."""
        if not self.every_step:
            return nnf.cross_entropy(logits, y[:, -1].clamp(min=0))
        log_p = nnf.log_softmax(logits, -1)
        is_labelled = (y >= 0).to(logits.dtype)
        cross = -log_p.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        from_uniform = -math.log(logits.shape[-1]) - log_p.mean(-1)
        return (is_labelled * cross + (1.0 - is_labelled) * from_uniform).mean()

    def training_step(self, inputs: tuple[Tensor, ...], optimizer: torch.optim.Optimizer) -> Tensor:
        """One batch (x, y)."""
        x, y = inputs
        optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()
