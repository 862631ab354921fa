"""Spiking neurons as one operation over all T, forward and backward: a Triton kernel where there is a GPU and Triton.

    use_fused(network)      # every neuron of it; `use_fused(network, False)` puts the reference back

The operation is `pararev_hw::spiking_neuron`, which the tracer sees as one op of kind "neuron". On a tensor for which
there is no kernel it computes as the reference does, step by step, so a network traces and runs everywhere. Spikes and
gradients are those of `pararev_hw.models.neurons`; on a GPU a kernel may contract a product and a sum, so that a
membrane within rounding of the threshold may fire in one and not in the other.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput
from pararev_hw.kernels import INTEGRATE, LEAK_INPUT, LEARN_INPUT, NeuronNumbers
from pararev_hw.models.surrogates import ATan, Sigmoid, Surrogate, Triangle

_SURROGATES: tuple[type[Any], ...] = (ATan, Sigmoid, Triangle)


def use_fused(network: nn.Module, fused: bool = True) -> int:
    """Let every spiking neuron of ours in the network run as one operation, or again step by step; how many there are.

    Raises BadInput for a surrogate that has no kernel.
    """
    neurons = [m for m in network.modules() if getattr(m, "is_spiking_neuron", False) and hasattr(m, "fused")]
    for neuron in neurons:
        if fused:
            surrogate_code(neuron.surrogate)  # type: ignore[arg-type]
        neuron.fused = fused  # type: ignore[assignment]
    return len(neurons)


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def has_kernel(x: Tensor) -> bool:
    """Whether the kernel can run on that tensor: on a GPU, or anywhere in Triton's interpreter."""
    return has_triton() and (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1")


def surrogate_code(surrogate: Surrogate) -> tuple[int, float]:
    """Number and α of a surrogate. Raises BadInput for one that the kernel does not know."""
    for number, kind in enumerate(_SURROGATES):
        if type(surrogate) is kind:
            return number, surrogate.alpha  # type: ignore[attr-defined]
    raise BadInput(f"the fused neuron has no surrogate {surrogate!r}: use ATan, Sigmoid or Triangle")


class _Spiking(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, v: Tensor | None, rate: Tensor | None, numbers: NeuronNumbers
    ) -> tuple[Tensor, Tensor]:
        spikes, h, last = spiking_neuron(x, v, rate, *numbers[:4])
        ctx.save_for_backward(h, v, rate)
        ctx.numbers = numbers
        ctx.set_materialize_grads(False)
        return spikes, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_last: Tensor | None) -> tuple[Tensor | None, ...]:
        h, v, rate = ctx.saved_tensors
        if g is None and g_last is None:
            return None, None, None, None
        dx, dv, drate = spiking_neuron_backward(
            torch.zeros_like(h) if g is None else g, g_last, h, v, rate, *ctx.numbers
        )
        return dx, None if v is None else dv, None if rate is None else drate.reshape(rate.shape), None


class FusableNeuron(Protocol):
    """What the fused operation reads of a neuron."""

    surrogate: Surrogate
    v_threshold: float
    v_reset: float | None
    detach_reset: bool

    def charging_code(self) -> tuple[int, float, Tensor | None]:
        """The kind of charging, τ, and the learnt rate of a parametric neuron."""


