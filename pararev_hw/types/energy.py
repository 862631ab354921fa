"""Energy by a model of the literature: joules of each layer in each phase, beside what a device takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pararev_hw.types.base import Phase

# A float32 addition in 45 nm, the figure that papers on spiking networks multiply SOPs with: Horowitz, ISSCC 2014.
ACCUMULATE_J = 0.9e-12


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Joules of one layer in one phase, by part."""

    module: str
    phase: Phase
    parts_j: Mapping[str, float]

    @property
    def total_j(self) -> float:
        return math.fsum(self.parts_j.values())


@dataclass(frozen=True, slots=True)
class ModelEnergy:
    """A step's energy by one model, for all samples, with what that model leaves out."""

    model: str
    source: str
    layers: tuple[LayerEnergy, ...]
    not_modelled: tuple[str, ...]

    @property
    def by_phase(self) -> Mapping[Phase, float]:
        phases = dict.fromkeys(layer.phase for layer in self.layers)
        return {p: math.fsum(layer.total_j for layer in self.layers if layer.phase == p) for p in phases}

    @property
    def total_j(self) -> float:
        return math.fsum(layer.total_j for layer in self.layers)

    def document(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "name": self.model,
            "source": self.source,
            "total_j": self.total_j,
            "by_phase": dict(self.by_phase),
            "not_modelled": list(self.not_modelled),
            "layers": [
                {"module": e.module, "phase": e.phase, "total_j": e.total_j, "parts_j": dict(e.parts_j)}
                for e in self.layers
            ],
        }
