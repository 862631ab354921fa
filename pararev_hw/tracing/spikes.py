"""Run a network on real inputs and count: the density of every layer's input, and its exact synaptic operations.

A synaptic operation is one spike reaching one output. An input element of a convolution reaches as many outputs as the
kernel, stride, padding, dilation and groups allow at its place: fewer at the border. The fan-out of every place is the
input gradient of a one-channel convolution of ones, so it needs no formula of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pararev_hw.errors import BadInput
from pararev_hw.tracing import formulas
from pararev_hw.types import LayerSpikes, Spikes


def measure_spikes(
    model: nn.Module,
    inputs: torch.Tensor | Sequence[torch.Tensor],
    *,
    source: str,
    mode: Literal["train", "infer"] = "train",
    samples: int | None = None,
) -> Spikes | None:
    """Activity of every convolution and linear layer in one real forward pass; None where no layer sees spikes.

    `mode` "train" runs the normalisations on batch statistics, as a training step does; running statistics are put
    back. `samples` is the number of samples in `inputs` (default: their first dimension).
    """
    batch = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    count = int(batch[0].shape[0]) if samples is None else samples
    if count < 1:
        raise BadInput(f"spikes are measured on {count} samples: at least one is needed")
    counter = _Counter()
    was_training = model.training
    kept = {n: b.detach().clone() for n, b in model.named_buffers()}
    paths = {id(m): n for n, m in model.named_modules()}
    enter = register_module_forward_pre_hook(lambda m, _: counter.stack.append(paths.get(id(m), "")))
    leave = register_module_forward_hook(lambda m, _, __: counter.leave())
    try:
        model.train(mode == "train")
        with torch.no_grad(), counter:
            model(*batch)
    finally:
        enter.remove()
        leave.remove()
        model.train(was_training)
        with torch.no_grad():
            for n, b in model.named_buffers():
                b.copy_(kept[n])
    layers = tuple(tally.layer(module, count) for module, tally in counter.tallies.items())
    spiking = [layer for layer in layers if layer.spiking]
    if not spiking:
        return None
    elements = sum(counter.tallies[layer.module].elements for layer in spiking)
    active = sum(counter.tallies[layer.module].active for layer in spiking)
    return Spikes(measured=True, source=source, rate=active / max(1, elements), layers=layers)


class _Tally:
    """Counts of one layer, summed over its runs."""

    def __init__(self) -> None:
        self.active = 0
        self.elements = 0
        self.sops = 0.0
        self.dense_macs = 0.0
        self.spiking = True
        self.channels: torch.Tensor | None = None
        self.per_channel = 0

    def add(self, x: torch.Tensor, channel_dim: int, sops: float, macs: float) -> None:
        """`x`: the layer's input, channels along `channel_dim`."""
        on = x != 0
        self.active += int(on.sum())
        self.elements += x.numel()
        self.sops += sops
        self.dense_macs += macs
        top = x.amax() if x.numel() else x.new_zeros(())
        self.spiking = self.spiking and bool((~on | (x == top)).all())
        others = [d for d in range(x.dim()) if d != channel_dim]
        channels = on.sum(dim=others).double()
        self.channels = channels if self.channels is None else self.channels + channels
        self.per_channel += x.numel() // max(1, x.shape[channel_dim])

    def layer(self, module: str, samples: int) -> LayerSpikes:
        share = () if self.channels is None else tuple((self.channels / max(1, self.per_channel)).tolist())
        return LayerSpikes(
            module=module,
            density=self.active / max(1, self.elements),
            sops=self.sops / samples,
            dense_macs=self.dense_macs / samples,
            spiking=self.spiking,
            channel_density=share,
        )


class _Counter(TorchDispatchMode):
    """Sees every convolution and matrix product of a real forward pass, and which module it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tallies: dict[str, _Tally] = {}

    def leave(self) -> None:
        if self.stack:
            self.stack.pop()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = formulas.matrix_kind(str(func))
        if kind not in ("conv", "gemm"):
            return out
        macs = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out) / 2
        tally = self.tallies.setdefault(self.stack[-1] if self.stack else "", _Tally())
        if kind == "conv":
            tally.add(args[0], 1, conv_sops(*args[:9]), macs)
        else:
            left = args[1] if formulas.base_name(str(func)) in ("addmm", "baddbmm") else args[0]
            tally.add(left, left.dim() - 1, float((left != 0).sum()) * out.shape[-1], macs)
        return out


def conv_sops(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> float:
    """Synaptic operations of a convolution: the sum over non-zero inputs `[N, C, *places]` of their fan-out."""
    out_per_input = weight.shape[1] if transposed else weight.shape[0] // groups
    one = torch.zeros((1, 1, *x.shape[2:]), dtype=torch.float64)
    kernel = torch.ones((1, 1, *weight.shape[2:]), dtype=torch.float64)
    geometry = (list(stride), list(padding), list(dilation), transposed, list(output_padding), 1)
    out = torch.ops.aten.convolution(one, kernel, None, *geometry)
    reached, _, _ = torch.ops.aten.convolution_backward(
        torch.ones_like(out), one, kernel, None, *geometry, [True, False, False]
    )
    spikes = (x != 0).sum(dim=(0, 1)).double().cpu()
    return float((spikes * reached[0, 0]).sum()) * out_per_input
