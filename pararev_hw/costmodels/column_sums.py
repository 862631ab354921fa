"""Sums over many configurations at once that do not depend on which configurations are evaluated together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def column_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of each column of [rows, B], to the last bit the same whatever columns stand beside it.

    numpy adds row by row where there are several columns, in pairs where there is one, and BLAS in blocks: rows of a
    sweep would then depend on where it was stopped.
    """
    beside = values if values.shape[1] != 1 else np.repeat(values, 2, axis=1)
    total: NDArray[np.float64] = np.add.reduce(beside, axis=0)
    return total[: values.shape[1]]
