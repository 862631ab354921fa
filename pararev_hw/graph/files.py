"""The graph as a JSON document, and back. The keys of `trace --json` are a contract: more may come, none may change.

Ops are written as columns, and op types once, so that a step of tens of thousands of ops is a few megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pararev_hw import limits
from pararev_hw.atomic import write_file
from pararev_hw.documents import parse_json, read_text
from pararev_hw.errors import BadFile
from pararev_hw.graph.critical import critical_path
from pararev_hw.types import (
    CONTROL,
    PHASES,
    ROLES,
    SCHEMA_VERSION,
    BlockGraph,
    Edge,
    LayerSpikes,
    ModuleInfo,
    NeuronSpikes,
    Op,
    OpType,
    Spikes,
    StepMemory,
    Storage,
    Task,
)

MODES: tuple[Literal["train", "infer"], ...] = ("train", "infer")
T = TypeVar("T")


def to_document(graph: BlockGraph) -> dict[str, Any]:
    """The graph as JSON-ready data."""
    path = critical_path(graph)
    ids = [t.id for t in graph.tasks]
    return {
        "schema_version": graph.schema_version,
        "kind": "block_graph",
        "model": graph.model,
        "parameters": graph.parameters,
        "mode": graph.mode,
        "batch": graph.batch,
        "timesteps": graph.timesteps,
        "dtype": graph.dtype,
        "granularity": graph.granularity,
        "input_shapes": [list(s) for s in graph.input_shapes],
        "totals": totals(graph),
        "memory": _fields(graph.memory),
        "critical_path": {
            "tasks": list(path.tasks),
            "length": path.length,
            "weight": path.weight,
            "by_phase": {p: list(tasks) for p, tasks in path.by_phase.items()},
        },
        "tasks": [_task_document(t) for t in graph.tasks],
        "edges": [{"src": ids[e.src], "dst": ids[e.dst], "bytes": e.bytes} for e in graph.edges],
        "unknown_ops": dict(graph.unknown_ops),
        "spikes": None if graph.spikes is None else _spikes_document(graph.spikes),
        "assumptions": list(graph.assumptions),
        "modules": [_fields(m) for m in graph.modules],
        "op_types": [_op_type_document(t) for t in graph.op_types],
        "ops": _ops_document(graph),
        "phases": list(PHASES),
        "storages": {name: [getattr(s, name) for s in graph.storages] for name in Storage.__slots__},
    }


def _fields(noun: ModuleInfo | OpType | Task | StepMemory | Spikes | LayerSpikes | NeuronSpikes) -> dict[str, Any]:
    return {name: getattr(noun, name) for name in noun.__slots__}


def _task_document(task: Task) -> dict[str, Any]:
    return _fields(task) | {"ops": len(task.ops), "op_indices": list(task.ops)}


def _op_type_document(op_type: OpType) -> dict[str, Any]:
    return _fields(op_type) | {
        "input_shapes": [list(s) for s in op_type.input_shapes],
        "output_shapes": [list(s) for s in op_type.output_shapes],
        "attributes": {name: list(value) for name, value in op_type.attributes},
    }


def _ops_document(graph: BlockGraph) -> dict[str, list[Any]]:
    """One list for each property: a step has tens of thousands of ops."""
    return {
        "type": [o.type for o in graph.ops],
        "module": [o.module for o in graph.ops],
        "phase": [PHASES.index(o.phase) for o in graph.ops],
        "reads": [list(o.reads) for o in graph.ops],
        "writes": [list(o.writes) for o in graph.ops],
        "after": [list(o.after) for o in graph.ops],
    }


def totals(graph: BlockGraph) -> dict[str, int | None]:
    """The graph's totals as JSON-ready data."""
    return asdict(graph.totals)


def _spikes_document(spikes: Spikes) -> dict[str, Any]:
    return _fields(spikes) | {
        "layers": [_fields(layer) for layer in spikes.layers],
        "neurons": [_fields(neuron) for neuron in spikes.neurons],
    }


def is_block_graph(document: object) -> bool:
    """Whether a JSON document looks like one of ours, not like a bare task graph."""
    return isinstance(document, Mapping) and "op_types" in document and "storages" in document


