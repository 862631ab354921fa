"""Numbers that look random and are the same everywhere: an integer hash of position and seed."""

import torch
from torch import Tensor, nn

MASK = 0xFFFFFFFF


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """float64 in [−1, 1). The hash is C. Wellons' lowbias32."""
    x = (torch.arange(torch.Size(shape).numel()) + seed * 0x9E3779B9) & MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return ((x ^ (x >> 16)).double() / 2**31 - 1).reshape(shape)


def fill(tensors: list[Tensor]) -> None:
    """Parameters and buffers of a network of 2-d convolutions, norms and linear layers, in state-dict order.

    Convolution and linear weights are uniform with a variance of 2 / fan-in, norm weights near 1, other vectors
    near 0; running statistics are recognised by what they start at and left alone.
    """
    for seed, t in enumerate(tensors):
        if t.dim() == 0 or not isinstance(t, nn.Parameter):
            continue
        if t.dim() > 1:
            values = noise(tuple(t.shape), seed) * (6 / t[0].numel()) ** 0.5
        else:
            values = t.detach().mean().round() + 0.3 * noise(tuple(t.shape), seed)
        t.data.copy_(values)


def fingerprint(t: Tensor) -> list[float]:
    """Two numbers that a tensor of that shape hardly shares with another: its norm and a fixed projection."""
    t = t.detach().double()
    return [float(t.norm()), float((t * noise(tuple(t.shape), 1)).sum())]
