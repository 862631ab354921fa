"""An ONNX file as a torch network that traces, in inference and in training.

The file's graph is read once, for one batch: what depends on shapes alone is folded, every other node becomes a torch
function (`onnx_operators`). Floating-point initializers become parameters, and the module tree follows the node names
that exporters write: `/layer1/layer1.0/conv1/Conv` runs in module `layer1.0.conv1`, so that blocks and branches are
found where the exported network had them. ONNX has no gradient for a spike: a comparison that is cast to a number
fires as our neurons do, with the ATan surrogate in its backward.

Nothing in a file runs as code. Weights in files of their own are read from the file's folder only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import load_external_data_for_model
from torch import Tensor, nn

from pararev_hw import limits
from pararev_hw.atomic import real_path
from pararev_hw.errors import BadFile, BadInput, PararevError
from pararev_hw.importers.imported import Imported, next_float
from pararev_hw.importers.onnx_control_flow import CONTROL_FLOW, ControlFlow
from pararev_hw.importers.onnx_functions import all_nodes, inline_functions, to_supported_version
from pararev_hw.importers.onnx_operators import ELEMENTWISE, MODAL, ROLES, lowering
from pararev_hw.importers.onnx_quantization import fake_quantize
from pararev_hw.importers.onnx_site import Run
from pararev_hw.importers.onnx_weights import constants_to_initializers, fill_absent_weights
from pararev_hw.models.neurons import fire
from pararev_hw.models.surrogates import ATan

_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's newer exporter notes a node's modules

# whether the operands are swapped, and whether equal ones do not fire
_COMPARISONS = {
    "Greater": (False, True),
    "GreaterOrEqual": (False, False),
    "Less": (True, True),
    "LessOrEqual": (True, False),
}
_DTYPES: Mapping[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    **{name: getattr(torch, name.lower()) for name in "FLOAT16 BFLOAT16 INT64 INT32 INT16 INT8 UINT8 BOOL".split()},
}


def load_onnx(
    path: str | Path,
    *,
    batch: int | None = None,
    timesteps: int | None = None,
    input_shape: Sequence[int] | None = None,
    default_batch: int = 32,
) -> Imported:
    """The network of an ONNX file, for inputs of one shape.

    `batch` binds the file's symbolic batch size (`default_batch` where it is None), `timesteps` a symbolic size whose
    name speaks of time, and `input_shape` (of one sample of the first input) all others. Raises BadFile for a file
    that is broken, BadInput for one that needs what is not supported, or a size that nothing binds.
    """
    file = Path(path)
    model, absent = _read(file)
    _refuse_unsupported(file, model)
    _check(file, model)
    bound = _bind(file, model, _Asked(batch, timesteps, input_shape, default_batch))
    network = _Import(file, model, bound.inputs).network()
    notes = [f"{file.name}: sizes fixed at import: batch {bound.batch}"]
    if any(m for m in network.modules() if getattr(m, "is_spiking_neuron", False)):
        notes.append(f"{file.name}: spikes have the ATan surrogate gradient, as ONNX keeps none")
    if absent:
        notes.append(f"{file.name}: the values of {len(absent)} weights are not in the file: zeros, for shapes alone")
    return Imported(network, tuple(bound.inputs.values()), bound.batch, bound.timesteps, bound.event, tuple(notes))


# --- the file


def _read(file: Path) -> tuple[ModelProto, tuple[str, ...]]:
    """The model, its weights all in initializers, and the names of those whose values it does not bring."""
    if not file.is_file():
        raise BadFile(f"{file}: there is no such file")
    size = file.stat().st_size
    if size > limits.NETWORK_FILE_BYTES:
        raise BadFile(f"{file}: has {size} bytes: an ONNX file has at most {limits.NETWORK_FILE_BYTES}")
    try:
        model = onnx.load(str(file), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise BadFile(f"{file}: cannot be read as ONNX: {_first(error)}") from error
    if not model.graph.node:
        raise BadFile(f"{file}: holds no network: its graph has no node")
    try:
        model = to_supported_version(inline_functions(model))
        absent = fill_absent_weights(model, file.parent, limits.NETWORK_FILE_BYTES)
        constants_to_initializers(model, limits.NETWORK_FILE_BYTES)
    except BadInput as error:
        raise type(error)(f"{file}: {error}") from error
    except (ValueError, TypeError) as error:
        raise BadFile(f"{file}: a weight cannot be read: {_first(error)}") from error
    outside = _external(file, model)
    if outside:
        try:
            load_external_data_for_model(model, str(file.parent))
        except Exception as error:  # the helper raises what its checker and the file system raise
            raise BadFile(f"{file}: its weights cannot be read: {_first(error)}") from error
    return model, absent


def _external(file: Path, model: ModelProto) -> bool:
    """Whether weights lie in other files. Raises BadFile for one that is not a file in the model's own folder."""
    folder = real_path(file.parent)
    total = 0
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        place = folder / entries.get("location", "")
        if not entries.get("location") or not real_path(place).is_relative_to(folder) or not place.is_file():
            raise BadFile(
                f"{file}: weight {tensor.name!r} is said to lie in {entries.get('location')!r}: "
                "it must be a file in the model's own folder"
            )
        length = entries.get("length", str(place.stat().st_size))
        total += int(length) if length.isdigit() else 0
    if total > limits.NETWORK_FILE_BYTES:
        raise BadFile(f"{file}: its weights have {total} bytes: at most {limits.NETWORK_FILE_BYTES} are read")
    return any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)


