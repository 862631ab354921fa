"""A NIR graph (neuromorphic intermediate representation) as a torch network over time steps.

Pedersen et al., "Neuromorphic intermediate representation: A unified instruction set for interoperable brain-inspired
computing", Nature Communications 15, 2024, DOI 10.1038/s41467-024-52259-9, gives neurons as differential equations.
Here they take forward Euler steps of length dt, from rest at 0, an input x per step:

    LI       v ← v + dt/τ · (v_leak − v + R·x)
    LIF      the same, then z = [v > θ], and v ← v_reset where z = 1
    CubaLI   i ← i + dt/τ_syn · (w_in·x − i),  v ← v + dt/τ_mem · (v_leak − v + R·i)    (the new i, as snnTorch does)
    CubaLIF  the same, then z and the reset as LIF
    I, IF    v ← v + R·x, one unit of charge per step whatever dt is (as snnTorch, Norse and Sinabs do)

Tensors are `[T, B, ...]`. A graph without a cycle runs node after node over all T. In a cycle the nodes run step by
step, and spikes that close it arrive one step later, zeros at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pararev_hw import limits
from pararev_hw.errors import BadFile, BadInput, MissingDependency, PararevError, first_line
from pararev_hw.importers.imported import Imported, next_float
from pararev_hw.models.neurons import fire, integrate, leak, reset
from pararev_hw.models.surrogates import ATan, Surrogate
from pararev_hw.types import CONTROL

DEFAULT_TIMESTEPS = 16  # a NIR file has none
DEFAULT_DT_S = 1e-4  # of the NIR paper's experiments, and of snnTorch

Edge = tuple[str, str]


def load_nir(
    path: str | Path,
    *,
    batch: int = 32,
    timesteps: int | None = None,
    input_shape: Sequence[int] | None = None,
    dt_s: float = DEFAULT_DT_S,
) -> Imported:
    """The network of a NIR file, for inputs `[T, B, ...]`.

    `input_shape` is that of one sample at one step, needed where the file gives none. Raises BadFile for a file that
    is broken, BadInput for a node that is not supported, MissingDependency without the package `nir`.
    """
    file = Path(path)
    graph = _read(file)
    network = nir_network(graph, dt_s=dt_s, source=str(file))
    steps = DEFAULT_TIMESTEPS if timesteps is None else timesteps
    inputs: list[Tensor] = []
    for name, sizes in network.input_sizes.items():
        shape = input_shape if input_shape is not None and (sizes is None or not inputs) else sizes
        if shape is None:
            raise BadInput(f"{file}: input {name!r} has no shape: give --input-shape, without batch and time")
        if sizes is not None and tuple(shape) != sizes:
            raise BadInput(f"{file}: input {name!r} has shape {sizes}, not {tuple(shape)}: leave --input-shape out")
        inputs.append(torch.empty((steps, batch, *shape), device="meta"))
    notes = [
        f"{file.name}: neurons take Euler steps of {dt_s:g} s; IF and I add R·x per step",
        "spikes: ATan surrogate",
    ]
    if timesteps is None:
        notes.append(f"{steps} time steps assumed: a NIR file has none")
    return Imported(network, tuple(inputs), batch, steps, True, tuple(notes))


def nir_network(graph: Any, *, dt_s: float = DEFAULT_DT_S, source: str = "the graph") -> NirNetwork:
    """The network of a `nir.NIRGraph`: inputs `[T, B, ...]`, in the order of the graph's Input nodes.

    Gives the output `[T, B, ...]`, or a tuple of them. Raises BadInput where a node is not supported.
    """
    if not dt_s > 0:
        raise BadInput(f"dt is {dt_s} s: it must be above 0")
    every = list(_nodes(graph, "", 0, source))
    missing = [(n, type(x).__name__) for n, x in every if type(x).__name__ not in _MAKE and not _is_graph(x)]
    if missing:
        kinds = ", ".join(sorted({kind for _, kind in missing}))
        raise BadInput(
            f"{source}: {len(missing)} of {len(every)} nodes are not supported: {kinds} "
            f"(the first is node {missing[0][0]!r})"
        )
    return NirNetwork(graph, dt_s, source)


# --- the file


def _read(file: Path) -> Any:
    try:
        import h5py  # both come with the extra `interop`, for these files alone
        import nir
    except ImportError as error:
        raise MissingDependency(f"reading {file} needs the package nir: pip install 'pararev-hw[interop]'") from error
    if not file.is_file():
        raise BadFile(f"{file}: there is no such file")
    if file.stat().st_size > limits.NETWORK_FILE_BYTES:
        raise BadFile(f"{file}: has {file.stat().st_size} bytes: at most {limits.NETWORK_FILE_BYTES} are read")
    try:
        with h5py.File(file, "r") as opened:
            size = sum(_sizes_inside(opened, h5py, 0))
        if size > limits.NETWORK_FILE_BYTES:
            raise BadFile(f"{file}: its arrays unpack to {size} bytes: at most {limits.NETWORK_FILE_BYTES} are read")
        graph = nir.read(str(file), type_check=False)
    except PararevError:
        raise
    except Exception as error:  # h5py and nir raise what they meet: OSError, KeyError, AssertionError, ValueError
        reason = first_line(error) or type(error).__name__
        raise BadFile(f"{file}: cannot be read as NIR: {reason}") from error
    if not _is_graph(graph):
        raise BadFile(f"{file}: holds a single {type(graph).__name__}: it must hold a NIRGraph")
    return graph


def _sizes_inside(group: Any, h5py: Any, depth: int) -> Iterator[int]:
    """Unpacked bytes of every array. Refuses what leads out of the file, or around in it."""
    if depth > 4 * limits.NIR_DEPTH:
        raise BadFile(f"{group.file.filename}: groups lie more than {4 * limits.NIR_DEPTH} deep")
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise BadFile(f"{group.file.filename}: {name!r} is a link: a network lies in one file")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _sizes_inside(item, h5py, depth + 1)
        elif item.external or item.is_virtual:
            raise BadFile(f"{group.file.filename}: {name!r} lies in another file: a network lies in one")
        else:
            yield int(item.nbytes)


def _is_graph(node: Any) -> bool:
    return type(node).__name__ == "NIRGraph"


def _nodes(graph: Any, prefix: str, depth: int, source: str) -> Iterator[tuple[str, Any]]:
    if depth > limits.NIR_DEPTH:
        raise BadInput(f"{source}: graphs lie more than {limits.NIR_DEPTH} deep in graphs")
    for name, node in graph.nodes.items():
        yield f"{prefix}{name}", node
        if _is_graph(node):
            yield from _nodes(node, f"{prefix}{name}.", depth + 1, source)


# --- neurons

Number = float | Tensor


class Membrane(nn.Module):
    """A leaky or plain integrator, with or without a synaptic current before it, and with or without firing.

    x `[T, B, ...]` and a state (None at rest) give spikes, or membranes where it does not fire, `[T, B, ...]`, and the
    state afterwards (None where it is not kept). The constants of Euler's method are those of the module's docstring.
    """

    def __init__(
        self,
        *,
        gain: Any = 1.0,  # of the input
        keep: Any = None,  # of v from step to step; None: all, without a multiplication
        shift: Any = 0.0,  # added to v every step
        synapse: tuple[Any, Any] | None = None,  # what the current keeps, and its gain into v
        threshold: Any = None,
        v_reset: Any = 0.0,
        surrogate: Surrogate = ATan(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.gain: Number
        self.keep: Number
        self.shift: Number
        self.current_keep: Number
        self.current_gain: Number
        self.threshold: Number
        self.v_reset: Number
        self.is_spiking_neuron = threshold is not None
        self.surrogate = surrogate
        self.has_synapse, self.leaks = synapse is not None, keep is not None
        current_keep, current_gain = synapse or (1.0, 1.0)
        parameters = {
            "gain": gain,
            "keep": 1.0 if keep is None else keep,
            "shift": shift,
            "current_keep": current_keep,
            "current_gain": current_gain,
            "threshold": 0.0 if threshold is None else threshold,
            "v_reset": v_reset,
        }
        for name, value in parameters.items():
            self._hold(name, value)

    def _hold(self, name: str, value: Any) -> None:
        """One number where all neurons share it, else a buffer."""
        array = np.asarray(value, dtype=np.float64)
        if array.size and (array == array.flat[0]).all():
            setattr(self, name, float(array.flat[0]))
        else:
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))

    def forward(self, x: Tensor, state: Any = None, keep_state: bool = False) -> tuple[Tensor, Any]:
        v, current = (None, None) if state is None else state
        x = _plus(_times(x, self.gain), 0.0 if self.has_synapse else self.shift)
        outputs = []
        # x + 0.0: what is kept must not be a view that keeps all T steps alive
        steps = x.unbind(0)
        for t, step in enumerate(steps):
            if self.has_synapse:
                current = step + 0.0 if current is None else step + _times(current, self.current_keep)
                step = _plus(_times(current, self.current_gain), self.shift)
            h = self._charge(step, v)
            if not self.is_spiking_neuron:
                outputs.append(h)
                v = h
                continue
            spikes, fired = self._fire(h)
            outputs.append(spikes)
            if keep_state or t + 1 < len(steps):
                v = self._reset(h, spikes, fired)
        return torch.stack(outputs), (v, current) if keep_state else None

    def _charge(self, x: Tensor, v: Tensor | None) -> Tensor:
        if not self.leaks:
            return integrate(x, v, rest=0.0)
        return leak(x, v, rest=0.0, decay_input=False, over_tau=lambda u: u, keep=self.keep)

    def _fire(self, h: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.threshold, float):
            return fire(h, next_float(self.threshold), self.surrogate)  # NIR fires above the threshold, not on it
        return fire(h - self.threshold, next_float(0.0), self.surrogate)

    def _reset(self, h: Tensor, spikes: Tensor, fired: Tensor) -> Tensor:
        if isinstance(self.v_reset, float):
            return reset(h, spikes, fired, threshold=0.0, v_reset=self.v_reset, detach_reset=True)
        return torch.where(fired, self.v_reset, h)


def _times(x: Tensor, by: Number) -> Tensor:
    return x if isinstance(by, float) and by == 1.0 else x * by


def _plus(x: Tensor, by: Number) -> Tensor:
    return x if isinstance(by, float) and by == 0.0 else x + by


def _leaky(node: Any, dt: float, tau: str = "tau", fires: bool = True) -> Membrane:
    share = dt / np.asarray(getattr(node, tau), dtype=np.float64)
    return Membrane(gain=share * node.r, keep=1.0 - share, shift=share * node.v_leak, **_firing(node, fires))


def _current(node: Any, dt: float, fires: bool = True) -> Membrane:
    into, share = (dt / np.asarray(t, dtype=np.float64) for t in (node.tau_syn, node.tau_mem))
    return Membrane(
        gain=into * node.w_in,
        keep=1.0 - share,
        shift=share * node.v_leak,
        synapse=(1.0 - into, share * node.r),
        **_firing(node, fires),
    )


def _integrator(node: Any, dt: float, fires: bool = True) -> Membrane:
    return Membrane(gain=node.r, **_firing(node, fires))


def _firing(node: Any, fires: bool) -> dict[str, Any]:
    return {"threshold": node.v_threshold, "v_reset": node.v_reset} if fires else {}


class Threshold(Membrane):
    """Spikes where the input lies above the threshold, without a state."""

    def forward(self, x: Tensor, state: Any = None, keep_state: bool = False) -> tuple[Tensor, Any]:
        return self._fire(x)[0], None


class Scale(nn.Module):
    """x times a trained factor."""

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.scale = _parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class SumPool2d(nn.Module):
    """Sums over windows."""

    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding, divisor_override=1)


# --- nodes without state: modules of x [B, ...], applied to all steps at once


def _parameter(array: Any) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array, dtype=np.float32)))


def _conv(node: Any, dt: float) -> nn.Module:
    weight = _parameter(node.weight)
    n = weight.dim() - 2
    kind = nn.Conv1d if n == 1 else nn.Conv2d
    groups = int(node.groups)
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    module = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        stride=_pair(node.stride, n),  # type: ignore[arg-type]
        padding=padding if isinstance(padding, str) else _pair(padding, n),  # type: ignore[arg-type]
        dilation=_pair(node.dilation, n),  # type: ignore[arg-type]
        groups=groups,
        bias=node.bias is not None,
        device="meta",  # its weights are given
    )
    module.weight = weight
    if node.bias is not None:
        module.bias = _parameter(node.bias)
    return module


def _linear(node: Any, dt: float) -> nn.Module:
    weight = _parameter(node.weight)
    if weight.dim() != 2:
        raise BadInput(f"has a weight of shape {tuple(weight.shape)}: it must be a matrix")
    bias = getattr(node, "bias", None)
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    module.weight = weight
    if bias is not None:
        module.bias = _parameter(bias)
    return module


def _pair(value: Any, n: int) -> tuple[int, ...]:
    flat = np.asarray(value).reshape(-1).tolist()
    return tuple(int(v) for v in (flat * n if len(flat) == 1 else flat))


def _pool(node: Any, dt: float) -> nn.Module:
    kernel, stride, padding = (_pair(v, 2) for v in (node.kernel_size, node.stride, node.padding))
    if type(node).__name__ == "SumPool2d":
        return SumPool2d(kernel, stride, padding)
    return nn.AvgPool2d(kernel, stride, padding)  # type: ignore[arg-type]


def _flatten(node: Any, dt: float) -> nn.Module:
    start, end = int(node.start_dim), int(node.end_dim)
    # NIR's shapes have no batch: its dimension 0 is ours 1
    return nn.Flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)


_MAKE: Mapping[str, Callable[[Any, float], nn.Module]] = {
    "Input": lambda node, dt: nn.Identity(),
    "Output": lambda node, dt: nn.Identity(),
    "Affine": _linear,
    "Linear": _linear,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Scale": lambda node, dt: Scale(node.scale),
    "Threshold": lambda node, dt: Threshold(threshold=node.threshold),
    "I": partial(_integrator, fires=False),
    "IF": _integrator,
    "LI": partial(_leaky, fires=False),
    "LIF": _leaky,
    "CubaLI": partial(_current, fires=False),
    "CubaLIF": _current,
}
_NEURONS = frozenset({"I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"})


# --- the graph


@dataclass(frozen=True, slots=True)
class _Group:
    """Nodes that run together: one node over all steps, or those of a cycle step by step."""

    nodes: tuple[str, ...]
    stepped: bool
    delayed: tuple[Edge, ...]  # edges of the cycle that bring what was made one step before


class NirGraph(nn.Module):
    """A graph with one input and one output: x `[T, B, ...]` and a state give y `[T, B, ...]` and the state."""

    def __init__(self, graph: Any, dt_s: float, source: str) -> None:
        super().__init__()
        self.source = source
        names = list(graph.nodes)
        edges = [(str(a), str(b)) for a, b in graph.edges]
        for a, b in edges:
            if a not in graph.nodes or b not in graph.nodes:
                raise BadInput(f"{source}: edge {(a, b)} joins a node that the graph does not have")
        self.inputs = tuple(n for n in names if type(graph.nodes[n]).__name__ == "Input")
        self.outputs = tuple(n for n in names if type(graph.nodes[n]).__name__ == "Output")
        if not self.inputs or not self.outputs:
            raise BadInput(f"{source}: a graph needs an Input and an Output node")
        self.input_sizes = {n: _declared(graph.nodes[n]) for n in self.inputs}
        keys = {n: f"node_{k}" if not _fit(n) else n for k, n in enumerate(names)}
        self._keys = keys
        for n in names:
            node = graph.nodes[n]
            try:
                module = (
                    NirGraph(node, dt_s, f"{source}: {n}")
                    if _is_graph(node)
                    else _MAKE[type(node).__name__](node, dt_s)
                )
            except PararevError as error:
                raise BadInput(f"{source}: node {n!r} {error}") from error
            except (TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise BadInput(f"{source}: node {n!r} cannot be used: {error}") from error
            self.add_module(keys[n], module)
        self._before = {n: tuple(a for a, b in edges if b == n) for n in names}
        lonely = [n for n in names if not self._before[n] and n not in self.inputs]
        if lonely:
            raise BadInput(f"{source}: node {lonely[0]!r} has no input")
        neurons = {n for n in names if type(graph.nodes[n]).__name__ in _NEURONS or _is_graph(graph.nodes[n])}
        self._groups = tuple(_groups(names, edges, neurons))
        self._read_later = frozenset(self.outputs) | {a for g in self._groups for a, b in edges if b not in g.nodes}
        self._zero_sizes = {
            (a, b): _size(graph.nodes[a], graph.nodes[b], a, source) for g in self._groups for a, b in g.delayed
        }

    def forward(self, x: Tensor, state: Any = None, keep_state: bool = False) -> tuple[Tensor, Any]:
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise BadInput(f"{self.source}: a graph in a graph has one Input and one Output node")
        (y,), state = self._run((x,), state, keep_state)
        return y, state

    def _run(self, inputs: Sequence[Tensor], state: Any, keep_state: bool) -> tuple[tuple[Tensor, ...], Any]:
        values = dict(zip(self.inputs, inputs, strict=True))
        before: dict[Any, Any] = state or {}
        after: dict[Any, Any] = {}
        for group in self._groups:
            if group.stepped:
                self._run_cycle(group, values, before, after, keep_state)
                continue
            (name,) = group.nodes
            x = values[name] if name in self.inputs else _sum([values[a] for a in self._before[name]])
            values[name], after[name] = self._play(name, x, before.get(name), keep_state)
        return tuple(values[n] for n in self.outputs), after if keep_state else None

    def _run_cycle(
        self,
        group: _Group,
        values: dict[str, Tensor],
        before: Mapping[Any, Any],
        after: dict[Any, Any],
        keep_state: bool,
    ) -> None:
        outside = {a for n in group.nodes for a in self._before[n] if a not in group.nodes}
        steps = {a: torch.split(values[a], 1) for a in sorted(outside)}
        length, batch = next(values[a].shape[:2] for a in sorted(outside))
        like = next(values[a] for a in sorted(outside))
        states = {n: before.get(n) for n in group.nodes}
        earlier: dict[Edge, Tensor] = {
            e: before[e] if e in before else like.new_zeros((1, batch, *self._zero_sizes[e])) for e in group.delayed
        }
        outputs: dict[str, list[Tensor]] = {n: [] for n in group.nodes if n in self._read_later}
        for t in range(length):
            now: dict[str, Tensor] = {}
            for n in group.nodes:
                x = _sum(
                    [
                        earlier[a, n] if (a, n) in earlier else now[a] if a in group.nodes else steps[a][t]
                        for a in self._before[n]
                    ]
                )
                now[n], states[n] = self._play(n, x, states[n], keep_state or t + 1 < length)
            earlier = {e: now[e[0]] for e in earlier}
            for n, parts in outputs.items():
                parts.append(now[n])
        values.update({n: torch.cat(parts) for n, parts in outputs.items()})
        if keep_state:
            after.update(states)
            after.update(earlier)

    def _play(self, name: str, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        module = getattr(self, self._keys[name])
        if isinstance(module, nn.Identity):
            return x, None
        if isinstance(module, Membrane | NirGraph):
            y, state = module(x, state, keep_state)
            return y, state
        y = module(x.flatten(0, 1))
        return y.unflatten(0, x.shape[:2]), None


class NirNetwork(NirGraph):
    """A whole NIR graph: inputs `[T, B, ...]`, in the order of its Input nodes; its output, or a tuple of them."""

    def forward(self, *inputs: Tensor) -> Any:  # type: ignore[override]
        if len(inputs) != len(self.inputs) or any(x.dim() < 3 for x in inputs):
            raise BadInput(f"{self.source}: takes {len(self.inputs)} inputs [T, B, ...]: {', '.join(self.inputs)}")
        outputs, _ = self._run(inputs, None, False)
        return outputs[0] if len(outputs) == 1 else outputs


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for t in tensors[1:]:
        total = total + t
    return total


def _fit(name: str) -> bool:
    """Whether a node's name can name a module."""
    free = not hasattr(NirNetwork, name) and name not in ("training", "inputs")
    return bool(name) and "." not in name and not CONTROL.search(name) and free


