"""The schema of a device: every figure it may give, with its unit, its meaning and the kinds of device that need it.

A name carries its unit (`_s`, `_j`, `_bytes`, `_per_s`); a suffix after a dot is the datatype it holds for. A device
file may leave out a figure that its kind does not need, and may give no figure that is not listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pararev_hw.devices.gpu_law import CARD, CLOCKS, HOST, LAW, POWER
from pararev_hw.devices.instruction_sets import InstructionSet

_CHIPS = ("gpu", "cpu", "accelerator")  # devices that compute densely and have a main memory


@dataclass(frozen=True, slots=True)
class Quantity:
    """Unit and meaning of a parameter, and the kinds of device whose prediction cannot do without it.

    A parameter with `choices` is one of these words; its value is the word's number in that order.
    """

    unit: str
    meaning: str
    needed_by: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def span(self) -> tuple[float, float]:
        """Between which values a machine can have it, both included."""
        return (0.0, len(self.choices) - 1.0) if self.choices else _SPANS[self.unit]

    @property
    def positive(self) -> bool:
        """Whether zero is no value for it."""
        return self.span[0] > 0

    @property
    def whole(self) -> bool:
        """Whether it is a word or a switch, which have no values in between."""
        return bool(self.choices) or self.unit == "0 or 1"

    def shown(self, value: float) -> float | str:
        """The value as people read and write it: a word where it stands for one."""
        return self.choices[int(value)] if self.choices else value


# Far wider than any machine: what lies outside is a slip of the pen (J for pJ), and would give times and energies that
# no float holds.
_SPANS: Mapping[str, tuple[float, float]] = {
    "flop/s": (1e3, 1e21),
    "byte/s": (1e3, 1e18),
    "flop": (0.0, 1e18),
    "byte": (0.0, 1e18),
    "count": (1.0, 1e9),
    "0 or 1": (0.0, 1.0),
    "1": (0.0, 1e6),
    "factor": (1e-6, 1e6),
    "s": (0.0, 10.0),
    "J": (0.0, 1.0),
    "nm": (1.0, 1e3),
    "mm2": (0.0, 1e4),
    "mm2/byte": (0.0, 1.0),
    "J/byte": (0.0, 1.0),
    "W": (0.0, 1e7),
    "W/byte": (0.0, 1.0),
    "1/s": (1.0, 1e15),
    "share": (0.0, 1.0),
    "bit": (0.0, 64.0),
    "cores": (0.0, 1e6),
    "cycle": (0.0, 1e6),
    "byte/cycle": (1e-3, 1e6),
}


def _by_dtype(stem: str, unit: str, meaning: str, dtypes: Mapping[str, tuple[str, ...]]) -> dict[str, Quantity]:
    return {f"{stem}.{d}": Quantity(unit, f"{meaning}, {d}", kinds) for d, kinds in dtypes.items()}


SECOND_KIND = ".second"  # ends the name of a figure that holds for a chip's second kind of core
_OF_A_CORE = (
    "pe_rows", "pe_columns", "dataflow", "systolic", "clock_hz", "zero_skipping", "event_overhead_cycles",
    "weight_gradient_skipping", "neuron_updates_per_s", "neuron_update_energy_j", "sram_bytes_per_lane", "sram_banks",
    "sram_bank_read_bytes", "sram_bank_write_bytes", "sram_energy_j_per_byte", "vector_flops_per_s.float32",
    "energy_per_mac_j.float32", "energy_per_ac_j.float32",
)  # fmt: skip

BARRIER_TILES = (2, 4, 8, 16, 29, 32, 64)  # from how many tiles on a barrier may have a time of its own

_FIRST: Mapping[str, Quantity] = {
    # What one lane computes: on a GPU the whole chip, which its lanes share; elsewhere one core.
    **_by_dtype(
        "matrix_flops_per_s",
        "flop/s",
        "peak rate of convolutions and matrix products (a MAC is two flops)",
        {"float64": (), "float32": _CHIPS, "tfloat32": (), "bfloat16": (), "float16": (), "int8": ()},
    ),
    **_by_dtype(
        "conv_flops_per_s",
        "flop/s",
        "rate of convolutions, where it is known apart from matrix products",
        {"float64": (), "float32": (), "bfloat16": (), "float16": ()},
    ),
    **_by_dtype(
        "conv_backward_flops_per_s",
        "flop/s",
        "rate of the gradients of convolutions, where it is known apart from convolutions",
        {"float64": (), "float32": (), "bfloat16": (), "float16": ()},
    ),
    **_by_dtype(
        "vector_flops_per_s",
        "flop/s",
        "peak rate of elementwise work, normalisation, pooling and reductions",
        {"float64": (), "float32": _CHIPS, "bfloat16": (), "float16": ()},
    ),
    "matrix_half_work_flops": Quantity(
        "flop", "work of a matrix kernel at which it reaches half its peak rate: peak x work / (work + half work)"
    ),
    "bandwidth_half_work_bytes": Quantity(
        "byte", "traffic of a kernel at which it reaches half the bandwidth: peak x bytes / (bytes + half bytes)"
    ),
    "parallel_units": Quantity("count", "streaming multiprocessors that the lanes share", ("gpu",)),
    "matrix_elements_per_unit": Quantity(
        "count", "output elements of a matrix kernel that keep one unit busy", ("gpu",)
    ),
    "vector_elements_per_unit": Quantity(
        "count", "output elements of an elementwise kernel that keep one unit busy", ("gpu",)
    ),
    "zero_skipping": Quantity("0 or 1", "1 where the matrix unit skips inputs that are zero, as spikes mostly are"),
    # A core's array of processing elements: a device that gives `pe_rows` is costed by its cores.
    "pe_rows": Quantity("count", "rows of a core's array of processing elements (PEs)"),
    "pe_columns": Quantity("count", "columns of a core's array of PEs"),
    "dataflow": Quantity(
        "word",
        "what stays in the array while the rest streams by",
        choices=("output-stationary", "weight-stationary", "input-stationary", "event-driven"),
    ),
    "systolic": Quantity("0 or 1", "1 where operands pass from PE to PE, 0 where buses bring them to all at once"),
    "clock_hz": Quantity("1/s", "clock of the cores"),
    **_by_dtype(
        "pe_macs_per_cycle",
        "count",
        "multiply-accumulates of one PE in one cycle, 1 where it is not given",
        {"float32": (), "bfloat16": (), "float16": (), "int8": ()},
    ),
    "activation_bits": Quantity("bit", "width of activations and membranes on the chip; 0: as in the traced network"),
    "weight_bits": Quantity("bit", "width of weights and optimizer state on the chip; 0: as in the traced network"),
    "spike_bits": Quantity("bit", "width of a spike on the chip; 0: that of an activation"),
    "gradient_bits": Quantity("bit", "width of gradients on the chip; 0: that of an activation"),
    "accumulator_bits": Quantity("bit", "width of a partial sum; 0: that of an operand, at least 32"),
    "event_overhead_cycles": Quantity("cycle", "what skipping zeros costs on top for each input that is not zero"),
    "event_overhead_energy_j": Quantity("J", "what skipping zeros takes on top for each input that is not zero"),
    "weight_gradient_skipping": Quantity("0 or 1", "1 where the weight gradient, too, skips inputs that are zero"),
    "neuron_updates_per_s": Quantity("1/s", "neurons that one core can update; not given: its vector unit does it"),
    # Memory and what connects it.
    "memory_bytes": Quantity("byte", "capacity of the main memory", _CHIPS),
    "memory_bandwidth_bytes_per_s": Quantity("byte/s", "bandwidth of the main memory, shared by all lanes", _CHIPS),
    "lane_bandwidth_bytes_per_s": Quantity("byte/s", "the most of the main memory's bandwidth that one lane can use"),
    "sram_bytes_per_lane": Quantity("byte", "on-chip memory of one core", ("accelerator",)),
    "sram_bandwidth_bytes_per_s": Quantity("byte/s", "bandwidth of one core's on-chip memory", ("accelerator",)),
    "sram_banks": Quantity("count", "banks of a core's memory, each with a port to read and one to write"),
    "sram_bank_read_bytes": Quantity("byte/cycle", "what one bank reads in a cycle"),
    "sram_bank_write_bytes": Quantity("byte/cycle", "what one bank writes in a cycle"),
    "sram_tile_share": Quantity(
        "share", "part of a core's memory that holds tiles of the running layer, 0.5 if not given"
    ),
    "sram_weight_share": Quantity(
        "share", "part of a core's memory that keeps weights over the step, 0.25 if not given"
    ),
    "global_buffer_bytes": Quantity("byte", "on-chip memory that all cores share, between theirs and the main memory"),
    "global_buffer_bandwidth_bytes_per_s": Quantity("byte/s", "bandwidth of the global buffer for one core"),
    "global_buffer_weight_share": Quantity("share", "part of the global buffer that keeps weights, 0.5 if not given"),
    "dram_latency_s": Quantity("s", "delay until a layer's first bytes arrive from the main memory"),
    "noc_topology": Quantity("word", "how the network on chip joins the cores", choices=("bus", "ring", "mesh")),
    "noc_bandwidth_bytes_per_s": Quantity("byte/s", "bandwidth between two cores", ("accelerator",)),
    "noc_latency_s": Quantity(
        "s",
        "delay of a message between two cores, for each link it crosses where a topology is given",
        ("accelerator",),
    ),
    # Libraries.
    "instruction_set": Quantity(
        "word",
        "the widest instructions that oneDNN may use on a CPU: they decide what convolutions and recurrent kernels "
        "allocate beside their tensors; avx512_core where it is not given",
        choices=tuple(i.name.lower() for i in InstructionSet),
    ),
    "second_level_cache_bytes": Quantity(
        "byte",
        "a core's second-level cache: oneDNN unfolds as much of an image at a time as suits it; 1 MiB where it is "
        "not given",
    ),
    **{
        f"allocation_rule.{dtype}": Quantity(
            "word",
            "the instruction set whose rule convolutions were seen to follow in what they allocate beside their "
            f"tensors, where it is not that of the machine, {dtype}",
            choices=tuple(i.name.lower() for i in InstructionSet),
        )
        for dtype in ("float32", "bfloat16")
    },
    **_by_dtype(
        "conv_workspace_ratio",
        "1",
        "what convolutions were seen to allocate beside their tensors, over what the nearest rule says; "
        "1 where it is not given",
        {"float32": (), "bfloat16": ()},
    ),
    **_by_dtype(
        "conv_backward_workspace_ratio",
        "1",
        "the same of the gradients of convolutions",
        {"float32": (), "bfloat16": ()},
    ),
    # Overheads.
    "launch_overhead_s": Quantity("s", "device time per kernel that is neither compute nor traffic", ("gpu",)),
    "host_overhead_s": Quantity("s", "host time per op of an eager step", ("gpu", "cpu")),
    "graph_launch_overhead_s": Quantity("s", "the same between two kernels of a CUDA graph"),
    "host_view_overhead_s": Quantity("s", "host time per eager op that launches nothing: a view, an allocation"),
    "lane_sync_s": Quantity("s", "delay until a lane sees that another lane's task has ended"),
    # Events of a neuromorphic core.
    "synaptic_event_s": Quantity("s", "time of one synaptic event on one core", ("neuromorphic",)),
    "synaptic_event_s.convolution": Quantity(
        "s", "the same where a convolution shares its weights; that of any layer where it is not given"
    ),
    "neuron_update_s": Quantity("s", "time of one neuron update on one core", ("neuromorphic",)),
    "spike_s": Quantity("s", "time of one spike on the core that sends it", ("neuromorphic",)),
    "message_s": Quantity("s", "time of sending one message out of a core"),
    "message_in_s": Quantity("s", "time of taking one message into a core, without its synaptic events"),
    "hop_s": Quantity("s", "time of one message over one link of the mesh, east or west"),
    "hop_s.vertical": Quantity("s", "the same north or south, where it differs"),
    "link_buffer_messages": Quantity("count", "messages that may wait at one link before senders are held back"),
    "barrier_s": Quantity("s", "time of the barrier that ends each time step", ("neuromorphic",)),
    **{
        f"barrier_s.{tiles}_tiles": Quantity("s", f"the same where {tiles} tiles or more take part")
        for tiles in BARRIER_TILES
    },
    "time_step_s": Quantity("s", "the least that a time step lasts: the tick of a chip that runs in real time"),
    "synaptic_update_s": Quantity("s", "time of changing one weight by a learning rule"),
    "learning_rule": Quantity("word", "what changes weights in a training step", choices=("none", "stdp")),
    # What a neuromorphic chip has room for.
    "neurons_per_core": Quantity("count", "neurons of one core"),
    "axons_in_per_core": Quantity("count", "neurons, on any core, whose spikes one core can tell apart"),
    "axons_out_per_core": Quantity("count", "pairs of a neuron of a core and a core that it sends spikes to"),
    "synapse_bytes_per_core": Quantity("byte", "memory of one core for weights; convolutions keep a kernel once"),
    "cores_per_tile": Quantity("count", "cores at one stop of the mesh, 1 where it is not given"),
    "mesh_columns": Quantity("count", "tiles of one chip from west to east"),
    "mesh_rows": Quantity("count", "tiles of one chip from south to north"),
    "chips": Quantity("count", "chips side by side, whose meshes are joined"),
    # Energy.
    **_by_dtype(
        "energy_per_mac_j",
        "J",
        "energy of one multiply-accumulate",
        {"float64": (), "float32": _CHIPS, "tfloat32": (), "bfloat16": (), "float16": (), "int8": ()},
    ),
    **_by_dtype(
        "energy_per_ac_j",
        "J",
        "energy of one accumulate, what a spike costs where zeros are skipped",
        {"float32": (), "bfloat16": (), "float16": (), "int8": ()},
    ),
    "energy_per_vector_flop_j": Quantity("J", "energy of one elementwise operation", _CHIPS),
    "dram_energy_j_per_byte": Quantity("J/byte", "energy of main-memory traffic", _CHIPS),
    "sram_energy_j_per_byte": Quantity("J/byte", "energy of on-chip memory traffic", ("accelerator",)),
    "sram_write_energy_j_per_byte": Quantity(
        "J/byte", "energy of writes to a core's memory, where it is not that of reads"
    ),
    "sram_energy_at_bytes": Quantity(
        "byte",
        "size of the memory that those energies are of; another takes sqrt(size / this) as much; 0: any",
    ),
    "register_energy_j_per_byte": Quantity(
        "J/byte", "energy of the registers inside a PE, where the energy of a MAC does not hold it"
    ),
    "global_buffer_energy_j_per_byte": Quantity("J/byte", "energy of global-buffer traffic"),
    "noc_energy_j_per_byte": Quantity(
        "J/byte",
        "energy of traffic between cores, for each link it crosses where a topology is given",
        ("accelerator",),
    ),
    "sram_leakage_w_per_byte": Quantity("W/byte", "leakage of on-chip memory, on top of the static power"),
    "sram_area_mm2_per_byte": Quantity("mm2/byte", "area of on-chip memory, its periphery included"),
    "pe_area_mm2": Quantity("mm2", "area of one PE, its registers included"),
    "pe_leakage_w": Quantity("W", "leakage of one PE, on top of the static power"),
    "synaptic_event_energy_j": Quantity("J", "energy of one synaptic event", ("neuromorphic",)),
    "synaptic_event_energy_j.convolution": Quantity(
        "J", "the same where a convolution shares its weights; that of any layer where it is not given"
    ),
    "synaptic_update_energy_j": Quantity("J", "energy of changing one weight by a learning rule"),
    "neuron_update_energy_j": Quantity("J", "energy of one neuron update, its access included", ("neuromorphic",)),
    "spike_energy_j": Quantity("J", "energy of one spike at the neuron that fires", ("neuromorphic",)),
    "message_energy_j": Quantity("J", "energy of sending one spike message out of a core", ("neuromorphic",)),
    "hop_energy_j": Quantity("J", "energy of one message over one link of the mesh, east or west", ("neuromorphic",)),
    "hop_energy_j.vertical": Quantity("J", "the same north or south, where it differs"),
    "hops_per_message": Quantity("1", "links that a message crosses on average, where no mesh is given"),
    "static_power_w": Quantity("W", "idle power and leakage, drawn as long as the step lasts", _CHIPS),
    "board_power_w": Quantity("W", "the power limit of a GPU's board"),
    "cache_bytes": Quantity("byte", "last cache of a GPU's chip, before its main memory"),
    "process_nm": Quantity("nm", "process node of a GPU's chip, by its foundry's name"),
}

PARAMETERS: Mapping[str, Quantity] = {
    **_FIRST,
    **{
        name: Quantity(unit, meaning)
        for table in (LAW, CARD, CLOCKS, HOST, POWER)
        for name, (unit, meaning) in table.items()
    },
    **{
        f"expected_error.{quantity}": Quantity("1", f"half of the 90 % interval of a predicted {text}, relative")
        for quantity, text in (
            ("train", "training step"),
            ("infer", "inference"),
            ("energy", "energy"),
            ("power", "power"),
        )
    },
    "second_kind_lanes": Quantity("cores", "how many of the lanes, the last ones, are cores of a second kind"),
    **{
        name + SECOND_KIND: replace(
            _FIRST[name], meaning=f"of the second kind of core: {_FIRST[name].meaning}", needed_by=()
        )
        for name in _OF_A_CORE
    },
}


def needed_parameters(kind: str) -> tuple[str, ...]:
    """Names of the figures that a device of this kind must give."""
    return tuple(name for name, info in PARAMETERS.items() if kind in info.needed_by)