def _check(file: Path, model: ModelProto) -> None:
    for value in model.graph.output:  # nothing reads their shapes, and many files have none
        value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise BadFile(f"{file}: is no valid ONNX model: {_first(error)}") from error


def _refuse_unsupported(file: Path, model: ModelProto) -> None:
    nodes = [n for n in all_nodes(model.graph.node) if n.domain or n.op_type not in CONTROL_FLOW]
    missing = [n for n in nodes if lowering(n.domain, n.op_type) is None]
    if missing:
        kinds = sorted({f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in missing})
        raise BadInput(
            f"{file}: {len(missing)} of {len(nodes)} nodes use operators that are not supported: "
            f"{', '.join(kinds)} (the first is node {_title(missing[0])}); trace the network's source instead"
        )


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _title(node: NodeProto) -> str:
    return repr(node.name or (node.output[0] if node.output else "?"))


# --- sizes of the inputs


@dataclass(frozen=True, slots=True)
class _Bound:
    inputs: Mapping[str, Tensor]
    batch: int
    timesteps: int | None
    event: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the user says of sizes; None: not said."""

    batch: int | None
    timesteps: int | None
    input_shape: Sequence[int] | None
    default_batch: int


Size = int | str | None  # of a file: a number, a name, or (unnamed) None


def _bind(file: Path, model: ModelProto, asked: _Asked) -> _Bound:
    """Shapes for every input."""
    weights = {t.name for t in model.graph.initializer}
    entries = [v for v in model.graph.input if v.name not in weights]
    if not entries:
        raise BadInput(f"{file}: takes no input: it cannot be traced")
    shapes = {v.name: _sizes(file, v) for v in entries}
    first_name, first = next(iter(shapes.items()))
    if not first:
        raise BadInput(f"{file}: input {first_name!r} is a single number: a batch is needed")
    where = f"{file}: input {first_name!r}"
    batch_at = next((d for d, n in enumerate(first) if _speaks_of(n, "batch", ("b", "n", "bs"))), 0)
    time_at = next((d for d, n in enumerate(first) if _speaks_of(n, "time", ("t", "steps"))), None)
    count = _batch(file, first[batch_at], asked)
    size_of_axis, size_by_name = {batch_at: count}, {str(first[batch_at]): count}
    if asked.timesteps is not None:
        if time_at is None:
            raise BadInput(f"{where} has no size named after time: leave --timesteps out")
        size_by_name[str(first[time_at])] = asked.timesteps
    free = [d for d in range(len(first)) if d != batch_at and (d != time_at or asked.timesteps is None)]
    if asked.input_shape is not None:
        size_of_axis |= _sample_sizes(file, first_name, first, free, asked.input_shape)
        for d, n in size_of_axis.items():
            if isinstance(first[d], int) and first[d] != n:
                raise BadInput(f"{where} has size {first[d]} in dimension {d}, not {n}")
            if isinstance(first[d], str) and size_by_name.setdefault(str(first[d]), n) != n:
                raise BadInput(f"{file}: size {first[d]!r} cannot be {size_by_name[str(first[d])]} and {n}")
    inputs = {}
    for value in entries:
        of_axis = size_of_axis if value.name == first_name else {}
        shape = _bound_shape(f"{file}: input {value.name!r}", shapes[value.name], size_by_name, of_axis)
        inputs[value.name] = torch.empty(shape, dtype=_dtype(value.type.tensor_type.elem_type), device="meta")
    return _Bound(inputs, count, asked.timesteps, batch_at == 1)


def _batch(file: Path, size: Size, asked: _Asked) -> int:
    if not isinstance(size, int):
        return asked.default_batch if asked.batch is None else asked.batch
    if asked.batch not in (None, size):
        raise BadInput(f"{file}: its batch is fixed at {size}: leave --batch out, or export it with a named batch size")
    return size


def _sample_sizes(
    file: Path, name: str, sizes: Sequence[Size], free: Sequence[int], input_shape: Sequence[int]
) -> dict[int, int]:
    """By axis, what a sample's shape says of the axes that are free."""
    if len(input_shape) != len(free):
        raise BadInput(
            f"{file}: input shape {tuple(input_shape)} has {len(input_shape)} sizes: "
            f"a sample of {name!r} has {len(free)} ({', '.join(_size_text(sizes[d]) for d in free)})"
        )
    return dict(zip(free, input_shape, strict=True))


