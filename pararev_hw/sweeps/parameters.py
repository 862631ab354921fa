"""What varies: parameters with their values or ranges, and the numbered space of all their combinations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pararev_hw.sweeps.columns import Floats, Ints

Scale = Literal["linear", "log", "powers_of_two"]
Value = float | str
BLOCK = 4096  # rows that random draws are made for at a time


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter with its values, or with a range that has no end of values (`values` empty)."""

    name: str
    values: tuple[Value, ...]
    low: float = 0.0
    high: float = 0.0
    scale: Scale = "linear"

    @property
    def continuous(self) -> bool:
        return not self.values

    def at(self, share: Floats) -> Floats:
        """Values of a range without steps at shares 0..1 of it."""
        if self.scale == "log":
            return geometric(self.low, self.high, share)
        return np.asarray(self.low + (self.high - self.low) * share)


def geometric(low: float, high: float, share: Any) -> Floats:
    """The value at a share 0..1 of the way from `low` to `high` on a logarithmic scale."""
    ratio = high / low
    if math.isinf(ratio) or not ratio:
        return np.asarray(np.exp(math.log(low) + (math.log(high) - math.log(low)) * share))
    return np.asarray(low * ratio**share)


def stepped(low: float, high: float, scale: Scale, steps: int | None) -> tuple[float, ...]:
    """The values of a range: `steps` of them, ends included; every power of two; () where there are no steps."""
    if scale == "powers_of_two":
        first, last = math.ceil(math.log2(low) - 1e-12), math.floor(math.log2(high) + 1e-12)
        return tuple(2.0**k for k in range(first, last + 1))
    if steps is None:
        return ()
    if steps == 1:
        return (low,)
    shares = [k / (steps - 1) for k in range(steps)]
    if scale == "log":
        return (low, *(float(geometric(low, high, s)) for s in shares[1:-1]), high)
    return (low, *(low + (high - low) * s for s in shares[1:-1]), high)


@dataclass(frozen=True, slots=True)
class Space:
    """All combinations of parameters, numbered: the last parameter changes fastest."""

    parameters: tuple[Parameter, ...]

    @property
    def combinations(self) -> int | None:
        """How many there are, None where a range has no steps."""
        if any(p.continuous for p in self.parameters):
            return None
        return math.prod(len(p.values) for p in self.parameters)

    def grid(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """The combinations `start` to `stop`: a column per parameter."""
        rows = np.arange(start, stop, dtype=np.int64)
        picked: dict[str, Ints] = {}
        for p in reversed(self.parameters):
            rows, picked[p.name] = np.divmod(rows, len(p.values))
        return self.chosen(picked, {})

    def random(self, start: int, stop: int, seed: int) -> dict[str, NDArray[Any]]:
        """Draws `start` to `stop` of a row of independent uniform draws, the same however it is cut."""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        draws = [np.random.default_rng([seed, b]).random((len(self.parameters), BLOCK)) for b in blocks]
        offset = start - blocks.start * BLOCK
        shares = np.concatenate(draws, axis=1)[:, offset : offset + stop - start]
        picked, free = {}, {}
        for p, share in zip(self.parameters, shares, strict=True):
            if p.continuous:
                free[p.name] = p.at(share)
            else:
                picked[p.name] = (share * len(p.values)).astype(np.int64)
        return self.chosen(picked, free)

    def chosen(self, picked: Mapping[str, Ints], free: Mapping[str, Floats]) -> dict[str, NDArray[Any]]:
        """Columns from indices into listed values, and from values of ranges, in the parameters' order."""
        columns: dict[str, NDArray[Any]] = {}
        for p in self.parameters:
            columns[p.name] = free[p.name] if p.continuous else np.array(p.values)[picked[p.name]]
        return columns
