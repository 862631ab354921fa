"""The document behind every report: `report.json`, plain JSON in SI units, with the keys that scripts rely on."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pararev_hw import limits
from pararev_hw.graph.process_memory import process_memory
from pararev_hw.reports.columns import edge_columns, path_columns, placement_columns, task_columns
from pararev_hw.reports.insight_lines import insights
from pararev_hw.reports.phrasing import answer, parallel_limit, ratio
from pararev_hw.types import (
    SCHEMA_VERSION,
    BlockGraph,
    CriticalPath,
    Device,
    Layer,
    Placement,
    Prediction,
    Recommendation,
    Study,
)
from pararev_hw.types.energy import ACCUMULATE_J


def total_sops(graph: BlockGraph) -> int | None:
    """Synaptic operations of the step, None where no task's are known."""
    counts = [t.sops for t in graph.tasks if t.sops is not None]
    return sum(counts) if counts else None


def report_document(study: Study) -> dict[str, Any]:
    """The study as JSON-ready data: model, device, answer, totals, predictions, critical path, tasks, assumptions."""
    graph = study.graph
    sops = total_sops(graph)
    many = len(graph.tasks) > limits.MANY_TASKS
    number = {t.id: k for k, t in enumerate(graph.tasks)} if many else None
    return {
        "schema_version": SCHEMA_VERSION,
        "answer": answer(study),
        "insights": list(insights(study)),
        "model": graph.model,
        "mode": graph.mode,
        "batch": graph.batch,
        "timesteps": graph.timesteps,
        "dtype": graph.arithmetic,
        "granularity": graph.granularity,
        "input_shapes": [list(shape) for shape in graph.input_shapes],
        "parameters": graph.parameters,
        "device": _device(study.device),
        "totals": {
            "tasks": len(graph.tasks),
            "ops": len(graph.ops),
            "flops": sum(t.flops for t in graph.tasks),
            "vector_flops": sum(t.vector_flops for t in graph.tasks),
            "macs": sum(t.macs for t in graph.tasks),
            "sops": sops,
            "read_bytes": sum(t.read_bytes for t in graph.tasks),
            "write_bytes": sum(t.write_bytes for t in graph.tasks),
            "unknown_ops": dict(graph.unknown_ops),
            "latency_s": study.chosen.latency_s,
            "sequential_latency_s": study.sequential.latency_s,
            "speedup": ratio(study.sequential.latency_s, study.chosen.latency_s),
            "parallel_limit": parallel_limit(study),
            "peak_bytes": study.chosen.peak_bytes,
            "energy_j": study.chosen.energy_j.get("total"),
            "compute_only_energy_j": None if sops is None else sops * ACCUMULATE_J,
            "forward_j_by_model": dict(study.forward_j_by_model),
        },
        **({} if study.energy_model is None else {"energy_model": study.energy_model.document()}),
        "memory": asdict(graph.memory),
        "process_memory": _process_memory(study),
        "spikes": None if graph.spikes is None else asdict(graph.spikes),
        "eager_s": _eager_s(study),
        "power": _power(study),
        "memory_limit_bytes": study.memory_limit_bytes,
        "recommendations": [_recommendation(r) for r in study.recommendations],
        "front": [{"latency_s": p.latency_s, "peak_bytes": p.peak_bytes} for p in study.front],
        "not_searched": list(study.not_searched),
        "best": study.best,
        "predictions": [prediction_document(p, number) for p in study.predictions],
        "layers": [layer_document(layer) for layer in study.layers],
        "critical_path": _critical_path(study.critical_path, number),
        **_tasks_and_edges(graph, by_column=many),
        "mapping": None if study.chip is None else study.chip.document(),
        "assumptions": assumptions(study),
        "not_modelled": not_modelled(study),
    }


_TASK_KEYS = ("id", "block", "branch", "phase", "flops", "vector_flops", "read_bytes", "write_bytes")


