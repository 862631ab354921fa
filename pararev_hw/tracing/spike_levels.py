"""Which values of a tensor are those of spikes, 0 and one constant, or small multiples of one; how many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pararev_hw.errors import BadInput

LARGEST_SUM = 64  # an integer activation beyond this is no sum of spikes
TOLERANCE = 1e-5  # a straight-through estimator leaves spikes of 1 + 1e-7
_UNEVEN = 1e-3  # how far from a whole number of spikes a value may be
_PARTS = 8  # the least of several values may be this many spikes
_PART = 1024  # elements that are looked at first
_BYTE = 255


def active_places(x: torch.Tensor) -> tuple[torch.Tensor, float | None]:
    """How many elements along the first axis are not 0, in 64 bits, and the one value of all of them (0.0: there are
    none); None where they have several, or nobody looked."""
    if x.dtype is torch.float32 and x.numel():
        low, high = (float(v) for v in torch.aminmax(x))
        if low == 0 and 0 < high < math.inf:
            # sums are many times as fast as comparisons: of the values, and of their bits, which tell the rest apart
            numbers = x.sum(dim=0) if high == 1 else (x.sum(dim=0) / high).round()
            bits = x.view(torch.int32).sum(dim=0, dtype=torch.int32)
            told_apart = numbers.to(torch.int32) * int(torch.tensor(high).view(torch.int32))
            # a value that all elements of a place share may fall on the same sums: one row has it too
            if bool(((x[0] == 0) | (x[0] == high)).all()) and torch.equal(told_apart, bits):
                return numbers.double(), high
    if x.dtype is torch.bool:
        return true_places(x).double(), 1.0
    return true_places(x != 0).double(), None


def true_places(mask: torch.Tensor) -> torch.Tensor:
    """How often a mask is true along its first axis."""
    # bytes that do not overflow are several times as fast as wider numbers
    parts = mask.view(torch.uint8).split(_BYTE)
    sums = [part.sum(dim=0, dtype=torch.uint8) for part in parts]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(dim=0, dtype=torch.int32)


def are_spikes(levels: set[float] | None) -> bool:
    """Whether values are those of spikes, wherever they come from."""
    if not levels:
        return False
    return len({abs(v) for v in levels}) == 1 or all(v > 0 and v == round(v) for v in levels)


def common_unit(levels: Sequence[float]) -> float | None:
    """The number of which all `levels`, in rising order, are small multiples."""
    if all(v == round(v) for v in levels):
        return float(math.gcd(*map(round, levels)))
    for parts in range(1, _PARTS + 1):
        unit = levels[0] / parts
        multiples = [v / unit for v in levels]
        if multiples[-1] <= LARGEST_SUM + 0.5 and all(abs(m - round(m)) <= _UNEVEN for m in multiples):
            return unit
    return None


def levels_of(x: torch.Tensor, where: str, active: int | None = None) -> set[float] | None:
    """The values of a tensor that may hold spikes, other than 0, a negative one where there are any; None where it is
    analog. `active`: how many are not 0, where that is counted already."""
    if x.dtype is torch.bool:
        return {1.0}
    low, high = (float(v) for v in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadInput(f"the input of {where or 'the network'} is not finite: no spikes can be counted")
    top = max(high, -low)
    if top == 0:
        return set()
    if low < 0 and _varied(x):
        return None
    sign = {-top} if low < 0 else set()
    sizes = x.abs() if low < 0 else x
    if active is not None and int(torch.count_nonzero(sizes == top)) == active:
        return {top} | sign
    if _varied(x):
        return None
    if bool(((x == 0) | ((sizes - top).abs() <= TOLERANCE * top)).all()):
        return {top} | sign
    levels = _multiples(sizes, top)
    return None if levels is None else levels | sign


def _varied(x: torch.Tensor) -> bool:
    """Whether a part of a tensor has more values than spikes have, which spares a look at the whole."""
    part = x
    while part.dim() > 1 and part.numel() > _PART:
        part = part[part.shape[0] // 2]
    part = part[:_PART] if part.dim() else part
    return len(torch.unique(part.abs())) > LARGEST_SUM + 1


def _multiples(sizes: torch.Tensor, top: float) -> set[float] | None:
    """The values other than 0 of a tensor of small integers, or of small multiples of a constant."""
    unit: float | None = 1.0
    if top != round(top) or top > LARGEST_SUM or not bool((sizes == sizes.round()).all()):
        unit = _unit_of(sizes, float(torch.where(sizes > 0, sizes, top).min()), top)
    if unit is None:
        return None
    present = torch.bincount((sizes / unit).round().flatten().to(torch.int64)).nonzero().flatten().tolist()
    return {v * unit for v in present if v}


def _unit_of(sizes: torch.Tensor, least: float, top: float) -> float | None:
    """The number of which all values are small multiples: a part of the least."""
    for parts in range(1, _PARTS + 1):
        unit = least / parts
        if top / unit > LARGEST_SUM + 0.5:
            return None
        multiples = sizes / unit
        if float((multiples - multiples.round()).abs().max()) <= _UNEVEN:
            return unit
    return None
