"""A traced step: ops, the storages they touch, the tasks they form, and the program that runs it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pararev_hw.types.base import SCHEMA_VERSION, VALUES_ASKED, Phase, Role, html_table, mebibytes
from pararev_hw.types.table import Table

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True)
class OpType:
    """What an op is and what it moves, apart from where it stands: many ops of a step share one.

    `flops` counts convolutions and matrix products as torch's `FlopCounterMode` does (a MAC is two flops), also those
    inside of fused ops that it does not know, and is 0 for every other kind; `vector_flops` counts the elementwise,
    normalisation, pooling and reduction work by `pararev_hw.tracing.formulas`, and is None for an op that has no
    formula. A view moves no bytes.
    """

    name: str  # "aten.convolution.default"
    kind: str  # "conv", "conv_backward", "gemm", "elementwise", ... : see pararev_hw.tracing.formulas.KINDS
    dtype: str  # "float32": of the first output (of the first input for ops that only mutate)
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    # (("stride", (1, 1)), ("groups", (1,)), ...); "scattered": which inputs of a convolution are no block
    # of memory; "layout", "output_layout": how tensors lie in memory, where not all densely; "copied_bytes": of the
    # copies that a CPU's kernel makes of inputs; "library_copied_bytes": that oneDNN's makes of halves
    attributes: tuple[tuple[str, tuple[int, ...]], ...]
    flops: int
    vector_flops: int | None
    read_bytes: int
    write_bytes: int

    @property
    def macs(self) -> int:
        return self.flops // 2

    @property
    def true_flops(self) -> int:
        """Flops that the op needs: `flops`, but for the gradients of a grouped convolution, of which each needs as many
        as the convolution; torch counts the weight's as if every input channel met every output channel. Of complex
        numbers a product is four, and torch counts one."""
        if self.dtype.startswith("complex"):
            return 4 * self.flops
        attributes = dict(self.attributes)
        if self.kind != "conv_backward" or attributes.get("groups", (1,))[0] == 1:
            return self.flops
        gradient, image, weight = self.input_shapes[:3]
        places = image if attributes.get("transposed", (0,))[0] else gradient
        forward = 2 * math.prod(weight) * places[0] * math.prod(places[2:])
        return forward * sum(attributes.get("output_mask", (1, 1))[:2])

    @property
    def true_macs(self) -> int:
        return self.true_flops // 2


@dataclass(frozen=True, slots=True)
class Op:
    """One aten operation of the step. `reads` and `writes` are storage ids, `after` the ops it must follow."""

    type: int  # index into BlockGraph.op_types
    module: str  # "stages.0.blocks.1.f.conv1"; "" is the network itself or code outside any module
    phase: Phase
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    after: tuple[int, ...]  # indices into BlockGraph.ops, always smaller than this op's own


@dataclass(frozen=True, slots=True)
class Storage:
    """A piece of memory. `born` is the op that made it (-1: there before the step), `freed` the op after which eager
    PyTorch let it go (the number of ops, if it outlives the step)."""

    bytes: int
    role: Role
    born: int
    freed: int


THE_NETWORK = "the network itself"  # in tables, the name of the module that has no path


def task_id(block: str, branch: str, phase: str, number: int) -> str:
    """The id of the `number`-th group of a block, branch and phase: "stages.0.blocks.1.f:backward", "#2" for a second
    call of the block."""
    name = ".".join(part for part in (block, branch) if part)
    return f"{name}:{phase}" + (f"#{number}" if number > 1 else "")


@dataclass(frozen=True, slots=True)
class Task:
    """A schedulable group of ops: one branch of one block in one phase. `branch` is "" where the block has but one,
    and "join" for the sums that bring branches together."""

    id: str
    block: str
    branch: str
    phase: Phase
    ops: tuple[int, ...]  # indices into BlockGraph.ops, in program order
    flops: int
    vector_flops: int
    read_bytes: int
    write_bytes: int
    sops: int | None = None  # synaptic operations of the spiking inputs, None where no spikes were measured or assumed

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True, slots=True)
class Edge:
    """`dst` cannot start before `src` has ended; `bytes` flow (0: an ordering of accesses, or a view)."""

    src: int  # indices into BlockGraph.tasks, src < dst in at least one topological order
    dst: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LayerSpikes:
    """Activity of the input of one convolution or matrix product over all T, per sample.

    `density` is the share of non-zero elements; `sops` the exact number of synaptic operations, the sum over input
    spikes of their fan-out (borders, strides and groups included; a summed spike of value 2 counts twice; of two
    operands of spikes, the pairs that meet); `dense_macs` the MACs as torch counts them, which takes the zeros of a
    padded border for work: so `density x dense_macs` exceeds `sops` by the border's share. `spiking` is False for an
    analog input (values other than 0 and one constant of either sign, or small integers), which counts as MACs.
    """

    module: str  # the layer's module path; "attn:2" is the second product of a module that has several
    density: float
    sops: float
    dense_macs: float
    spiking: bool
    channel_density: tuple[float, ...] = ()  # share of non-zero elements of each input channel
    effective_ops: float | None = None  # MACs or accumulates whose activation and weight are both not zero
    connection_sparsity: float | None = None  # share of weights that are zero
    largest: int = 1  # the most spikes that are summed in one element


@dataclass(frozen=True, slots=True)
class NeuronSpikes:
    """Output of one population of spiking neurons over all T, per sample."""

    module: str  # "net:2" is the second population of a module that has several
    updates: float  # membrane updates: one per neuron and time step
    spikes: float
    rate_deviation_time: float | None = None  # standard deviation of the firing rate over time steps
    rate_deviation_channels: float | None = None  # and over channels

    @property
    def rate(self) -> float:
        return self.spikes / self.updates if self.updates else 0.0


@dataclass(frozen=True, slots=True)
class Spikes:
    """Where the spike figures come from and what they are. `measured` False: `rate` was assumed for every layer."""

    measured: bool
    source: str  # "digits, 16 samples, random weights" or "assumed rate 0.15"
    rate: float  # mean density over spiking layers
    layers: tuple[LayerSpikes, ...]
    neurons: tuple[NeuronSpikes, ...] = ()


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Memory of the step as eager PyTorch runs it, from the life of every storage. All in bytes."""

    peak_bytes: int
    saved_bytes: int  # made in forward and read again by backward or recompute
    parameter_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    input_bytes: int
    peak_op: int  # the op during which the peak is reached