def _declared(node: Any) -> tuple[int, ...] | None:
    shape = (node.input_type or {}).get("input")
    return None if shape is None else tuple(int(n) for n in np.asarray(shape).reshape(-1))


def _size(node: Any, reader: Any, name: str, source: str) -> tuple[int, ...]:
    """Shape of what a node gives per step, for the zeros before its first step."""
    if type(reader).__name__ in ("Linear", "Affine"):
        return (int(np.asarray(reader.weight).shape[-1]),)
    if _is_graph(node):
        inner = next((n for n in node.nodes.values() if type(n).__name__ == "Output"), None)
        shape = None if inner is None else (inner.output_type or {}).get("output")
    else:
        shape = (node.output_type or {}).get("output")
    if shape is None or not len(shape):
        raise BadInput(f"{source}: node {name!r} stands in a cycle and has no shape: give it parameters of full shape")
    return tuple(int(n) for n in shape)


# --- cycles


def _groups(names: Sequence[str], edges: Sequence[Edge], neurons: set[str]) -> Iterator[_Group]:
    """The graph's strongly connected parts, in an order that respects the edges between them."""
    part = _parts(names, edges)
    members: dict[str, list[str]] = {}
    for n in names:
        members.setdefault(part[n], []).append(n)
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(members, ()))
    for a, b in edges:
        if part[a] != part[b]:
            order.add(part[b], part[a])
    for p in order.static_order():
        inside = [(a, b) for a, b in edges if part[a] == part[b] == p]
        delayed = tuple(_delayed(members[p], inside, neurons))
        inner: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(members[p], ()))
        for a, b in inside:
            if (a, b) not in delayed:
                inner.add(b, a)
        yield _Group(tuple(inner.static_order()), bool(inside), delayed)