def _tasks_and_edges(graph: BlockGraph, by_column: bool) -> dict[str, Any]:
    tasks, edges = graph.tasks, graph.edges
    if not by_column:
        rows = [{**{key: getattr(t, key) for key in _TASK_KEYS}, "ops": len(t.ops), "sops": t.sops} for t in tasks]
        flows = [{"src": tasks[e.src].id, "dst": tasks[e.dst].id, "bytes": e.bytes} for e in edges]
        return {"tasks": rows, "edges": flows}
    return {"task_columns": task_columns(tasks), "edge_columns": edge_columns(edges)}


def _critical_path(path: CriticalPath, number: Mapping[str, int] | None) -> dict[str, Any]:
    by_phase = {phase: list(ids) for phase, ids in path.by_phase.items()}
    tasks = {"tasks": list(path.tasks), "by_phase": by_phase} if number is None else path_columns(path, number)
    return {**tasks, "length": path.length, "weight": path.weight}


def layer_document(layer: Layer) -> dict[str, Any]:
    """A layer as JSON-ready data."""
    shapes = {k: None if (v := getattr(layer, k)) is None else list(v) for k in ("input_shape", "output_shape")}
    return asdict(layer) | shapes


def _process_memory(study: Study) -> dict[str, int] | None:
    """What a process that takes the step eagerly holds on a GPU; None for other devices."""
    peak = study.sequential.eager_peak_bytes
    return None if study.device.kind != "gpu" or peak is None else asdict(process_memory(peak))


def _power(study: Study) -> dict[str, float | None] | None:
    """Watts of the board and joules of the recommended step, and how far they may be off; None for other devices."""
    error = study.chosen.expected_error
    total = study.chosen.energy_j.get("total")
    if study.device.kind != "gpu" or total is None:
        return None
    return {
        "watts": study.chosen.power_w,
        "joules_per_step": total,
        "joules_per_sample": total / study.graph.batch,
        "expected_error_of_watts": None if error is None else error.power,
        "expected_error_of_joules": None if error is None else error.energy,
    }


def _eager_s(study: Study) -> float | None:
    """Seconds of the step as eager PyTorch runs it; None where that is not among what was tried."""
    if study.device.kind not in ("cpu", "gpu"):
        return None
    as_traced = [p for p in study.predictions if p.scheduler == "sequential" and not p.choices]
    return next((p.latency_s for p in as_traced if p.launch == "eager"), None)


def _recommendation(recommendation: Recommendation) -> dict[str, Any]:
    p = recommendation.prediction
    return {
        "name": recommendation.name,
        "latency_s": p.latency_s,
        "peak_bytes": p.peak_bytes,
        "energy_j": p.energy_j.get("total"),
        "scheduler": p.scheduler,
        "lanes": p.schedule.lanes,
        "launch": p.launch,
        "choices": list(p.choices),
    }


def prediction_document(prediction: Prediction, number: Mapping[str, int] | None = None) -> dict[str, Any]:
    """One prediction: its schedule's fields, and what it costs when it is played. Placements of many tasks are given by
    column, where `number` says which task of the report each is."""
    schedule = prediction.schedule
    return {
        "device": prediction.device,
        "scheduler": prediction.scheduler,
        "launch": prediction.launch,
        "choices": list(prediction.choices),
        "lanes": schedule.lanes,
        "latency_s": prediction.latency_s,
        "expected_error": None if prediction.expected_error is None else asdict(prediction.expected_error),
        "host_s": prediction.host_s,
        "lane_busy_s": list(prediction.lane_busy_s),
        "makespan_s": schedule.makespan_s,
        "sequential_s": schedule.sequential_s,
        "speedup": schedule.speedup,
        "lower_bound_s": schedule.lower_bound_s,
        "bound_by": schedule.bound_by,
        "gap": schedule.gap,
        "optimal": schedule.optimal,
        "peak_bytes": prediction.peak_bytes,
        "eager_peak_bytes": prediction.eager_peak_bytes,
        "energy_j": dict(prediction.energy_j),
        "power_w": prediction.power_w,
        "energy_by_phase_j": {phase: dict(parts) for phase, parts in prediction.energy_by_phase_j.items()},
        "time_by_phase_s": dict(prediction.time_by_phase_s),
        "standing": prediction.provenance,
        **_placements(schedule.placements, number),
    }


