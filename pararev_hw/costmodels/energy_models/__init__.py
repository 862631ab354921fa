"""Energy models of the literature, beside the device's own: one file each, with its equations and its source.

They see layers, not hardware: the work of a layer's forward pass and its spikes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from pararev_hw.costmodels.energy_models import compute_in_memory, lemaire2022, papers
from pararev_hw.costmodels.energy_models.layer_work import LayerWork, layer_works
from pararev_hw.errors import unknown_name
from pararev_hw.types import BlockGraph, LayerEnergy, ModelEnergy, Study

DEVICE = "device"  # the name of the device's own model
MODELS: Mapping[str, ModuleType] = {
    "papers": papers,
    "lemaire2022": lemaire2022,
    "compute-in-memory": compute_in_memory,
}


def check_name(model: str) -> None:
    """Raises UnknownName."""
    if model != DEVICE and model not in MODELS:
        raise unknown_name("energy model", model, (DEVICE, *MODELS))


def model_energy(graph: BlockGraph, model: str) -> ModelEnergy:
    """The energy of a step's layers by the model of the literature of that name. Raises UnknownName."""
    if model not in MODELS:
        raise unknown_name("energy model of the literature", model, tuple(MODELS))
    return _energy_of(layer_works(graph), model)


def _energy_of(works: Sequence[LayerWork], model: str) -> ModelEnergy:
    chosen = MODELS[model]
    layers = tuple(LayerEnergy(w.module, w.phase, chosen.energy(w)) for w in works)
    return ModelEnergy(model, chosen.SOURCE, layers, chosen.NOT_MODELLED)


def forward_j_by_model(graph: BlockGraph) -> Mapping[str, float]:
    """Joules of the layers' forward pass, all samples, by every model's name."""
    works = layer_works(graph)
    return {name: _energy_of(works, name).by_phase.get("forward", 0.0) for name in MODELS}


def with_energy_model(study: Study, model: str) -> Study:
    """The study with the energy of its step as traced by that model; "device" leaves it as it is. Raises
    UnknownName."""
    check_name(model)
    return study if model == DEVICE else replace(study, energy_model=model_energy(study.graph, model))
