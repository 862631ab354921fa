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


_MODULE_SHAPES = ("input_shape", "output_shape")


def _module_document(module: ModuleInfo) -> dict[str, Any]:
    shapes = {name: getattr(module, name) for name in _MODULE_SHAPES}
    return {
        "path": module.path,
        "type": module.type,
        "parameters": module.parameters,
        **{name: None if shape is None else list(shape) for name, shape in shapes.items()},
    }


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
        "memory": {name: getattr(graph.memory, name) for name in StepMemory.__slots__},
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
        "modules": [_module_document(m) for m in graph.modules],
        "op_types": [_op_type_document(t) for t in graph.op_types],
        "ops": _ops_document(graph),
        "phases": list(PHASES),
        "storages": {
            "bytes": [s.bytes for s in graph.storages],
            "role": [s.role for s in graph.storages],
            "born": [s.born for s in graph.storages],
            "freed": [s.freed for s in graph.storages],
        },
    }


def _task_document(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "block": task.block,
        "branch": task.branch,
        "phase": task.phase,
        "flops": task.flops,
        "vector_flops": task.vector_flops,
        "read_bytes": task.read_bytes,
        "write_bytes": task.write_bytes,
        "ops": len(task.ops),
        "sops": task.sops,
        "op_indices": list(task.ops),
    }


def _op_type_document(op_type: OpType) -> dict[str, Any]:
    return {
        "name": op_type.name,
        "kind": op_type.kind,
        "dtype": op_type.dtype,
        "input_shapes": [list(s) for s in op_type.input_shapes],
        "output_shapes": [list(s) for s in op_type.output_shapes],
        "attributes": {name: list(value) for name, value in op_type.attributes},
        "flops": op_type.flops,
        "vector_flops": op_type.vector_flops,
        "read_bytes": op_type.read_bytes,
        "write_bytes": op_type.write_bytes,
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
    return {
        "measured": spikes.measured,
        "source": spikes.source,
        "rate": spikes.rate,
        "layers": [{name: getattr(layer, name) for name in LayerSpikes.__slots__} for layer in spikes.layers],
        "neurons": [{name: getattr(n, name) for name in NeuronSpikes.__slots__} for n in spikes.neurons],
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
    ops, storages = document["ops"], document["storages"]
    types = tuple(_op_type(t) for t in document["op_types"])
    spikes = document.get("spikes")
    graph = BlockGraph(
        model=_text(document["model"]),
        mode=_one_of(document["mode"], MODES),
        batch=_at_least_one(document["batch"]),
        timesteps=None if document["timesteps"] is None else _at_least_one(document["timesteps"]),
        dtype=_text(document["dtype"]),
        granularity=_text(document["granularity"]),
        input_shapes=_shapes(document["input_shapes"]),
        parameters=_count(document["parameters"]),
        modules=tuple(
            ModuleInfo(
                _text(m["path"]),
                _text(m["type"]),
                _count(m["parameters"]),
                *(
                    None if m.get(name) is None else tuple(map(_count, m[name]))
                    for name in ("input_shape", "output_shape")
                ),
            )
            for m in document.get("modules", ())
        ),
        op_types=types,
        ops=tuple(
            Op(_count(t), _text(m), PHASES[_count(p)], *(tuple(map(_count, ids)) for ids in (r, w, a)))
            for t, m, p, r, w, a in zip(
                ops["type"], ops["module"], ops["phase"], ops["reads"], ops["writes"], ops["after"], strict=True
            )
        ),
        storages=tuple(
            Storage(_count(b), _one_of(r, ROLES), _integer(born), _integer(freed))
            for b, r, born, freed in zip(
                storages["bytes"], storages["role"], storages["born"], storages["freed"], strict=True
            )
        ),
        tasks=tuple(
            Task(
                id=_text(t["id"]),
                block=_text(t["block"]),
                branch=_text(t["branch"]),
                phase=_one_of(t["phase"], PHASES),
                ops=tuple(map(_count, t["op_indices"])),
                flops=_count(t["flops"]),
                vector_flops=_count(t["vector_flops"]),
                read_bytes=_count(t["read_bytes"]),
                write_bytes=_count(t["write_bytes"]),
                sops=None if t["sops"] is None else _count(t["sops"]),
            )
            for t in document["tasks"]
        ),
        edges=tuple(Edge(index[e["src"]], index[e["dst"]], _count(e["bytes"])) for e in document["edges"]),
        memory=StepMemory(**{name: _count(document["memory"][name]) for name in StepMemory.__slots__}),
        spikes=None if spikes is None else _spikes(spikes),
        assumptions=tuple(map(_text, document["assumptions"])),
        schema_version=document["schema_version"],
    )
    _check(graph)
    return graph


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
    return OpType(
        name=_text(t["name"]),
        kind=_text(t["kind"]),
        dtype=_text(t["dtype"]),
        input_shapes=_shapes(t["input_shapes"]),
        output_shapes=_shapes(t["output_shapes"]),
        attributes=tuple(sorted((_text(name), tuple(map(_integer, value))) for name, value in t["attributes"].items())),
        flops=_count(t["flops"]),
        vector_flops=None if t["vector_flops"] is None else _count(t["vector_flops"]),
        read_bytes=_count(t["read_bytes"]),
        write_bytes=_count(t["write_bytes"]),
    )


def _spikes(spikes: Mapping[str, Any]) -> Spikes:
    return Spikes(
        measured=_truth(spikes["measured"]),
        source=_text(spikes["source"]),
        rate=_share(spikes["rate"]),
        layers=tuple(
            LayerSpikes(
                module=_text(layer["module"]),
                density=_share(layer["density"]),
                sops=_number(layer["sops"]),
                dense_macs=_number(layer["dense_macs"]),
                spiking=_truth(layer["spiking"]),
                channel_density=tuple(map(_share, layer["channel_density"])),
                effective_ops=_optional(_number, layer.get("effective_ops")),
                connection_sparsity=_optional(_share, layer.get("connection_sparsity")),
                largest=_integer(layer.get("largest", 1)),
            )
            for layer in spikes["layers"]
        ),
        neurons=tuple(
            NeuronSpikes(
                module=_text(neuron["module"]),
                updates=_number(neuron["updates"]),
                spikes=_number(neuron["spikes"]),
                rate_deviation_time=_optional(_share, neuron["rate_deviation_time"]),
                rate_deviation_channels=_optional(_share, neuron["rate_deviation_channels"]),
            )
            for neuron in spikes.get("neurons", ())
        ),
    )


def _optional(read: Callable[[object], T], value: object) -> T | None:
    return None if value is None else read(value)


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


def _shapes(value: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(_count, shape)) for shape in value)


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
