"""Weights held in memristor arrays that multiply where they stand: energy of row drivers, array reads and converters.

    arrays       = ceil(fan-in / 128) x ceil(8 columns / 128)     8 cells of 2 bits are a weight
    reads        = (outputs / columns) x arrays x input bits           input bits: 1 spiking, 16 analog
    energy       = reads x (E_array + 128 E_ADC) + active rows x E_DAC x ceil(8 columns / 128)
    active rows  = spikes x the outputs they reach / columns, or MACs / columns x input bits

ISAAC, table 5 (A. Shafiee et al., ISCA 2016, 32 nm): an array of 128 x 128 takes 0.3 mW for reads of 100 ns, 30 pJ; an
8-bit converter 2 mW at 1.28 GSamples/s, 1.6 pJ; a 1-bit driver 3.9 uW for 100 ns, 0.39 pJ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pararev_hw.costmodels.energy_models.layer_work import LayerWork

SOURCE = "32 nm memristor arrays: ISAAC, Shafiee et al., ISCA 2016"
ROWS = COLUMNS = 128
CELLS_PER_WEIGHT = 8
ANALOG_BITS = 16
ARRAY_READ_J = 0.3e-3 * 100e-9
ADC_J = 2e-3 / 1.28e9
DRIVER_J = 3.9e-6 * 100e-9
NOT_MODELLED = (
    "buffers and the network between tiles",
    "neuron updates",
    "leakage",
    "backward, update and writing weights",
)


def energy(work: LayerWork) -> Mapping[str, float]:
    """Joules of one layer's pass, by part."""
    across = math.ceil(work.columns * CELLS_PER_WEIGHT / COLUMNS)
    bits = 1 if work.spiking else ANALOG_BITS
    reads = work.outputs / work.columns * math.ceil(work.fan_in / ROWS) * across * bits
    active = (work.sops if work.sops is not None else work.macs * bits) / work.columns
    return {"array": reads * ARRAY_READ_J, "adc": reads * COLUMNS * ADC_J, "dac": active * across * DRIVER_J}
