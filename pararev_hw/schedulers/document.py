"""A schedule as JSON-ready data: what `schedule --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pararev_hw.types import Schedule, SchedulingProblem


def energy_document(parts: Mapping[str, float]) -> dict[str, float]:
    """Energy parts with `compute`: MACs, accumulations, synaptic events and elementwise operations together."""
    return {"compute": sum(parts.get(p, 0.0) for p in ("mac", "ac", "vector", "synapse")), **parts} if parts else {}


def _placements_document(schedule: Schedule) -> list[dict[str, Any]]:
    return [{"task": p.task, "lane": p.lane, "start_s": p.start_s, "end_s": p.end_s} for p in schedule.placements]


def bare_schedule_document(schedule: Schedule, costs: SchedulingProblem) -> dict[str, Any]:
    """A schedule of a bare task graph as JSON-ready data."""
    return {
        "schema_version": schedule.schema_version,
        "device": schedule.device,
        "scheduler": schedule.scheduler,
        "lanes": schedule.lanes,
        "makespan_s": schedule.makespan_s,
        "sequential_s": schedule.sequential_s,
        "speedup": schedule.speedup,
        "lower_bound_s": schedule.lower_bound_s,
        "bound_by": schedule.bound_by,
        "gap": schedule.gap,
        "optimal": schedule.optimal,
        "peak_bytes": schedule.peak_bytes,
        "energy_j": energy_document(schedule.energy_j),
        "placements": _placements_document(schedule),
        "waits": [{"before": before, "after": after} for before, after in schedule.waits],
        "chosen": list(schedule.chosen),
        "notes": list(schedule.notes),
        "front": [
            {
                "makespan_s": point.makespan_s,
                "speedup": point.speedup,
                "peak_bytes": point.peak_bytes,
                "placements": _placements_document(point),
                "waits": [{"before": before, "after": after} for before, after in point.waits],
            }
            for point in schedule.front
        ],
        "assumptions": list(costs.assumptions),
        "not_modelled": list(costs.not_modelled),
    }
