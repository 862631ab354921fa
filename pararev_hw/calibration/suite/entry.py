"""Entries of the suite, and the shapes that they draw.

Shapes are drawn log-uniformly with a fixed seed. Within an entry every fifth case is held out: it is measured like the
others and never enters a fit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pararev_hw.calibration.cases import Case
from pararev_hw.types import Hole

SEED = 20231123
HELD_OUT_EVERY = 5
USUAL, FEW, MANY = 25, 10, 160  # cases of an entry: what the zoo runs, what others may run, convolutions

X, Y, Z = Hole(0), Hole(1), Hole(2)
Shape = tuple[int, ...]
Option = TypeVar("Option")


class Draw:
    """Log-uniform shapes from one seed."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def log(self, low: int, high: int) -> int:
        """A whole number from low to high, log-uniform; half of those above 16 are multiples of 16, as widths are."""
        value = round(math.exp(self._random.uniform(math.log(low), math.log(high))))
        if value > 16 and self._random.random() < 0.5:
            value = min(high, 16 * round(value / 16))
        return max(low, value)

    def option(self, options: Sequence[Option]) -> Option:
        return self._random.choice(options)

    def integer(self, options: Sequence[int]) -> int:
        return self._random.choice(options)

    def share(self, low: float, high: float) -> float:
        """A number between low and high, log-uniform, to two digits."""
        return float(f"{math.exp(self._random.uniform(math.log(low), math.log(high))):.2g}")

    def flag(self, share: float = 0.5) -> bool:
        return self._random.random() < share

    def image(self, limit: int = 1 << 23, low: int = 4) -> Shape:
        """[N, C, H, H] with at most `limit` elements, and more than one per channel."""
        while True:
            side = self.integer((1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64))
            shape = (self.log(1, 256), self.log(low, 512), side, side)
            if shape[0] * side * side > 1 and math.prod(shape) <= limit:
                return shape

    def elements(self, limit: int = 1 << 23) -> Shape:
        """A shape whose number of elements is log-uniform: the sizes of activations and of parameters."""
        count = self.log(64, limit)
        lead = min(count, self.log(1, 128))
        return (lead, max(1, count // lead))


Make = Callable[[Draw], Case]


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """A row of the suite: cases of one op that are measured the same way."""

    name: str
    make: Make
    count: int = USUAL

    def cases(self) -> Iterator[tuple[Case, bool]]:
        """Cases of this entry, each with whether it is held out."""
        draw = Draw(f"{SEED} {self.name}")
        for k in range(self.count):
            yield self.make(draw), k % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def entry(dtype: str, function: str, make: Make, count: int = USUAL) -> SuiteEntry:
    """The entry of a function in one datatype."""
    return SuiteEntry(f"{function} {dtype}", make, count)