def run_fused(neuron: FusableNeuron, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
    """Spikes `[T, ...]` and the state after the last step `[...]` of a neuron, as one operation."""
    if x.dim() < 2 or x.shape[0] == 0:
        raise BadInput(f"a neuron's input has shape {tuple(x.shape)}: it must be [T, ...] with T >= 1")
    charge, tau, rate = neuron.charging_code()
    number, alpha = surrogate_code(neuron.surrogate)
    if rate is not None:
        rate = rate.to(x.dtype)
    numbers = NeuronNumbers(charge, tau, neuron.v_threshold, neuron.v_reset, neuron.detach_reset, number, alpha)
    spikes, last = _Spiking.apply(x, v, rate, numbers)  # type: ignore[no-untyped-call]
    return spikes, last


@torch.library.custom_op("pararev_hw::spiking_neuron", mutates_args=())
def spiking_neuron(
    x: Tensor, v: Tensor | None, rate: Tensor | None, charge: int, tau: float, threshold: float, v_reset: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and h `[T, ...]`, and v after the last step `[...]`."""
    if has_kernel(x):
        from pararev_hw.kernels import neuron_launches  # Triton is optional

        numbers = NeuronNumbers(charge, tau, threshold, v_reset, detach=True, surrogate=0, alpha=1.0)  # forward alone
        return neuron_launches.forward(x, v, rate, numbers)
    rest = 0.0 if v_reset is None else v_reset
    now = torch.full_like(x[0], rest, memory_format=torch.contiguous_format) if v is None else v
    spikes, membrane = [], []
    for x_t in x.unbind(0):
        h = _charged(x_t, now, rate, charge, tau, rest)
        fired = h >= threshold
        s = fired.to(h.dtype)
        now = torch.sub(h, s, alpha=threshold) if v_reset is None else h.masked_fill(fired, v_reset)
        spikes.append(s)
        membrane.append(h)
    return torch.stack(spikes), torch.stack(membrane), now.contiguous()


@spiking_neuron.register_fake
def _(
    x: Tensor, v: Tensor | None, rate: Tensor | None, charge: int, tau: float, threshold: float, v_reset: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    spikes = x.new_empty(x.shape)
    return spikes, x.new_empty(x.shape), x.new_empty(x.shape[1:])


def _charged(x: Tensor, v: Tensor, rate: Tensor | None, charge: int, tau: float, rest: float) -> Tensor:
    if charge == INTEGRATE:
        return x + v
    off = v if rest == 0.0 else v + -rest
    if charge in (LEAK_INPUT, LEARN_INPUT):
        return v + ((x - off) / tau if rate is None else (x - off) * rate)
    if rest == 0.0:
        return v * (1.0 - 1.0 / tau if rate is None else 1.0 - rate) + x
    return v - (off / tau if rate is None else off * rate) + x


@torch.library.custom_op("pararev_hw::spiking_neuron_backward", mutates_args=())
def spiking_neuron_backward(
    g: Tensor,
    g_last: Tensor | None,
    h: Tensor,
    v: Tensor | None,
    rate: Tensor | None,
    charge: int,
    tau: float,
    threshold: float,
    v_reset: float | None,
    detach: bool,
    surrogate: int,
    alpha: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x `[T, ...]`, of v `[...]` (empty where none was given) and of the rate `[1]` (empty likewise)."""
    if has_kernel(h):
        from pararev_hw.kernels import neuron_launches  # Triton is optional

        numbers = NeuronNumbers(charge, tau, threshold, v_reset, detach, surrogate, alpha)
        return neuron_launches.backward(g, g_last, h, v, rate, numbers)
    rest = 0.0 if v_reset is None else v_reset
    slope_of = _SURROGATES[surrogate](alpha).vjp
    g_v = torch.zeros_like(h[0]) if g_last is None else g_last
    of_x: list[Tensor] = []
    of_rate = h.new_zeros(1)
    for t in reversed(range(h.shape[0])):
        fired = h[t] >= threshold
        slope = slope_of(h[t] - threshold, torch.ones_like(h[t]))
        if v_reset is None:
            through = 1.0 if detach else 1.0 - threshold * slope
        else:
            through = (~fired).to(h.dtype)
            through = through if detach else through + (v_reset - h[t]) * slope
        g_h = slope_of(h[t] - threshold, g[t]) + g_v * through
        before = (torch.full_like(h[0], rest) if v is None else v) if t == 0 else _after(h[t - 1], threshold, v_reset)
        if charge == INTEGRATE:
            g_x, g_v = g_h, g_h
        elif rate is None:
            g_x, g_v = (g_h / tau if charge == LEAK_INPUT else g_h), g_h * (1.0 - 1.0 / tau)
        else:
            g_x, g_v = (g_h * rate if charge == LEARN_INPUT else g_h), g_h * (1.0 - rate)
            of_rate += (g_h * ((h[t] - before) / rate if charge == LEARN_INPUT else rest - before)).sum()
        of_x.append(g_x)
    return (
        torch.stack(of_x[::-1]),
        h.new_empty(0) if v is None else g_v.clone(),
        h.new_empty(0) if rate is None else of_rate,
    )


@spiking_neuron_backward.register_fake
def _(
    g: Tensor, g_last: Tensor | None, h: Tensor, v: Tensor | None, rate: Tensor | None, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    empty = h.new_empty(0)
    return (
        h.new_empty(h.shape),
        empty if v is None else h.new_empty(h.shape[1:]),
        h.new_empty(0) if rate is None else h.new_empty(1),
    )


def _after(h: Tensor, threshold: float, v_reset: float | None) -> Tensor:
    fired = h >= threshold
    return torch.sub(h, fired.to(h.dtype), alpha=threshold) if v_reset is None else h.masked_fill(fired, v_reset)
