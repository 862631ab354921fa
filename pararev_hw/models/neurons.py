"""Spiking neurons over all time steps at once: x `[T, ...]` in, spikes `[T, ...]` out, the state explicit.

At every time step a neuron charges, fires and resets:

    IF    h = v + x
    LIF   h = v + (x − (v − r)) / τ         (decay_input; else h = v − (v − r) / τ + x), r the resting potential
    PLIF  as LIF, with 1/τ = sigmoid(w) and w trained (Fang et al., 2021, arXiv 2007.05785)
    s = H(h − θ)
    v = (1 − s)·h + s·v_reset               (hard reset; soft, where v_reset is None: v = h − s·θ)

The resting potential is v_reset, or 0 under soft reset, and so is v before the first step. With `detach_reset` the s in
the reset counts as a constant in the backward. Values and gradients are those of SpikingJelly's multi-step nodes
(torch backend). In backward a neuron needs h and one bit per spike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput
from pararev_hw.kernels import INTEGRATE, LEAK, LEAK_INPUT, LEARN, LEARN_INPUT
from pararev_hw.models.fused_neurons import run_fused
from pararev_hw.models.surrogates import ATan, Surrogate

Charge = Callable[[Tensor, Tensor | None], Tensor]  # x and v (None: at rest) of one step -> h


def integrate(x: Tensor, v: Tensor | None, *, rest: float) -> Tensor:
    """h of an IF neuron, all shapes equal. It never is x itself, a view that would keep all T steps alive."""
    return x + (rest if v is None else v)


def leak(
    x: Tensor,
    v: Tensor | None,
    *,
    rest: float,
    decay_input: bool,
    over_tau: Callable[[Tensor], Tensor],
    keep: float | Tensor,
) -> Tensor:
    """h of a leaky neuron, all shapes equal: `over_tau` divides by τ, `keep` is 1 − 1/τ."""
    if v is None:
        # x + 0.0: where τ is trained, autograd keeps what is divided, and x is a view that would keep all T steps alive
        return _shifted(over_tau(x + 0.0), rest) if decay_input else x + rest
    if decay_input:
        return v + over_tau(x - _shifted(v, -rest))
    if rest == 0.0:
        return v * keep + x
    return v - over_tau(v - rest) + x


class _Fire(torch.autograd.Function):
    """Spikes H(h − θ) as numbers and as a mask."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, threshold: float, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
        fired = h >= threshold
        ctx.save_for_backward(h)
        ctx.threshold, ctx.surrogate = threshold, surrogate
        ctx.mark_non_differentiable(fired)
        ctx.set_materialize_grads(False)  # or a tensor of zeros is made for the mask's gradient
        return fired.to(h.dtype), fired

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
        if g is None:
            return None, None, None
        (h,) = ctx.saved_tensors
        return ctx.surrogate.vjp(h - ctx.threshold, g), None, None


