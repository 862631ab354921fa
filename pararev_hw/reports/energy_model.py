"""The energy of a step by a model of the literature, in words."""

from __future__ import annotations

from pararev_hw.reports import units
from pararev_hw.types import ModelEnergy

LARGEST = 3  # layers that are named


def energy_model_lines(energy: ModelEnergy) -> tuple[str, ...]:
    """Its total by phase, the layers that take most, and what the model leaves out."""
    phases = ", ".join(f"{phase} {units.joules(joules)}" for phase, joules in energy.by_phase.items())
    lines = [f"By the energy model {energy.model} ({energy.source}): {phases or 'no layer that it knows'} per step."]
    joules_by_layer: dict[str, float] = {}
    for layer in energy.layers:
        joules_by_layer[layer.module] = joules_by_layer.get(layer.module, 0.0) + layer.total_j
    largest = sorted(joules_by_layer, key=lambda name: -joules_by_layer[name])[:LARGEST]
    if energy.total_j > 0:
        shares = ", ".join(
            f"{name or 'the network itself'} {units.percent(joules_by_layer[name] / energy.total_j)}"
            for name in largest
        )
        lines.append(f"Most of it: {shares}.")
    return (*lines, f"Left out by {energy.model}: {', '.join(energy.not_modelled)}.")