def _placements(placements: Sequence[Placement], number: Mapping[str, int] | None) -> dict[str, Any]:
    if number is None:
        rows = [{"task": p.task, "lane": p.lane, "start_s": p.start_s, "end_s": p.end_s} for p in placements]
        return {"placements": rows}
    return {"placement_columns": placement_columns(placements, number)}


def assumptions(study: Study) -> list[str]:
    """What was assumed, by the trace and by the sequential and chosen predictions, each once, in that order."""
    spikes = study.graph.spikes
    assumed = [f"spike rates: {spikes.source}"] if spikes is not None and not spikes.measured else []
    of_step = (*study.graph.assumptions, *study.chosen_graph.assumptions)
    of_schedules = (*study.sequential.assumptions, *study.chosen.assumptions)
    return list(dict.fromkeys((*of_step, *assumed, *of_schedules, *study.device.notes)))


def not_modelled(study: Study) -> list[str]:
    """What the predictions leave out, each once; ops without a formula are among it."""
    unknown = study.graph.unknown_ops
    ops = [f"the arithmetic of {name} ({n} in the step), which has no formula" for name, n in unknown.items()]
    return list(dict.fromkeys((*study.sequential.not_modelled, *study.chosen.not_modelled, *ops)))


def _device(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "title": device.title,
        "kind": device.kind,
        "lanes": device.lanes,
        "standing": device.provenance,
        "figures": [
            {"name": name, "value": p.value, "source": p.source, "standing": p.provenance}
            for name, p in sorted(device.parameters.items())
        ],
        "notes": list(device.notes),
    }


def dump(document: Mapping[str, Any]) -> str:
    """Strict JSON text, what holds no other things on one line: what is not finite is null, since JSON has no word for
    it."""
    return "".join(_text(document, "\n")) + "\n"


_ENCODER = json.JSONEncoder(allow_nan=False)
_COLUMNS = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_COLUMN = 1000  # items from which on a list has no spaces
_BREAK = "\x01"  # between items: JSON text holds no control character inside a string
_ROWS = json.JSONEncoder(allow_nan=False, separators=(_BREAK, ": "))
_PLAIN = frozenset((str, int, float, bool, type(None)))


def _rows_text(rows: Sequence[Mapping[str, Any]], line: str) -> str:
    """Mappings as items of a JSON list, each on a line that begins as `line` says, encoded all at once: an encoder for
    each row takes longer than its work. Raises ValueError where a number is not finite."""
    return _ROWS.encode(rows)[1:-1].replace("}" + _BREAK + "{", "}," + line + "{").replace(_BREAK, ", ")


def _text(value: Any, line: str) -> Iterator[str]:
    """Pieces of the text of a value; `line` begins a line where it stands."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if not any(issubclass(t, Mapping | list | tuple) for t in {*map(type, inner)}):
        yield _encoded(value)
        return
    begins = line + " "
    if isinstance(value, Mapping):
        for k, (key, v) in enumerate(value.items()):
            yield f"{',' if k else '{'}{begins}{_ENCODER.encode(str(key))}: "
            yield from _text(v, begins)
        yield line + "}"
        return
    if all(type(v) is dict for v in value) and {type(cell) for v in value for cell in v.values()} <= _PLAIN:
        with contextlib.suppress(TypeError, ValueError):
            yield f"[{begins}{_rows_text(value, begins)}{line}]"
            return
    for k, v in enumerate(value):
        yield ("," if k else "[") + begins
        yield from _text(v, begins)
    yield line + "]"


def _encoded(value: Any) -> str:
    """A value on one line."""
    encoder = _COLUMNS if isinstance(value, list) and len(value) >= _COLUMN else _ENCODER
    try:
        return encoder.encode(value)
    except (TypeError, ValueError):  # a mapping that is no dict, or what is not finite
        return _ENCODER.encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