def _bound_shape(
    where: str, sizes: Sequence[Size], size_by_name: Mapping[str, int], size_of_axis: Mapping[int, int]
) -> tuple[int, ...]:
    shape = []
    for d, size in enumerate(sizes):
        bound = size if isinstance(size, int) else size_by_name.get(size or "", size_of_axis.get(d))
        if bound is None:
            text = _size_text(size)
            raise BadInput(f"{where} has no size for {text} (dimension {d}): {_remedy(text)}")
        shape.append(bound)
    return tuple(shape)


def _remedy(size_text: str) -> str:
    return "give --timesteps" if _speaks_of(size_text.strip("'"), "time", ("t", "steps")) else "give --input-shape"


def _sizes(file: Path, value: ValueInfoProto) -> tuple[Size, ...]:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise BadInput(f"{file}: input {value.name!r} has no shape: export it with one")
    dims = value.type.tensor_type.shape.dim
    for d, size in enumerate(dims):
        if size.HasField("dim_value") and size.dim_value < 1:
            raise BadInput(
                f"{file}: input {value.name!r} has size {size.dim_value} in dimension {d}: "
                "a size is a positive number, or a name that an option binds"
            )
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)


def _speaks_of(size: Size, word: str, letters: Sequence[str]) -> bool:
    return isinstance(size, str) and (word in size.lower() or size.lower() in letters)


def _size_text(size: Size) -> str:
    return "an unnamed size" if size is None else repr(size)


def _dtype(kind: int) -> torch.dtype:
    name = onnx.TensorProto.DataType.Name(kind)
    if name not in _DTYPES:
        raise BadInput(f"numbers of type {name} cannot be imported")
    return _DTYPES[name]


def _tensor(proto: TensorProto) -> Tensor:
    kind = _dtype(proto.data_type)
    array = np.array(onnx.numpy_helper.to_array(proto))  # a copy: torch writes to what it trains
    if kind is torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


# --- the network


Source = str | float | None  # the name of a value, or a plain number or None as it is