def from_document(document: Mapping[str, Any], where: str) -> BlockGraph:
    """The graph that `to_document` wrote. Raises BadFile naming what is missing or wrong; executes nothing."""
    version = document.get("schema_version") if isinstance(document, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BadFile(f"{where}: no schema_version: this is not a graph that `pararev-hw trace` wrote")
    if version > SCHEMA_VERSION:
        raise BadFile(
            f"{where}: schema version {version} is newer than {SCHEMA_VERSION}, the newest this release reads"
        )
    if version < 1:
        raise BadFile(f"{where}: schema version {version}: versions are counted from 1")
    try:
        return _read(document)
    except KeyError as error:
        raise BadFile(f"{where}: the graph lacks {error.args[0]!r}") from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadFile(f"{where}: not a valid graph: {str(error).splitlines()[0] if str(error) else error!r}") from error


def _read(document: Mapping[str, Any]) -> BlockGraph:
    index = {t["id"]: k for k, t in enumerate(document["tasks"])}
    if len(index) != len(document["tasks"]):
        raise ValueError("two tasks share one id")
    spikes, timesteps = document.get("spikes"), document["timesteps"]
    graph = BlockGraph(
        model=_text(document["model"]),
        mode=_one_of(document["mode"], MODES),
        batch=_at_least_one(document["batch"]),
        timesteps=None if timesteps is None else _at_least_one(timesteps),
        dtype=_text(document["dtype"]),
        granularity=_text(document["granularity"]),
        input_shapes=_shapes(document["input_shapes"]),
        parameters=_count(document["parameters"]),
        modules=tuple(ModuleInfo(**_read_fields(_MODULE_DEFAULTS | m, _MODULE)) for m in document.get("modules", ())),
        op_types=tuple(_op_type(t) for t in document["op_types"]),
        ops=_ops(document["ops"]),
        storages=_storages(document["storages"]),
        tasks=tuple(Task(**_read_fields(t, _TASK), ops=tuple(map(_count, t["op_indices"]))) for t in document["tasks"]),
        edges=tuple(Edge(index[e["src"]], index[e["dst"]], _count(e["bytes"])) for e in document["edges"]),
        memory=StepMemory(**{name: _count(document["memory"][name]) for name in StepMemory.__slots__}),
        spikes=None if spikes is None else _spikes(spikes),
        assumptions=tuple(map(_text, document["assumptions"])),
        schema_version=document["schema_version"],
    )
    _check(graph)
    return graph


def _ops(columns: Mapping[str, Sequence[Any]]) -> tuple[Op, ...]:
    names = ("type", "module", "phase", "reads", "writes", "after")
    return tuple(
        Op(_count(t), _text(m), PHASES[_count(p)], *(tuple(map(_count, ids)) for ids in (r, w, a)))
        for t, m, p, r, w, a in zip(*(columns[name] for name in names), strict=True)
    )


def _storages(columns: Mapping[str, Sequence[Any]]) -> tuple[Storage, ...]:
    return tuple(
        Storage(_count(size), _one_of(role, ROLES), _integer(born), _integer(freed))
        for size, role, born, freed in zip(*(columns[name] for name in Storage.__slots__), strict=True)
    )


def _check(graph: BlockGraph) -> None:
    """Indices point at what exists, and tasks stand in a topological order."""
    ops, types, storages = len(graph.ops), len(graph.op_types), len(graph.storages)
    for k, op in enumerate(graph.ops):
        if not 0 <= op.type < types:
            raise ValueError(f"op {k} is of type {op.type}: there are {types}")
        if any(not 0 <= s < storages for s in (*op.reads, *op.writes)):
            raise ValueError(f"op {k} touches a storage that does not exist: there are {storages}")
        if any(not 0 <= a < k for a in op.after):
            raise ValueError(f"op {k} follows an op that does not come before it")
    for s, storage in enumerate(graph.storages):
        for at in (storage.born, storage.freed):
            if not -1 <= at <= ops:
                raise ValueError(f"storage {s} is born or freed at op {at!r}: there are {ops}")
        if storage.freed < storage.born:
            raise ValueError(f"storage {s} is freed at op {storage.freed}, before it is born at op {storage.born}")
    storage_bytes = sum(s.bytes for s in graph.storages)
    if storage_bytes > limits.COUNT:
        raise ValueError(f"its storages hold {storage_bytes} bytes: at most {limits.COUNT}")
    if not graph.memory.peak_op < max(ops, 1):
        raise ValueError(f"memory.peak_op is op {graph.memory.peak_op}: there are {ops}")
    task_of: dict[int, str] = {}
    for t in graph.tasks:
        for k in t.ops:
            if not 0 <= k < ops:
                raise ValueError(f"task {t.id!r} holds an op that does not exist: there are {ops}")
            if k in task_of:
                raise ValueError(f"op {k} is in task {task_of[k]!r} and in task {t.id!r}: an op runs once")
            task_of[k] = t.id
    for e in graph.edges:
        if e.src >= e.dst:
            raise ValueError(
                f"the edge {graph.tasks[e.src].id!r} -> {graph.tasks[e.dst].id!r} goes backwards: tasks must stand "
                "in a topological order"
            )


def _op_type(t: Mapping[str, Any]) -> OpType:
    attributes = sorted((_text(name), tuple(map(_integer, value))) for name, value in t["attributes"].items())
    return OpType(**_read_fields(t, _OP_TYPE), attributes=tuple(attributes))


def _spikes(spikes: Mapping[str, Any]) -> Spikes:
    return Spikes(
        measured=_truth(spikes["measured"]),
        source=_text(spikes["source"]),
        rate=_share(spikes["rate"]),
        layers=tuple(LayerSpikes(**_read_fields(_LAYER_DEFAULTS | layer, _LAYER)) for layer in spikes["layers"]),
        neurons=tuple(NeuronSpikes(**_read_fields(neuron, _NEURON)) for neuron in spikes.get("neurons", ())),
    )


def _read_fields(document: Mapping[str, Any], readers: Readers) -> dict[str, Any]:
    return {name: read(document[name]) for name, read in readers.items()}


def _optional(read: Callable[[Any], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else read(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{_quoted(value)} is given where text is expected")
    if CONTROL.search(value):
        raise ValueError(f"{_quoted(value)} holds a control character: a terminal would obey it")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -limits.COUNT <= value <= limits.COUNT:
        raise ValueError(f"{_quoted(value)} is given where a 64-bit integer is expected")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limits.COUNT:
        raise ValueError(f"{_quoted(value)} is given where a count >= 0 (64 bits) is expected")
    return value


def _at_least_one(value: object) -> int:
    if _count(value) == 0:
        raise ValueError("0 is given where a batch or a number of time steps is expected: at least 1")
    return _count(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{_quoted(value)} is given where true or false is expected")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < limits.NUMBER:
        raise ValueError(f"{_quoted(value)} is given where a number >= 0 and below {limits.NUMBER:g} is expected")
    return float(value)


def _share(value: object) -> float:
    if _number(value) > 1:
        raise ValueError(f"{_quoted(value)} is given where a share between 0 and 1 is expected")
    return _number(value)


def _one_of(value: T, allowed: Sequence[T]) -> T:
    if value not in allowed:
        raise ValueError(f"{_quoted(value)} is none of {', '.join(map(str, allowed))}")
    return value


def _quoted(value: object) -> str:
    """The value in a few words of a message: a number may have thousands of digits, and repr refuses the longest."""
    if isinstance(value, int) and not -limits.COUNT <= value <= limits.COUNT:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _shape(value: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(_count, value))


def _shapes(value: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(_shape, value))


Readers = Mapping[str, Callable[[Any], object]]  # by the name of a field

# what older files do not have
_MODULE_DEFAULTS = {"input_shape": None, "output_shape": None}
_LAYER_DEFAULTS = {"effective_ops": None, "connection_sparsity": None, "largest": 1}

_MODULE: Readers = {
    "path": _text,
    "type": _text,
    "parameters": _count,
    **dict.fromkeys(("input_shape", "output_shape"), _optional(_shape)),
}
_WORK: Readers = {"flops": _count, "read_bytes": _count, "write_bytes": _count}
_OP_TYPE: Readers = {
    **dict.fromkeys(("name", "kind", "dtype"), _text),
    **dict.fromkeys(("input_shapes", "output_shapes"), _shapes),
    **_WORK,
    "vector_flops": _optional(_count),
}
_TASK: Readers = {
    **dict.fromkeys(("id", "block", "branch"), _text),
    "phase": lambda value: _one_of(value, PHASES),
    **_WORK,
    "vector_flops": _count,
    "sops": _optional(_count),
}
_LAYER: Readers = {
    "module": _text,
    "density": _share,
    "sops": _number,
    "dense_macs": _number,
    "spiking": _truth,
    "channel_density": lambda value: tuple(map(_share, value)),
    "effective_ops": _optional(_number),
    "connection_sparsity": _optional(_share),
    "largest": _integer,
}
_NEURON: Readers = {
    "module": _text,
    "updates": _number,
    "spikes": _number,
    **dict.fromkeys(("rate_deviation_time", "rate_deviation_channels"), _optional(_share)),
}


def read_json(path: Path) -> Any:
    """The JSON document in a file. Raises BadFile in one line: unreadable, too large, half written, not JSON."""
    return parse_json(read_text(path, limits.GRAPH_FILE_BYTES, "a graph file is JSON in UTF-8"), str(path))


def load(path: Path) -> BlockGraph:
    """The graph in a file that `save` or `pararev-hw trace` wrote. Raises BadFile."""
    document = read_json(path)
    if not isinstance(document, Mapping):
        raise BadFile(f"{path}: holds a {type(document).__name__}, not a graph")
    return from_document(cast("Mapping[str, Any]", document), str(path))


def save(graph: BlockGraph, path: Path | str) -> None:
    """Write the graph's JSON; `load` reads it. Raises BadFile where the file cannot be written."""
    write_file(path, dumps(graph))


def dumps(graph: BlockGraph) -> str:
    """The graph as compact JSON text."""
    return json.dumps(to_document(graph), separators=(",", ":"), allow_nan=False)