class InMemory:
    """Holds a value that belongs to this process alone: a copy or a pickle of it holds None. `make` gives the value
    when it is first asked for."""

    __slots__ = ("_make", "_value")

    def __init__(self, value: Any = None, make: Callable[[], Any] | None = None) -> None:
        self._value, self._make = value, make

    @property
    def value(self) -> Any:
        if self._make is not None:
            self._value, self._make = self._make(), None
        return self._value

    def __reduce__(self) -> tuple[type[InMemory], tuple[()]]:
        return (InMemory, ())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        from pydantic_core import core_schema  # heavy, and only files need it

        return core_schema.is_instance_schema(cls)


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module of the network: its class, how many parameters are its own (not those of modules inside it), and the
    shapes of the first tensor that its first call is given and of the first one that it gives (None: none)."""

    path: str
    type: str
    parameters: int
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a step.

    `flops` and `macs` are those of convolutions and matrix products, as torch counts them; `true_flops` counts a
    grouped convolution's weight gradient as what it is. `sops` are synaptic operations, None where no spikes were
    measured or assumed.
    """

    ops: int
    flops: int
    true_flops: int
    macs: int
    vector_flops: int
    read_bytes: int
    write_bytes: int
    sops: int | None
    unknown_ops: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A module's part of a step: shapes of its forward pass, work and costs of all its passes."""

    module: str
    type: str
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    parameters: int
    macs: int  # as torch counts them
    true_macs: int  # a grouped convolution's weight gradient as what it is
    forward_macs: int
    sops: int | None  # synaptic operations; None where its inputs are no spikes, or nothing is known of them
    rate: float | None  # share of its inputs that are not zero
    saved_bytes: int
    time_s: float | None = None
    energy_j: float | None = None
    energy_by_phase_j: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class BlockGraph:
    """A traced step: ops, the storages they touch, and the tasks they form. Tasks are in a topological order."""

    model: str
    mode: Literal["train", "infer"]
    batch: int
    timesteps: int | None
    dtype: str
    granularity: str
    input_shapes: tuple[tuple[int, ...], ...]
    parameters: int
    op_types: tuple[OpType, ...]
    ops: tuple[Op, ...]
    storages: tuple[Storage, ...]
    tasks: tuple[Task, ...]
    edges: tuple[Edge, ...]
    memory: StepMemory
    spikes: Spikes | None = None
    assumptions: tuple[str, ...] = ()
    replayable: InMemory = field(
        default_factory=InMemory, compare=False, repr=False
    )  # the step's program, if traced here
    modules: tuple[ModuleInfo, ...] = ()
    schema_version: int = SCHEMA_VERSION
    origin: InMemory = field(default_factory=InMemory, compare=False, repr=False)  # what was traced, to run it again

    def __repr__(self) -> str:
        step = f"{self.mode}, batch {self.batch}" + ("" if self.timesteps is None else f", T {self.timesteps}")
        return (
            f"<BlockGraph of {self.model} ({step}): {len(self.ops):,} ops in {len(self.tasks):,} tasks, "
            f"peak {mebibytes(self.memory.peak_bytes)}>"
        )

    def _repr_html_(self) -> str:
        totals = self.totals
        return html_table(
            f"{self.model}: {self.mode} step, batch {self.batch}"
            + ("" if self.timesteps is None else f", T {self.timesteps}"),
            ("parameters", f"{self.parameters:,}"),
            ("operations", f"{totals.ops:,} in {len(self.tasks)} tasks"),
            ("MACs", f"{totals.macs:,}"),
            ("synaptic operations", "not counted" if totals.sops is None else f"{totals.sops:,}"),
            ("peak memory", mebibytes(self.memory.peak_bytes)),
            ("saved for backward", mebibytes(self.memory.saved_bytes)),
        )

    @property
    def program(self) -> Program | None:
        """The step as something that runs; None for a graph that was read from a file or came from another process."""
        program: Program | None = self.replayable.value
        return program

    @property
    def arithmetic(self) -> str:
        """The datatype that most of the step's work is done in: "float16" for a network cast by `.half()`, otherwise
        `dtype`.

        Example:
            >>> import pararev_hw as ph, torch
            >>> ph.trace(torch.nn.Linear(4, 3).half(), torch.zeros(2, 4).half(), mode="infer").arithmetic
            'float16'
        """
        flops: dict[str, int] = {}
        for op in self.ops if self.dtype == "float32" else ():
            t = self.op_types[op.type]
            if t.flops:
                flops[t.dtype] = flops.get(t.dtype, 0) + t.flops
        return max(flops, key=flops.__getitem__, default=self.dtype)

    @property
    def values_asked(self) -> str | None:
        """The assumption of a step whose host waits for what tensors hold, None where it need not wait."""
        return next((a for a in self.assumptions if a.startswith(VALUES_ASKED)), None)

    @property
    def totals(self) -> Totals:
        """Sums over the step.

        Example:
            >>> import pararev_hw as ph, torch
            >>> ph.trace(torch.nn.Linear(4, 3), torch.zeros(2, 4), mode="infer").totals.macs  # 2 x 4 x 3
            24
        """
        flops = sum(t.flops for t in self.tasks)
        sops = [t.sops for t in self.tasks if t.sops is not None]
        return Totals(
            ops=len(self.ops),
            flops=flops,
            true_flops=sum(self.op_types[op.type].true_flops for op in self.ops),
            macs=flops // 2,
            vector_flops=sum(t.vector_flops for t in self.tasks),
            read_bytes=sum(t.read_bytes for t in self.tasks),
            write_bytes=sum(t.write_bytes for t in self.tasks),
            sops=sum(sops) if sops else None,
            unknown_ops=sum(self.unknown_ops.values()),
        )

    def layers(self) -> Table[Layer]:
        """A row for each module that runs an operation, in the order in which they first run.

        Returns:
            A table of `Layer`; `.to_pandas()` makes a data frame of it.

        Example:
            >>> import pararev_hw as ph, torch
            >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
            >>> graph = ph.trace(net, torch.zeros(2, 4), mode="infer")
            >>> graph.layers().to_pandas()[["module", "parameters", "macs"]].values.tolist()
            [['0', 15, 24], ['1', 0, 0]]
        """
        from pararev_hw.graph.layers import layers  # a noun that offers what stands above it: see pyproject.toml

        rows = layers(self)
        of_device = ("time_s", "energy_j", "energy_by_phase_j")
        columns = tuple(name for name in Layer.__slots__ if name not in of_device)
        cells = tuple(tuple(getattr(row, name) for name in columns) for row in rows)
        return Table(f"{self.model}: {len(rows)} layers of one step", rows, columns, cells)

    def to_networkx(self) -> nx.DiGraph:
        """The tasks and the bytes that flow between them, for networkx's algorithms.

        Returns:
            A `networkx.DiGraph` whose nodes are task ids with the fields of `Task`, and whose edges have `bytes`.

        Example:
            >>> import networkx as nx, pararev_hw as ph
            >>> nx.is_directed_acyclic_graph(ph.trace("pararevsnn21", width=0.1, batch=1).to_networkx())
            True
        """
        import networkx as nx  # heavy, and only asked for here

        graph = nx.DiGraph(model=self.model)
        for t in self.tasks:
            graph.add_node(t.id, **{name: getattr(t, name) for name in Task.__slots__})
        graph.add_edges_from((self.tasks[e.src].id, self.tasks[e.dst].id, {"bytes": e.bytes}) for e in self.edges)
        return graph

    def save(self, path: str | Path) -> None:
        """Write the graph as JSON, the file of `pararev-hw trace`; `ph.load_graph` reads it.

        Args:
            path: The file. It is replaced as a whole or not at all.

        Raises:
            BadFile: The file cannot be written.
        """
        from pararev_hw.graph.files import save

        save(self, path)

    @property
    def unknown_ops(self) -> Mapping[str, int]:
        """Op name -> how often it occurs, for ops that have no formula."""
        counts: dict[str, int] = {}
        for op in self.ops:
            t = self.op_types[op.type]
            if t.vector_flops is None:
                counts[t.name] = counts.get(t.name, 0) + 1
        return dict(sorted(counts.items()))


