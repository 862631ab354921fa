"""Energy as amounts times prices: summed over a step without being spread over its layers, or spread on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pararev_hw.costmodels.column_sums import column_sums
from pararev_hw.costmodels.traffic import Floats, Ints

Places = Sequence[tuple[Ints, Ints]]  # (rows, distinct products) of the first, second, ... product of a layer


@dataclass(frozen=True, slots=True)
class Amount:
    """What is paid for: `values` [rows or distinct products, configurations or 1] at `price_j` [configurations]."""

    values: Floats
    price_j: Floats
    of_products: bool = False


@dataclass(frozen=True, slots=True)
class Joules:
    """One part of the energy of a table's layers: a sum of amounts. `rows` x `count` is the table's extent."""

    amounts: tuple[Amount, ...]
    places: Places
    rows: int
    count: int

    def by_row(self) -> Floats:
        """Joule [rows, configurations]."""
        joules = np.zeros((self.rows, self.count))
        for a in self.amounts:
            if a.of_products:
                paid = a.values * a.price_j
                for at, k in self.places:
                    joules[at] += paid[k]
            else:
                joules += a.values * a.price_j
        return joules

    def total(self, times: Floats) -> Floats:
        """Joule [configurations] where row r occurs `times[r]` times."""
        joules = np.zeros(self.count)
        for a in self.amounts:
            weights = times
            if a.of_products:
                weights = np.zeros(len(a.values))
                for at, k in self.places:
                    np.add.at(weights, k, times[at])
            joules += column_sums(weights[:, None] * a.values) * a.price_j
        return joules
