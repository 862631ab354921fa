"""Launches of the neuron kernels: the tensors that they take and give, and a neuron's numbers as constants."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from pararev_hw.errors import BadInput
from pararev_hw.kernels import NeuronNumbers
from pararev_hw.kernels import triton_neurons as kernels

_DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def forward(x: Tensor, v: Tensor | None, rate: Tensor | None, numbers: NeuronNumbers) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and h `[T, ...]`, and v after the last step `[...]`."""
    # steps may lie anywhere, one image shown T times included; within a step the kernel wants elements in a row
    x = x if x[0].is_contiguous() else x.contiguous()
    count = x[0].numel()
    spikes, h = x.new_empty(x.shape), x.new_empty(x.shape)
    last = x.new_empty(x.shape[1:])
    kernels.forward[_grid(count)](
        x, last if v is None else v.contiguous(), last if rate is None else rate, spikes, h, last,
        count, x.stride(0), T=x.shape[0], HAS_V=v is not None, **_constants(x, numbers),
    )  # fmt: skip
    return spikes, h, last


def backward(
    g: Tensor, g_last: Tensor | None, h: Tensor, v: Tensor | None, rate: Tensor | None, numbers: NeuronNumbers
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x `[T, ...]`, of v `[...]` and of the rate `[1]`, the latter two empty where there is none."""
    count = h[0].numel()
    grid = _grid(count)
    of_x = torch.empty_like(h)
    of_v = h.new_empty(0 if v is None else h.shape[1:])
    parts = torch.empty(grid[0], dtype=torch.float64 if h.dtype == torch.float64 else torch.float32, device=h.device)
    alpha = numbers.alpha
    a, b = ((math.pi / 2 * math.sqrt(2 * alpha), 2 / alpha), (alpha, 0.0), (alpha, alpha**2))[numbers.surrogate]
    kernels.backward[grid](
        g.contiguous(), h if g_last is None else g_last.contiguous(), h, h if v is None else v.contiguous(),
        h if rate is None else rate, of_x, h if v is None else of_v, parts, count,
        T=h.shape[0], HAS_V=v is not None, HAS_LAST=g_last is not None, DETACH=numbers.detach,
        THRESHOLD=numbers.threshold, SURROGATE=numbers.surrogate, A=a, B=b, **_constants(h, numbers),
    )  # fmt: skip
    return of_x, of_v, h.new_empty(0) if rate is None else parts.sum().to(h.dtype).reshape(1)


def _grid(count: int) -> tuple[int]:
    return (max(1, -(-count // kernels.BLOCK)),)


def _constants(x: Tensor, numbers: NeuronNumbers) -> dict[str, Any]:
    """What both kernels are compiled for. They compute in a type at least as wide as the tensors' own."""
    if x.dtype not in _DTYPES:
        raise BadInput(f"a fused neuron takes floating-point tensors, not {x.dtype}")
    fires = float(torch.tensor(numbers.threshold, dtype=x.dtype))  # as PyTorch compares tensors of that type with it
    return {
        "CHARGE": numbers.charge,
        "SOFT": numbers.v_reset is None,
        "FIRES": fires,
        "TAKES": numbers.threshold if x.is_cuda else fires,
        "REST": 0.0 if numbers.v_reset is None else numbers.v_reset,
        "TAU": numbers.tau,
        "KEEP": 1.0 - 1.0 / numbers.tau,
        "ROUNDED": _DTYPES[x.dtype],
        "WIDE": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "SIZE": kernels.BLOCK,
    }
