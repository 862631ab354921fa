"""How much chip a configuration takes: of two that are as good, the one with less is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pararev_hw.devices import PARAMETERS
from pararev_hw.sweeps.arrow_arrays import arrow_array, numpy_array
from pararev_hw.sweeps.spec import Sweep

# Parameters of which more is more chip: units of sizes, counts and rates.
_UNITS = frozenset(("byte", "count", "byte/s", "1/s", "flop/s", "byte/cycle"))


def hardware(parameters: Mapping[str, Any], sweep: Sweep) -> float:
    """How much chip a configuration takes: the logarithms of its sizes, counts and rates together."""
    sizes = [
        float(v) for name, v in parameters.items() if not isinstance(v, str | bool) and v and v > 0 and tells_size(name)
    ]
    return float(np.log(sizes).sum()) if sizes else 0.0


def tells_size(name: str) -> bool:
    """Whether more of a parameter is more chip."""
    return name == "lanes" or (name in PARAMETERS and PARAMETERS[name].unit in _UNITS)


def least_hardware(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows that take the least chip in these columns, and those that differ from them by rounding alone."""
    sizes = np.zeros(table.num_rows)
    for name in columns:
        if not pa.types.is_dictionary(table[name].type):
            values = numpy_array(table[name]).astype(np.float64)
            sizes += np.log(np.where(values > 0, values, 1.0))
    return table.filter(arrow_array(sizes <= sizes.min() + 1e-6))