def fire(h: Tensor, threshold: float, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
    """Spikes of a charged membrane h: as numbers 0 and 1 (differentiable through the surrogate), and as a mask."""
    spikes, fired = _Fire.apply(h, threshold, surrogate)  # type: ignore[no-untyped-call]
    return spikes, fired


def reset(
    h: Tensor, spikes: Tensor, fired: Tensor, *, threshold: float, v_reset: float | None, detach_reset: bool
) -> Tensor:
    """The membrane after firing. Shapes of all tensors are equal."""
    if v_reset is None:
        return torch.sub(h, spikes.detach() if detach_reset else spikes, alpha=threshold)
    if detach_reset:
        return h.masked_fill(fired, v_reset)  # one operation, and it keeps a mask of bytes, not of floats
    return (1.0 - spikes) * h + spikes * v_reset


class Neuron(nn.Module, ABC):
    """A multi-step spiking neuron: x `[T, ...]` and a state `[...]` (at rest where None) give spikes `[T, ...]`.

    It holds no state between calls. Raises BadInput for a threshold not above the resting potential.
    """

    is_spiking_neuron = True

    def __init__(
        self,
        *,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: Surrogate = ATan(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.v_threshold, self.v_reset, self.detach_reset = v_threshold, v_reset, detach_reset
        self.surrogate = surrogate
        self.fused = False  # one operation over all T instead of some per step: see pararev_hw.models.fused_neurons
        if not v_threshold > self.rest:
            raise BadInput(f"a neuron's threshold is {v_threshold}: it must be above its resting potential {self.rest}")

    @property
    def rest(self) -> float:
        """The resting potential."""
        return 0.0 if self.v_reset is None else self.v_reset

    def forward(self, x: Tensor, v: Tensor | None = None) -> Tensor:
        """Spikes `[T, ...]`."""
        if self.fused:
            return run_fused(self, x, v)[0]
        spikes, _, _ = self._run(x, v)
        return spikes

    def with_state(self, x: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes `[T, ...]` and the state `[...]` after the last step, to be given to the next call."""
        if self.fused:
            return run_fused(self, x, v)
        spikes, h, last = self._run(x, v)
        return spikes, self._reset(h, *last)

    def _run(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Spikes of all steps; of the last step h and what fired: its reset is left to those who want the state."""
        if x.dim() < 2 or x.shape[0] == 0:
            raise BadInput(f"a neuron's input has shape {tuple(x.shape)}: it must be [T, ...] with T >= 1")
        charge = self._charging()
        # unbind, whose backward is one stack: x[t] would make a full-size zero tensor per step there
        first, *others = x.unbind(0)
        h = charge(first, v)
        last = fire(h, self.v_threshold, self.surrogate)
        spikes = [last[0]]
        for x_t in others:
            h = charge(x_t, self._reset(h, *last))
            last = fire(h, self.v_threshold, self.surrogate)
            spikes.append(last[0])
        return torch.stack(spikes), h, last

    def _reset(self, h: Tensor, spikes: Tensor, fired: Tensor) -> Tensor:
        return reset(h, spikes, fired, threshold=self.v_threshold, v_reset=self.v_reset, detach_reset=self.detach_reset)

    @abstractmethod
    def _charging(self) -> Charge:
        """How x and v make h at every step of one call."""

    @abstractmethod
    def charging_code(self) -> tuple[int, float, Tensor | None]:
        """The same for the fused operation: number of the formula, τ, and 1/τ where it is trained."""

    def extra_repr(self) -> str:
        return (
            f"v_threshold={self.v_threshold}, v_reset={self.v_reset}, detach_reset={self.detach_reset}, "
            f"surrogate={self.surrogate}"
        )


class IF(Neuron):
    """Integrate and fire: h = v + x."""

    def _charging(self) -> Charge:
        return partial(integrate, rest=self.rest)

    def charging_code(self) -> tuple[int, float, Tensor | None]:
        return INTEGRATE, 1.0, None


class LIF(Neuron):
    """Leaky integrate and fire: h = v + (x − (v − r)) / τ, or h = v − (v − r) / τ + x without `decay_input`.

    Raises BadInput for τ not above 1.
    """

    def __init__(
        self,
        tau: float = 2.0,
        *,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: Surrogate = ATan(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, detach_reset=detach_reset, surrogate=surrogate)
        _above_one(tau)
        self.tau, self.decay_input = tau, decay_input

    def _charging(self) -> Charge:
        # Divides by τ instead of multiplying by 1/τ: the last bit decides whether a membrane on the threshold fires.
        tau = self.tau
        keep = 1.0 - 1.0 / tau
        return partial(leak, rest=self.rest, decay_input=self.decay_input, over_tau=lambda u: u / tau, keep=keep)

    def charging_code(self) -> tuple[int, float, Tensor | None]:
        return (LEAK_INPUT if self.decay_input else LEAK), self.tau, None

    def extra_repr(self) -> str:
        return f"tau={self.tau}, decay_input={self.decay_input}, {super().extra_repr()}"


class PLIF(Neuron):
    """LIF whose 1/τ = sigmoid(w) is trained, one scalar w per module, starting at τ = `init_tau`.

    Raises BadInput for an `init_tau` not above 1.
    """

    def __init__(
        self,
        init_tau: float = 2.0,
        *,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: Surrogate = ATan(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, detach_reset=detach_reset, surrogate=surrogate)
        _above_one(init_tau)
        self.decay_input = decay_input
        self.w = nn.Parameter(torch.tensor(-math.log(init_tau - 1.0)))

    def _charging(self) -> Charge:
        rate = self.w.sigmoid()
        keep = 1.0 if self.decay_input else 1.0 - rate
        return partial(leak, rest=self.rest, decay_input=self.decay_input, over_tau=lambda u: u * rate, keep=keep)

    def charging_code(self) -> tuple[int, float, Tensor | None]:
        return (LEARN_INPUT if self.decay_input else LEARN), 1.0, self.w.sigmoid()

    def extra_repr(self) -> str:
        return f"decay_input={self.decay_input}, {super().extra_repr()}"


def _shifted(x: Tensor, by: float) -> Tensor:
    return x if by == 0.0 else x + by


def _above_one(tau: float) -> None:
    if not tau > 1.0:
        raise BadInput(f"a neuron's time constant is {tau}: it must be above 1")
