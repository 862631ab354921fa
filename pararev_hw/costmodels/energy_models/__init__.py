"""Energy models of the literature, beside the device's own: one file each, with its equations and its source.

They see layers, not hardware: the work of a layer's forward pass and its spikes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pararev_hw.costmodels.energy_models import compute_in_memory, lemaire2022, papers
from pararev_hw.costmodels.energy_models.layer_work import LayerWork, layer_works
from pararev_hw.errors import unknown_name
from pararev_hw.types import BlockGraph, Phase

MODELS: Mapping[str, ModuleType] = {
    "papers": papers,
    "lemaire2022": lemaire2022,
    "compute-in-memory": compute_in_memory,
}


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """Joules of one layer in one phase, by part."""

    module: str
    phase: Phase
    parts: Mapping[str, float]

    @property
    def total_j(self) -> float:
        return math.fsum(self.parts.values())


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
                {
                    "module": e.module,
                    "phase": e.phase,
                    "total_j": e.total_j,
                    **{f"{k}_j": v for k, v in e.parts.items()},
                }
                for e in self.layers
            ],
        }


def check_name(model: str) -> None:
    """Raises UnknownName."""
    if model not in MODELS:
        raise unknown_name("energy model", model, ("device", *MODELS))


def model_energy(graph: BlockGraph, model: str) -> ModelEnergy:
    """The energy of a step's layers by the model of that name. Raises UnknownName."""
    check_name(model)
    return _energy_of(layer_works(graph), model)


def _energy_of(works: Sequence[LayerWork], model: str) -> ModelEnergy:
    chosen = MODELS[model]
    layers = tuple(LayerEnergy(w.module, w.phase, chosen.energy(w)) for w in works)
    return ModelEnergy(model, chosen.SOURCE, layers, chosen.NOT_MODELLED)


def forward_j_by_model(graph: BlockGraph) -> Mapping[str, float]:
    """Joules of the layers' forward pass, all samples, by every model's name."""
    works = layer_works(graph)
    return {name: _energy_of(works, name).by_phase.get("forward", 0.0) for name in MODELS}