def _parts(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, str]:
    """The first node (by order) of every node's strongly connected part."""
    after: dict[str, list[str]] = {n: [] for n in names}
    before: dict[str, list[str]] = {n: [] for n in names}
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
    part: dict[str, str] = {}
    for n in names:
        if n not in part:
            for m in _reached(n, after) & _reached(n, before):
                part[m] = n
    return part


def _reached(start: str, after: Mapping[str, Sequence[str]]) -> set[str]:
    visited, waiting = {start}, [start]
    while waiting:
        for n in after[waiting.pop()]:
            if n not in visited:
                visited.add(n)
                waiting.append(n)
    return visited


def _delayed(names: Sequence[str], edges: Sequence[Edge], neurons: set[str]) -> Iterator[Edge]:
    """Edges whose delay leaves no cycle: of every cycle one that leaves a neuron, where it has one."""
    left = list(edges)
    while (cycle := _cycle(names, left)) is not None:
        pairs = list(zip(cycle, (*cycle[1:], cycle[0]), strict=True))
        edge = next((e for e in pairs if e[0] in neurons), pairs[-1])
        left.remove(edge)
        yield edge


def _cycle(names: Sequence[str], edges: Sequence[Edge]) -> list[str] | None:
    """The nodes of some cycle, or None: what is left when nodes without an edge into them are taken away holds one."""
    nodes = set(names)
    while True:
        entered = {b for a, b in edges if a in nodes and b in nodes}
        if entered == nodes:
            break
        nodes = entered
    if not nodes:
        return None
    before = {b: a for a, b in reversed(list(edges)) if a in nodes and b in nodes}
    walk = [next(n for n in names if n in nodes)]
    while before[walk[-1]] not in walk:
        walk.append(before[walk[-1]])
    return walk[walk.index(before[walk[-1]]) :][::-1]
