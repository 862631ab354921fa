"""Many configurations of one accelerator: the figures of a device, some of them replaced by columns of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pararev_hw.costmodels.accelerator.layers import WORDS
from pararev_hw.costmodels.datatypes import figure_for
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.devices.parameters import PARAMETERS
from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.types import Device

_WHOLE = ("lanes", "pe_rows", "pe_columns", "sram_banks")  # what there are only whole ones of


@dataclass(frozen=True, slots=True)
class ConfigTable:
    """Configurations of a device: `columns` [configurations] by figure name, and `lanes` how many cores they have.

    A figure without a column is the device's own.
    """

    device: Device
    columns: Mapping[str, Floats]
    lanes: Floats
    count: int

    def value(self, name: str) -> Floats:
        """A figure in each configuration. Raises BadInput where neither a column nor the device gives it."""
        column = self.columns.get(name)
        return np.full(self.count, self.device.value(name)) if column is None else column

    def get(self, name: str, default: float | Floats) -> Floats:
        """A figure in each configuration, or `default`."""
        return self.value(name) if self.gives(name) else np.broadcast_to(np.asarray(default, np.float64), self.count)

    def gives(self, name: str) -> bool:
        return name in self.columns or name in self.device.parameters

    def take(self, at: NDArray[np.int64]) -> ConfigTable:
        """Some of the configurations."""
        return ConfigTable(self.device, {k: v[at] for k, v in self.columns.items()}, self.lanes[at], len(at))


def config_table(device: Device, columns: Mapping[str, Floats] | None = None) -> ConfigTable:
    """Configurations of `device`: `columns` are arrays of one length by figure name, "lanes" among them if it varies.

    Raises UnknownName for a name that is no figure, BadInput for columns of different lengths or a value that is
    negative, not finite, or zero where a positive one is needed.
    """
    float_columns = {name: np.asarray(values, np.float64) for name, values in (columns or {}).items()}
    lengths = {len(v) for v in float_columns.values()}
    if len(lengths) > 1:
        raise BadInput(f"columns of {', '.join(map(str, sorted(lengths)))} configurations: all must have as many")
    for name, values in float_columns.items():
        if name != "lanes" and name not in PARAMETERS:
            raise unknown_name("device figure", name, ("lanes", *PARAMETERS))
        low, high = (1.0, 1e9) if name == "lanes" else PARAMETERS[name].span
        whole = name in _WHOLE or (name != "lanes" and PARAMETERS[name].whole)
        bad = ~((values >= low) & (values <= high)) | (whole & (values != np.floor(values)))
        if bad.any():
            kind = "a whole number " if whole else ""
            raise BadInput(f"{name} is {values[bad][0]:g}: it must be {kind}between {low:g} and {high:g}")
    count = lengths.pop() if lengths else 1
    table = ConfigTable(device, float_columns, np.full(count, float(device.lanes)), count)
    if np.any(table.get("sram_tile_share", 0.5) + table.get("sram_weight_share", 0.25) > 1 + 1e-12):
        raise BadInput("sram_tile_share and sram_weight_share exceed 1 together: they are parts of one memory")
    lanes = float_columns.pop("lanes", np.full(count, float(device.lanes)))
    return ConfigTable(device, float_columns, lanes, count)


_BITS = ("activation_bits", "weight_bits", "spike_bits", "gradient_bits", "accumulator_bits")


def word_bytes(configs: ConfigTable, traced: int) -> Floats:
    """Bytes of a word of each kind, and of a partial sum: [5, configurations].

    Where the chip gives no width, a word is as wide as in the traced network (`traced` bytes), spikes and gradients
    as activations, and sums at least 4 bytes.
    """
    bits = [configs.get(name, 0.0) / 8 for name in _BITS]
    activation = np.where(bits[0] > 0, bits[0], traced)
    weight = np.where(bits[1] > 0, bits[1], traced)
    spike = np.where(bits[2] > 0, bits[2], activation)
    gradient = np.where(bits[3] > 0, bits[3], activation)
    sums = np.where(bits[4] > 0, bits[4], np.maximum(4.0, np.maximum(activation, weight)))
    widths = np.stack([activation, weight, spike, gradient, sums])
    assert len(widths) == len(WORDS) + 1
    return widths


def by_datatype(configs: ConfigTable, stem: str, traced: str, default: float | Floats | None = None) -> Floats:
    """A figure that depends on the datatype, for the one that each configuration computes in."""
    widest = np.maximum(configs.get("activation_bits", 0.0), configs.get("weight_bits", 0.0))
    values = np.empty(configs.count)
    for bits in np.unique(widest):
        name = figure_for(configs.device, stem, _datatype(float(bits), traced))
        column = configs.value(name) if default is None else configs.get(name, default)
        values[widest == bits] = column[widest == bits]
    return values


def _datatype(bits: float, traced: str) -> str:
    """The datatype of so many bits; 0 bits: the traced one."""
    if bits == 0:
        return traced
    if bits <= 8:
        return "int8"
    return (traced if traced in ("bfloat16", "float16") else "float16") if bits <= 16 else "float32"
