"""A schedule as JSON-ready data, and back: what `schedule --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pararev_hw.types import Schedule, SchedulingProblem
from pararev_hw.types.codec import from_fields


def energy_document(parts: Mapping[str, float]) -> dict[str, float]:
    """Energy parts with `compute`: MACs, accumulations, synaptic events and elementwise operations together."""
    return {"compute": sum(parts.get(p, 0.0) for p in ("mac", "ac", "vector", "synapse")), **parts} if parts else {}


def _placements_document(schedule: Schedule) -> list[dict[str, Any]]:
    return [{"task": p.task, "lane": p.lane, "start_s": p.start_s, "end_s": p.end_s} for p in schedule.placements]


def bare_schedule_document(schedule: Schedule, costs: SchedulingProblem) -> dict[str, Any]:
    """A schedule of a bare task graph as JSON-ready data."""
    return _document(schedule) | {
        "front": [_document(point) for point in schedule.front],
        "assumptions": list(costs.assumptions),
        "not_modelled": list(costs.not_modelled),
    }


def _document(schedule: Schedule) -> dict[str, Any]:
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
    }


def is_schedule(document: object) -> bool:
    """Whether a JSON document is what `pararev-hw schedule` wrote."""
    return isinstance(document, Mapping) and {"makespan_s", "lower_bound_s", "placements"} <= document.keys()


def schedule_from_document(document: Mapping[str, Any], where: str) -> Schedule:
    """The schedule that `pararev-hw schedule` wrote. Raises BadFile, one line that begins with `where`."""
    return from_fields(_fields(document), Schedule, where)


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a schedule, unchecked; the points of a front by 0.1.0 share those that they do not name."""
    fields = {name: document[name] for name in Schedule.__dataclass_fields__ if name in document}
    if isinstance(energy := fields.get("energy_j"), Mapping):
        fields["energy_j"] = {part: joules for part, joules in energy.items() if part != "compute"}
    if isinstance(waits := fields.get("waits"), list):
        fields["waits"] = [tuple(wait.values()) if isinstance(wait, Mapping) else wait for wait in waits]
    if isinstance(front := fields.get("front"), list):
        shared = fields | {"front": [], "chosen": [], "notes": []}
        fields["front"] = [_fields({**shared, **point}) if isinstance(point, Mapping) else point for point in front]
    return fields
