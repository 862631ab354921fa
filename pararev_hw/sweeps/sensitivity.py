"""How much each parameter matters: an additive model of log(objective), fitted to all possible rows as they stream by.

Each parameter's value, or bin of values, has an effect of its own; the effects are fitted together by least squares,
which holds for samples whose parameters are not independent too (after constraints, or of a search). With y = log of
the objective and f_i the effect of parameter i,

    share(i) = cov(f_i, y) / var(y)        sum over i = R^2 of the model,        interactions = 1 - R^2

On a full grid, and on independent draws but for chance, share(i) is the first-order Sobol index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product

import numpy as np

from pararev_hw.sweeps.columns import Floats, Ints


@dataclass(slots=True)
class AdditiveFit:
    """Sums over rows that the fit needs. `sizes` are the numbers of bins of each parameter, by name."""

    sizes: Mapping[str, int]
    count: int = 0
    _gram: Floats = field(init=False, repr=False)
    # of each objective y: sums over rows of y, of y^2, and of y in each bin, in two parts
    _sums: dict[str, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        total = sum(self.sizes.values())
        self._gram = np.zeros((total, total))

    def add(self, bins: Mapping[str, Ints], logs: Mapping[str, Floats]) -> None:
        """More rows: the bin of each parameter, the logarithm of each objective."""
        n = len(next(iter(logs.values())))
        self.count += n
        firsts = accumulate(self.sizes.values(), initial=0)
        columns = [(bins[name], first, size) for (name, size), first in zip(self.sizes.items(), firsts, strict=False)]
        for (a, first, size), (b, second, width) in product(columns, columns):
            pairs = np.bincount(a * width + b, minlength=size * width).reshape(size, width)
            self._gram[first : first + size, second : second + width] += pairs
        for objective, y in logs.items():
            products = [np.bincount(column, y, minlength=size) for column, _, size in columns]
            self._add_sums(objective, np.concatenate(([y.sum(), (y**2).sum()], *products)))

    def merge(self, other: AdditiveFit) -> None:
        """The rows of another fit of the same bins."""
        self.count += other.count
        self._gram += other._gram
        for objective, (sums, rest) in other._sums.items():
            self._add_sums(objective, sums)
            self._sums[objective][1][:] += rest

    def _add_sums(self, objective: str, more: Floats) -> None:
        """Knuth's two-sum: what the sum loses by rounding is kept beside it, so that no order of parts shows."""
        before, rest = self._sums.get(objective, (np.zeros(len(more)), np.zeros(len(more))))
        total = before + more
        added = total - before
        self._sums[objective] = total, rest + ((before - (total - added)) + (more - added))

    def shares(self, objective: str) -> dict[str, float | None]:
        """Parameter -> its share of the variance, largest first; None where nothing was possible."""
        if not self.count:
            return dict.fromkeys(self.sizes)
        first, second, *products = np.add(*self._sums[objective]).tolist()
        mean = first / self.count
        variance = second / self.count - mean**2
        if variance <= 1e-18 * max(1.0, mean**2) or not self.sizes:
            return dict.fromkeys(self.sizes, 0.0)
        centred = np.array(products) - np.diag(self._gram) * mean  # sum over rows of a bin of y - mean
        effects = np.linalg.lstsq(self._gram, centred, rcond=1e-10)[0]
        shares: dict[str, float] = {}
        start = 0
        for name, size in self.sizes.items():
            part = slice(start, start + size)
            shares[name] = float(effects[part] @ centred[part]) / self.count / variance
            start += size
        return {name: shares[name] for name in sorted(shares, key=lambda n: (-shares[n], n))}

    def interactions(self, objective: str) -> float | None:
        """The share that no sum of single effects explains."""
        shares = [s for s in self.shares(objective).values() if s is not None]
        if not self.count:
            return None
        return min(1.0, max(0.0, 1.0 - sum(shares))) if any(shares) else 0.0


def ordered_bins(values: Sequence[float], column: Floats, most: int) -> Ints:
    """Which of the listed values each row has, neighbours together where there are more than `most` of them."""
    order = np.argsort(np.asarray(values, np.float64))
    ordered = np.asarray(values, np.float64)[order]
    at = np.searchsorted(ordered, column).clip(0, len(ordered) - 1)
    size = min(len(ordered), most)
    return (at * size // len(ordered)).astype(np.int64)