@dataclass(frozen=True, slots=True)
class _Held:
    """A parameter or buffer, looked up when it is needed: its tensor may be exchanged between runs."""

    module: nn.Module
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One node at run time. A source is the name of a value, a held tensor, or a plain number or None as it is."""

    run: Run
    modal: bool
    sources: tuple[_Held | Source, ...]
    outputs: tuple[str, ...]
    release: tuple[str, ...]  # values that nothing reads afterwards

    def __call__(self, values: dict[str, Any], training: bool) -> None:
        inputs = [_fetch(s, values) for s in self.sources]
        out = self.run(training, *inputs) if self.modal else self.run(*inputs)
        values.update(zip(self.outputs, out if isinstance(out, tuple | list) else (out,), strict=False))
        for name in self.release:
            values.pop(name, None)


def _fetch(source: _Held | Source, values: Mapping[str, Any]) -> Any:
    if isinstance(source, _Held):
        return getattr(source.module, source.name)
    return values[source] if isinstance(source, str) else source


class Scope(nn.Module):
    """A module of the exported network: it holds its weights, and runs its nodes when its turn comes."""

    is_spiking_neuron = False
    runs_lstm = False

    def forward(self, steps: Sequence[_Step], values: dict[str, Any]) -> None:
        for step in steps:
            step(values, self.training)


class OnnxNetwork(Scope):
    """A whole file: takes the file's inputs, in order, and gives its output, or a tuple of them."""

    def __init__(self) -> None:
        super().__init__()
        self._inputs: tuple[tuple[str, tuple[int, ...]], ...] = ()
        self._segments: tuple[tuple[Scope, tuple[_Step, ...]], ...] = ()
        self._outputs: tuple[_Held | str, ...] = ()

    def forward(self, *inputs: Tensor) -> Any:  # type: ignore[override]
        expected = ", ".join(f"{n} {list(s)}" for n, s in self._inputs)
        if [tuple(x.shape) for x in inputs] != [s for _, s in self._inputs]:
            raise BadInput(
                f"inputs have shapes {[list(x.shape) for x in inputs]}: the network was imported for {expected}"
            )
        values: dict[str, Any] = {n: x for (n, _), x in zip(self._inputs, inputs, strict=True)}
        for scope, steps in self._segments:
            if scope is self:
                super().forward(steps, values)
            else:
                scope(steps, values)
        outputs = tuple(_fetch(o, values) for o in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs


@dataclass(slots=True)
class _Draft:
    """A node that runs, before modules exist: its inputs are names still."""

    path: str
    op: str
    run: Run
    inputs: tuple[Source, ...]
    outputs: tuple[str, ...]
    states: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Site:
    """What a lowering may ask about its node (`onnx_operators.Site`)."""

    graph: _Import
    node: NodeProto
    attributes: Mapping[str, Any]
    taken: set[int] = field(default_factory=set)
    states: set[int] = field(default_factory=set)
    sources: tuple[str | None, ...] | None = None

    @property
    def opset(self) -> int:
        return self.graph.opset

    @property
    def outputs(self) -> int:
        return len(self.node.output)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has_input(self, i: int) -> bool:
        return i < len(self.node.input) and bool(self.node.input[i])

    def is_constant(self, i: int) -> bool:
        return self.has_input(i) and self.node.input[i] in self.graph.constants

    def constant(self, i: int) -> Tensor:
        name = self.node.input[i]
        constant = self.graph.constants.get(name, self.graph.weights.get(name))
        if constant is None:
            raise BadInput(f"needs input {i} ({name!r}) as a constant: it depends on the network's data")
        self.taken.add(i)
        return constant

    def source(self, i: int) -> str | None:
        return self.node.input[i] if self.has_input(i) else None

    def is_weight(self, i: int) -> bool:
        return self.has_input(i) and self.node.input[i] in self.graph.weights

    def derived(self, i: int, role: str, change: Callable[[Tensor], Tensor]) -> str:
        name = f"{self.node.input[i].replace('.', '_')}.{role}"
        if name not in self.graph.weights:  # one that two nodes share stays shared
            self.graph.weights[name] = change(self.graph.weights[self.node.input[i]])
        return name

    def take(self, *sources: str | None) -> None:
        self.sources = sources

    def state(self, i: int) -> None:
        """Input i is no weight to train: a running statistic."""
        self.states.add(i)

    def shape(self, i: int) -> tuple[int, ...]:
        return tuple(self.graph.like(self.node.input[i]).shape)

    def dtype(self, i: int) -> torch.dtype:
        return self.graph.like(self.node.input[i]).dtype


class _Import:
    """A graph on its way to a network: every node folded to a constant, or drafted to run, in the file's order."""

    def __init__(self, file: Path, model: ModelProto, inputs: Mapping[str, Tensor]) -> None:
        self.file, self.inputs = file, inputs
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.constants: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        self.metas: dict[str, Tensor] = dict(inputs)
        self.spikes: dict[str, str] = {}  # a comparison's result -> its spikes as numbers
        self.quantized: dict[str, NodeProto] = {}  # a quantised value -> the node that quantises
        self.drafts: list[_Draft] = []
        self.outputs = tuple(v.name for v in model.graph.output)
        graph = model.graph
        for proto in graph.initializer:
            self._initializer(proto)
        self.flow = ControlFlow(self.constants.get, self.constants.__setitem__, self._initializer, self.opset)
        self._nodes(graph.node)
        for name in self.outputs:
            if name not in self.metas and name not in self.constants and name not in self.weights:
                raise BadFile(f"{file}: no node makes its output {name!r}")

    def _nodes(self, nodes: Iterable[NodeProto]) -> None:
        cast = {n.input[0] for n in nodes if n.op_type == "Cast" and self._to(n).is_floating_point}
        for node in nodes:
            if node.op_type in CONTROL_FLOW and not node.domain:
                self._control_flow(node)
                continue
            try:
                self._node(node, fires=bool(node.output) and node.output[0] in cast)
            except Exception as error:  # torch may raise anything for sizes that do not go together
                raise self._fault(node, error) from error

    def _control_flow(self, node: NodeProto) -> None:
        turns = self.flow.written_out(node)
        while True:
            try:
                turn = next(turns, None)
            except Exception as error:  # a body whose values do not go together with the node's
                raise self._fault(node, error) from error
            if turn is None:
                return
            self._nodes(turn)

    def _fault(self, node: NodeProto, error: Exception) -> BadInput:
        return BadInput(f"{self.file}: node {_title(node)} ({node.op_type}) {_reason(error, self.inputs)}")

    def like(self, name: str) -> Tensor:
        """A tensor of that value's shape and type."""
        for table in (self.metas, self.constants, self.weights):
            if name in table:
                return table[name]
        raise BadInput(f"reads {name!r}, which no node before it makes")

    def _initializer(self, proto: TensorProto) -> None:
        try:
            value = _tensor(proto)
        except PararevError as error:
            raise BadInput(f"{self.file}: initializer {proto.name!r}: {error}") from error
        except (ValueError, TypeError) as error:
            raise BadFile(f"{self.file}: initializer {proto.name!r} cannot be read: {_first(error)}") from error
        # A number without a module's name is arithmetic (a time constant, a bound), not a weight.
        weight = value.is_floating_point() and (value.dim() > 0 or "." in proto.name)
        (self.weights if weight else self.constants)[proto.name] = value

    @staticmethod
    def _to(node: NodeProto) -> torch.dtype:
        return _dtype(next(a.i for a in node.attribute if a.name == "to"))

    def _node(self, node: NodeProto, fires: bool) -> None:
        if node.op_type == "Identity" and node.input[0] in self.weights:
            # the same tensor: exporters tie equal weights so
            self.weights[node.output[0]] = self.weights[node.input[0]]
            return
        site = _Site(self, node, self._attributes(node))
        if node.op_type == "Cast" and node.input[0] in self.spikes:
            source = self.spikes[node.input[0]]
            to = self._to(node)
            same = self.metas[source].dtype == to
            self._draft(node, (lambda x: x) if same else (lambda x: x.to(to)), (source,), (node.output[0],))
            return
        if fires and node.op_type in _COMPARISONS and self._fires(node):
            return
        if node.op_type == "DequantizeLinear" and self._quantizes_and_back(node):
            return
        lower = lowering(node.domain, node.op_type)
        assert lower is not None, node.op_type  # refused before
        run = lower(site)
        names = [n for n in node.input if n]
        if node.op_type in ("Shape", "Size") or all(n in self.constants for n in names):
            self._fold(node, run, names)
            return
        if node.op_type == "QuantizeLinear":
            self.quantized[node.output[0]] = node
        self._draft(node, run, self._sources(site), tuple(node.output), frozenset(site.states))

    def _sources(self, site: _Site) -> tuple[Source, ...]:
        if site.sources is not None:
            return site.sources
        return tuple(
            None if not name or i in site.taken else self._source(site.node, name)
            for i, name in enumerate(site.node.input)
        )

    def _quantizes_and_back(self, node: NodeProto) -> bool:
        """Drafts a value that is quantised and dequantised by the same numbers as one function with a gradient."""
        before = self.quantized.get(node.input[0])
        if before is None or list(before.input[1:]) != list(node.input[1:]):
            return False
        site = _Site(self, before, self._attributes(before))
        run = fake_quantize(site)
        self._draft(node, run, self._sources(site), (node.output[0],), frozenset(site.states))
        return True

    def _attributes(self, node: NodeProto) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for a in node.attribute:
            value = onnx.helper.get_attribute_value(a)
            if isinstance(value, onnx.TensorProto):
                value = _tensor(value)
            elif isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            attributes[a.name] = _dtype(value) if a.name == "to" or (a.name == "output_dtype" and value) else value
        return attributes

    def _fold(self, node: NodeProto, run: Run, names: Sequence[str]) -> None:
        tensors = [self.constants.get(n) for n in node.input] if len(names) < 1 or names[0] in self.constants else []
        if node.op_type not in ("Shape", "Size") and tensors:
            meta = run(*(None if t is None else t.to("meta") for t in tensors))
            for t in meta if isinstance(meta, tuple | list) else (meta,):
                if t.numel() > limits.CONSTANT_ELEMENTS:
                    raise BadInput(
                        f"makes a constant of shape {tuple(t.shape)}: at most {limits.CONSTANT_ELEMENTS} elements"
                    )
        out = run(*tensors)
        # weights that the file keeps in few bits are weights
        into = self.weights if node.op_type == "DequantizeLinear" and out.dim() > 0 else self.constants
        into.update(zip(node.output, out if isinstance(out, tuple | list) else (out,), strict=False))

    def _source(self, node: NodeProto, name: str) -> str | float:
        """The name itself, or the plain number that a one-element constant of an elementwise operator is."""
        value = self.constants.get(name)
        if value is None or node.op_type not in ELEMENTWISE or value.numel() != 1:
            return name
        rank = max(self.like(n).dim() for n in node.input if n and n not in self.constants)
        return value.item() if value.dim() <= rank else name

    def _fires(self, node: NodeProto) -> bool:
        """Drafts a comparison that becomes a number as a neuron's firing: h ≥ θ, or h > θ."""
        swapped, strict = _COMPARISONS[node.op_type]
        left, right = (self._source(node, n) for n in node.input)
        high, low = (right, left) if swapped else (left, right)
        kinds = {self.like(n).dtype for n in node.input}
        if len(kinds) != 1 or not next(iter(kinds)).is_floating_point:
            return False
        names = tuple(s for s in (high, low) if isinstance(s, str))
        if isinstance(high, str) and not isinstance(low, str):
            run = partial(_fired, threshold=next_float(low) if strict else float(low))
        elif isinstance(high, str):
            run = partial(_fired_above, threshold=next_float(0.0) if strict else 0.0)
        else:
            run = partial(_fired_below, level=float(high), threshold=next_float(0.0) if strict else 0.0)
        spikes = f"{node.output[0]} as spikes"
        self.spikes[node.output[0]] = spikes
        self._draft(node, run, names, (spikes, node.output[0]))
        return True

    def _draft(
        self,
        node: NodeProto,
        run: Run,
        sources: tuple[Source, ...],
        outputs: tuple[str, ...],
        states: frozenset[int] = frozenset(),
    ) -> None:
        with torch.no_grad():
            inputs = [self.like(s).to("meta") if isinstance(s, str) else s for s in sources]
            out = run(False, *inputs) if node.op_type in MODAL else run(*inputs)
        results = out if isinstance(out, tuple | list) else (out,)
        self.metas.update(zip(outputs, results, strict=False))
        self.drafts.append(_Draft(_path(node, len(self.drafts)), node.op_type, run, sources, outputs, states))

    def network(self) -> OnnxNetwork:
        """The network of all nodes that its outputs need."""
        needed, live = set(self.outputs), []
        for draft in reversed(self.drafts):
            if needed.intersection(draft.outputs):
                live.append(draft)
                needed.update(s for s in draft.inputs if isinstance(s, str))
        live.reverse()
        missing = sorted(needed - self.metas.keys() - self.constants.keys() - self.weights.keys())
        if missing:
            raise BadInput(f"{self.file}: its network uses {missing[0]!r}, an output that is not supported")
        fired = set(self.spikes.values())
        tree = _Tree([d.path for d in live])
        module_of: dict[str, _Held] = {}
        owners: dict[int, _Held] = {}
        for draft in live:
            for i, source in enumerate(draft.inputs):
                if isinstance(source, str) and source not in self.metas and source not in module_of:
                    tensor = id(self.like(source))
                    if tensor not in owners:
                        owners[tensor] = self._hold(tree.modules[draft.path], draft, i, source)
                    module_of[source] = owners[tensor]
            tree.modules[draft.path].runs_lstm |= draft.op == "LSTM"
            if draft.outputs[0] in fired:
                tree.modules[draft.path].is_spiking_neuron = True
        for name in self.outputs:
            if name not in self.metas and name not in module_of:
                module_of[name] = self._hold(tree.root, None, 0, name)
        tree.root._inputs = tuple((n, tuple(t.shape)) for n, t in self.inputs.items())
        tree.root._outputs = tuple(module_of.get(n, n) for n in self.outputs)
        tree.root._segments = tuple(_segments(tree, list(self._steps(live, module_of))))
        return tree.root

    def _hold(self, module: nn.Module, draft: _Draft | None, i: int, name: str) -> _Held:
        value = self.weights.get(name)
        roles = ROLES.get(draft.op, ()) if draft is not None else ()
        base_name = name.rpartition(".")[2] if "." in name else roles[i] if i < len(roles) else name
        attribute = _free(module, base_name or "constant")
        if value is None:
            module.register_buffer(attribute, self.constants[name], persistent=False)
        elif draft is not None and i in draft.states:
            module.register_buffer(attribute, value)
        else:
            module.register_parameter(attribute, nn.Parameter(value))
        return _Held(module, attribute)

    def _steps(self, live: Sequence[_Draft], module_of: Mapping[str, _Held]) -> Iterator[tuple[str, _Step]]:
        last: dict[str, int] = {}
        for k, draft in enumerate(live):
            for name in (*draft.outputs, *(s for s in draft.inputs if isinstance(s, str))):
                last[name] = k
        ends: dict[int, list[str]] = {}
        for name, k in last.items():
            if name not in self.outputs and name not in module_of:
                ends.setdefault(k, []).append(name)
        for k, draft in enumerate(live):
            sources = tuple(module_of.get(s, s) if isinstance(s, str) else s for s in draft.inputs)
            yield (
                draft.path,
                _Step(draft.run, draft.op in MODAL, sources, draft.outputs, tuple(sorted(ends.get(k, ())))),
            )


def _segments(tree: _Tree, steps: Sequence[tuple[str, _Step]]) -> Iterator[tuple[Scope, tuple[_Step, ...]]]:
    """Runs of steps in one module, in the file's order."""
    start = 0
    for k in range(1, len(steps) + 1):
        if k == len(steps) or steps[k][0] != steps[start][0]:
            yield tree.modules[steps[start][0]], tuple(step for _, step in steps[start:k])
            start = k


def _reason(error: BaseException, inputs: Mapping[str, Tensor]) -> str:
    if isinstance(error, PararevError):
        return str(error)
    sizes = ", ".join(f"{n} {list(t.shape)}" for n, t in inputs.items())
    return f"cannot be imported for {sizes}: {_first(error)}"


def _fired(h: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    return fire(h, threshold, ATan())


def _fired_above(h: Tensor, level: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    return fire(h - level, threshold, ATan())


def _fired_below(h: Tensor, *, level: float, threshold: float) -> tuple[Tensor, Tensor]:
    return fire(level - h, threshold, ATan())


# --- module paths


class _Tree:
    """Nested modules for a set of paths; `modules` has one for each. A module of numbered modules is a list."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.root = OnnxNetwork()
        self.modules: dict[str, Scope] = {"": self.root}
        children: dict[str, dict[str, None]] = {}
        for path in dict.fromkeys(paths):
            parts = path.split(".") if path else []
            for k in range(len(parts)):
                children.setdefault(".".join(parts[:k]), {})[parts[k]] = None
        self._grow("", self.root, frozenset(paths), children)

    def _grow(
        self, path: str, module: nn.Module, callable_paths: frozenset[str], children: Mapping[str, Mapping[str, None]]
    ) -> None:
        for name in children.get(path, ()):
            below = f"{path}.{name}" if path else name
            kinds = children.get(below, {})
            child: nn.Module
            if below not in callable_paths and kinds and all(n.isdigit() for n in kinds):
                child = nn.ModuleList()
            else:
                child = self.modules[below] = Scope()
            module.add_module(name, child)
            self._grow(below, child, callable_paths, children)


def _path(node: NodeProto, index: int) -> str:
    """The path of the module that a node stood in, read from its name; of a node without one, a path of its own."""
    scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), None) if node.metadata_props else None
    listed = _listed(scopes)
    if listed is not None:
        return _joined(listed[-2].split(".")) if len(listed) > 1 else ""
    *folders, _ = node.name.split("/") if "/" in node.name else ("", "")
    if "/" not in node.name:
        return _joined([node.name.replace(".", "_") or f"{node.op_type}_{index}"])
    parts: list[str] = []
    before = ""
    for folder in folders:
        # torch names a module inside a list after the list: "layer1/layer1.0"
        inside = before and folder.startswith(f"{before}.")
        parts += (folder[len(before) + 1 :] if inside else folder).split(".")
        before = folder
    return _joined(parts)


def _listed(scopes: str | None) -> list[str] | None:
    if scopes is None or len(scopes) > 10_000:
        return None
    try:
        names = ast.literal_eval(scopes)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return names if isinstance(names, list) and names and all(isinstance(s, str) for s in names) else None


def _joined(parts: Sequence[str]) -> str:
    words = [re.sub(r"\W", "_", p) for p in parts if p][: limits.MODULE_DEPTH]
    return ".".join(f"{w}_" if w in _reserved() else w for w in words)


@cache
def _reserved() -> frozenset[str]:
    """Names that a module has already."""
    return frozenset(dir(OnnxNetwork())) | frozenset(dir(nn.ModuleList()))


def _free(module: nn.Module, base_name: str) -> str:
    """An attribute name that the module does not use yet."""
    base = re.sub(r"\W", "_", base_name)
    name, k = base, 1
    while hasattr(module, name):
        k += 1
        name = f"{base}_{k}"
    return name
