"""Each system of the literature in a size that a test can train, and data that it can learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pararev_hw import models


@dataclass(frozen=True)
class Case:
    """A small network of a system; `sample` is the input shape of one sample at one time step."""

    name: str
    sample: tuple[int, ...]
    timesteps: int
    classes: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 0.01  # at which Adam learns a batch by heart

    def network(self, seed: int = 0, **options: Any) -> nn.Module:
        torch.manual_seed(seed)
        return models.create(
            self.name, num_classes=self.classes, timesteps=self.timesteps, **{**self.options, **options}
        )

    def batch(self, size: int = 4, seed: int = 1) -> tuple[torch.Tensor, ...]:
        """Inputs and targets of a random batch."""
        g = torch.Generator().manual_seed(seed)
        layout = models.spec(self.name).layout
        inputs, targets = models.batch_shapes(layout, size, self.timesteps, self.sample)

        def made(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            if dtype is torch.int64:
                return torch.randint(0, self.classes, shape, generator=g)
            return torch.rand(shape, generator=g)

        return tuple(made(*x) for x in (*inputs, *targets))


CASES: Mapping[str, Case] = {
    c.name: c
    for c in (
        Case("revsformer_2_384", (3, 16, 16), 2, options={"width": 1 / 16}),
        Case("pararevsformer_2_384", (3, 16, 16), 2, options={"width": 1 / 16}),
        Case("spikingformer_2_384", (3, 16, 16), 2, options={"width": 1 / 16}),
        Case("revsformer_2_256_dvs", (2, 32, 32), 2, options={"width": 1 / 16}),
        Case("trevsnn_tiny", (3, 32, 32), 4, options={"width": 1 / 16, "kernel_size": 3}),
        Case("trevsnn_tiny_dvs", (2, 16, 16), 2, options={"width": 1 / 8, "kernel_size": 3}),
        Case("zeromem_vgg11", (3, 16, 16), 3, options={"width": 1 / 16}),
        Case("zeromem_resnet18", (3, 16, 16), 3, options={"width": 1 / 16}),
        Case("ottt_vgg11", (3, 16, 16), 3, options={"width": 1 / 16}),
        Case("ottt_vgg11_dvs", (2, 16, 16), 3, options={"width": 1 / 16}),
        Case("sltt_vgg11", (3, 16, 16), 3, options={"width": 1 / 16}, rate=0.003),
        Case("dsr_preactresnet18", (3, 16, 16), 5, options={"width": 1 / 16}),
        Case("dsr_vgg11_dvs", (2, 16, 16), 5, options={"width": 1 / 16}),
        Case("ptl_alexnet_stage2", (3, 32, 32), 4, options={"width": 1 / 16}),
        Case("ptl_vgg11", (3, 32, 32), 4, options={"width": 1 / 32}),
        Case("lru_scifar", (3,), 12, options={"width": 1 / 32, "depth": 2}),
        Case("dsf_gru", (), 7, options={"width": 1 / 64, "depth": 1}, rate=0.03),
        Case("dsf_lstm", (), 7, options={"width": 1 / 64, "depth": 1}, rate=0.03),
        Case("dsf_rnn", (), 7, options={"width": 1 / 64, "depth": 1}, rate=0.03),
        Case("dsf_gru_bptt", (), 7, options={"width": 1 / 64, "depth": 1}, rate=0.03),
        Case("dsf_gru_truncated", (), 7, options={"width": 1 / 64, "depth": 1}, rate=0.03),
        Case("neverreset_gru", (40,), 6, options={"width": 1 / 16}, rate=0.03),
        Case("neverreset_snn", (40,), 6, options={"width": 1 / 16}, rate=0.03),
        Case("video_fcnn", (1, 8, 8), 6, options={"width": 1 / 32, "depth": 1, "chunk": 3}),
        Case("video_crnn", (1, 8, 8), 7, options={"width": 1 / 16, "chunk": 3}),
        Case("video_clstm", (1, 8, 8), 7, options={"width": 1 / 16, "chunk": 3}),
        Case("bnn_resnet18", (3, 32, 32), 1, options={"width": 1 / 16}),
    )
}


def step_of(network: nn.Module) -> Callable[..., Any]:
    """The training step of a network: its own, or forward, cross-entropy, backward, update."""
    own = getattr(network, "training_step", None)
    if own is not None:
        return lambda model, batch, optimizer: model.training_step(batch, optimizer)

    def plain(model: nn.Module, batch: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return plain