@dataclass(frozen=True, slots=True)
class Hole:
    """Stands for the k-th tensor in the arguments of a `Call`."""

    index: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments with holes where the tensors go; many instructions share one."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Instruction:
    """Op k of the step, ready to run again: `inputs` fill the holes, `outputs` receive the results (None: no tensor).

    Two random instructions with the same `rng` token draw the same numbers, as a recomputation that restores the
    generator's state does; -1 where nothing is random.
    """

    call: int
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    rng: int = -1


@dataclass(frozen=True, slots=True)
class Program:
    """The traced step as something that runs: instruction k is `BlockGraph.ops[k]`. Lives in memory only.

    Slots name tensors. `externals` are those that exist before the step, by name ("parameter:stem.weight", "input:0"),
    `constants` those that the network's code brought along, `results` what the step leaves ("gradient:stem.weight",
    "output:0", "loss").
    """

    calls: tuple[Call, ...]
    instructions: tuple[Instruction, ...]
    externals: Mapping[int, str]
    constants: Mapping[int, Any]
    results: Mapping[str, int]
    # per call, a digest of the function, its scalars, and its tensors' shapes, strides and datatypes
    signatures: tuple[str, ...] = ()
    # shape, strides and datatype of each external that an op looks at
    layouts: Mapping[int, tuple[tuple[int, ...], tuple[int, ...], str]] = field(default_factory=dict)
    # how often eager PyTorch calls into Python in "forward" or "backward": "modules", custom autograd "functions" and
    # their "backwards", "packs" of saved tensors
    python_calls: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The longest chain of tasks: through the whole step, and within each phase alone. `weight` says in what."""

    tasks: tuple[str, ...]
    length: float
    by_phase: Mapping[Phase, tuple[str, ...]]
    weight: str  # "work": flops + vector flops; "time_s": seconds on a device
