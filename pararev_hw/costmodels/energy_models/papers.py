"""The figure of papers on spiking networks: computation alone, in 45 nm.

    E = 4.6 pJ x MACs of layers with analog input + 0.9 pJ x SOPs of layers with spiking input

4.6 pJ is a float32 multiplication (3.7 pJ) and addition (0.9 pJ), 0.9 pJ the addition: M. Horowitz, "Computing's energy
problem", ISSCC 2014, table 1.1.9. No memory, no addressing, no neurons, no leakage; inference.

By hand, `docs/how-each-joule-arises.md`: 6 x 8 x 8 x 18 = 6,912 MACs -> 6,912 x 4.6 pJ = 31.8 nJ.
"""

from __future__ import annotations

from collections.abc import Mapping

from pararev_hw.costmodels.energy_models.layer_work import LayerWork
from pararev_hw.types.energy import ACCUMULATE_J

SOURCE = "45 nm, float32: Horowitz, ISSCC 2014"
MAC_J = 4.6e-12
NOT_MODELLED = ("memory", "addressing", "neuron updates", "leakage", "backward and update")


def energy(work: LayerWork) -> Mapping[str, float]:
    """Joules of one layer's pass, by part."""
    return {"ac": ACCUMULATE_J * work.sops} if work.sops is not None else {"mac": MAC_J * work.macs}
