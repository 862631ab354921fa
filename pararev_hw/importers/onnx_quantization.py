"""QuantizeLinear and DequantizeLinear, alone and as a pair.

A pair around an activation or a weight is how a network that was trained for a small number format is exported. It
becomes fake quantisation, through which gradients pass where the value is inside the format's range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pararev_hw.errors import BadInput
from pararev_hw.importers.onnx_site import Run, Site


def quantize(site: Site) -> Run:
    kind = _integer_type(site)
    limits = torch.iinfo(kind)
    shape = _parameter_shape(site)
    site.state(1)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        y = torch.round(x / scale.reshape(shape))
        y = y if zero is None else y + zero.reshape(shape)
        return y.clamp(limits.min, limits.max).to(kind)

    return run


def dequantize(site: Site) -> Run:
    shape = _parameter_shape(site)
    site.state(1)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        y = x.to(scale.dtype)
        y = y if zero is None else y - zero.reshape(shape)
        return y * scale.reshape(shape)

    return run


def fake_quantize(site: Site) -> Run:
    """A QuantizeLinear whose result is dequantised again by the same numbers, as one function with a gradient."""
    limits = torch.iinfo(_integer_type(site))
    shape = _parameter_shape(site)
    site.state(1)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        shift = torch.zeros_like(scale) if zero is None else zero
        quantized: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]
            x, scale.reshape(shape), shift.reshape(shape), limits.min, limits.max
        )
        return quantized

    return run


class _FakeQuantize(torch.autograd.Function):
    """The nearest value that the format has; the gradient passes where x is inside its range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, low: int, high: int) -> Tensor:
        level = torch.round(x / scale) + shift
        ctx.save_for_backward((level >= low) & (level <= high))
        return (level.clamp(low, high) - shift) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None


def _integer_type(site: Site) -> torch.dtype:
    kind: torch.dtype = site.dtype(2) if site.has_input(2) else site.attribute("output_dtype") or torch.uint8
    if kind.is_floating_point:
        raise BadInput(f"quantises to {kind}: only integers can be imported")
    return kind


def _parameter_shape(site: Site) -> Sequence[int]:
    """The shape in which scales meet the input: one number, or one per index of `axis`."""
    scale, rank = site.shape(1), len(site.shape(0))
    if site.attribute("block_size", 0):
        raise BadInput("quantises in blocks: one scale, or one per channel, can be imported")
    if not scale or scale == (1,):
        return ()
    axis = site.attribute("axis", 1) % rank
    return tuple(scale[0] if d == axis else 1 for d in range(rank))
