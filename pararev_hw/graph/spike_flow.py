"""Where spikes go when the network is not run: followed by data flow from the comparisons that make them.

A membrane potential compared with a threshold gives spikes. They stay spikes through copies, reshapes, concatenation,
max pooling, dropout, gating, sums and differences of spikes, and end where something analog is mixed in: a weighted
sum, a normalisation, an average (its fractions of a spike need a multiplication). A potential that is rounded to how
many thresholds it holds is several spikes in one where a comparison lets it pass, or where it is clipped, before or
after. Each storage holds one of:

    CONSTANT  the same whatever the input: zeros, ones, dropout masks
    SPIKES    0 or a constant, or small integers of it, of either sign
    ANALOG    anything else
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pararev_hw.graph.sites import MATRIX_KINDS
from pararev_hw.types import BlockGraph, Op, OpType, Storage

CONSTANT, SPIKES, ANALOG = 0, 1, 2

THRESHOLDS = frozenset({"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal", "heaviside"})
_DRAWS = frozenset({"aten.bernoulli.default", "aten.bernoulli_.Tensor"})  # by probabilities; dropout draws by a number
_MOVES = frozenset(
    """
    _to_copy clone copy contiguous cat stack repeat flip roll expand constant_pad_nd reflection_pad1d reflection_pad2d
    replication_pad2d index index_select gather take slice_scatter select_scatter _unsafe_index index_put index_copy
    scatter tril triu repeat_interleave im2col _reshape_copy lift_fresh lift_fresh_copy pixel_shuffle pixel_unshuffle
    channel_shuffle unfold_copy view_copy split_with_sizes_copy masked_fill where
    """.split()
)
_POOLS = frozenset(
    """
    max_pool1d max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool3d adaptive_max_pool2d
    adaptive_max_pool3d max min amax amin upsample_nearest1d upsample_nearest2d
    upsample_nearest3d mkldnn_max_pool2d fractional_max_pool2d
    """.split()
)
_GATES = frozenset(
    """
    mul div logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not maximum
    minimum add sum sub rsub neg relu clamp clamp_min clamp_max abs native_dropout dropout bernoulli detach alias
    positive
    """.split()
)
_FILLS = frozenset({"fill", "random"})
_ROUNDS = frozenset({"floor", "trunc", "fix", "round", "floor_divide"})
_CLIPS = frozenset({"clamp", "clamp_min", "clamp_max", "relu", "hardtanh", "relu6"})
_KEEPS_VALUES = frozenset({"_to_copy", "clone", "copy", "alias", "detach"})


@dataclass(frozen=True, slots=True)
class SpikeFlow:
    """`reads_spikes`: convolutions and matrix products with spikes as an operand. `sources`: modules whose comparison
    makes spikes, which are numbers, not a mask. `stopped`: pairs of a matrix op and the op that ended the spikes on
    their way to it. `spiking_ops`: ops that give spikes. `counts`: ops that round a potential to a number of spikes,
    with no comparison beside."""

    reads_spikes: frozenset[int]
    sources: frozenset[str]
    stopped: tuple[tuple[int, int], ...]
    spiking_ops: frozenset[int] = frozenset()
    counts: frozenset[int] = frozenset()


def spike_flow(graph: BlockGraph) -> SpikeFlow:
    """Spikes of the graph's forward pass."""
    return flow_of(graph.op_types, graph.ops, graph.storages)


def flow_of(types: Sequence[OpType], ops: Sequence[Op], storages: Sequence[Storage]) -> SpikeFlow:
    """`spike_flow` of a graph's parts."""
    bases = [_base(t.name) for t in types]
    if not any(makes_spikes(t.name) or rounds(t.name) or t.kind == "neuron" for t in types):
        return SpikeFlow(frozenset(), frozenset(), ())
    return _Flow(types, bases, ops, storages).run()


def makes_spikes(name: str) -> bool:
    """Whether an op compares a potential with a threshold, or draws spikes by their probability."""
    return _base(name) in THRESHOLDS or name in _DRAWS


def rounds(name: str) -> bool:
    """Whether an op gives whole numbers: a potential in units of its threshold."""
    return _base(name) in _ROUNDS or name in ("aten.div.Tensor_mode", "aten.div.Scalar_mode")


def _base(name: str) -> str:
    packet = name.split(".")[1] if "." in name else name
    return packet[:-1] if packet.endswith("_") and not packet.endswith("__") else packet


class _Flow:
    def __init__(
        self, types: Sequence[OpType], bases: Sequence[str], ops: Sequence[Op], storages: Sequence[Storage]
    ) -> None:
        self.types, self.bases, self.ops, self.storages = types, bases, ops, storages
        self.state: dict[int, int] = {}
        self.origin: dict[int, frozenset[str]] = {}  # the neurons whose spikes a storage holds
        self.lost_at: dict[int, int] = {}  # the op at which a storage's spikes became analog
        self.rounded: dict[int, int] = {}  # by storage of a potential in units of its threshold: the op that rounded it
        self.clipped: set[int] = set()  # storages of potentials that are never below or never above a bound
        self.counts: set[int] = set()
        self.scalar = [_has_scalar_operand(t) for t in types]
        self.makes_spikes = [makes_spikes(t.name) for t in types]
        self.rounds = [rounds(t.name) for t in types]
        self.any_rounds = any(self.rounds)

    def run(self) -> SpikeFlow:
        reads: set[int] = set()
        sources: set[str] = set()
        stopped: list[tuple[int, int]] = []
        spiking_ops: set[int] = set()
        for k, op in enumerate(self.ops):
            if op.phase != "forward":
                continue
            operands = self._operands(op)
            if self.types[op.type].kind in (*MATRIX_KINDS, "attention"):
                spiking = [s for s in operands if self.state.get(s, ANALOG) == SPIKES]
                if spiking:
                    reads.add(k)
                else:
                    stopped.extend((k, self.lost_at[s]) for s in operands if s in self.lost_at)
            result = self._result(k, op, operands)
            self._write(k, op, operands, result)
            if result == SPIKES:
                spiking_ops.add(k)
            if result == SPIKES and self._gives_numbers(op):
                sources |= self.origin[op.writes[0]]
        sources |= {self.ops[k].module for k in self.counts}
        spiking_ops |= self.counts
        return SpikeFlow(
            frozenset(reads), frozenset(sources), tuple(stopped), frozenset(spiking_ops), frozenset(self.counts)
        )

    def _gives_numbers(self, op: Op) -> bool:
        """Whether the op makes numbers of spikes: a mask that is only multiplied with is none."""
        base = self.bases[op.type]
        casts = base in ("_to_copy", "copy", "where", "heaviside", "spiking_neuron", "bernoulli")
        casts |= base == "mul" and not self.rounded.keys().isdisjoint(op.reads)
        return casts and bool(op.writes) and "float" in self.types[op.type].dtype and op.writes[0] in self.origin

    def _operands(self, op: Op) -> list[int]:
        """Storages of activations that the op reads; a lone number beside a larger tensor is a coefficient."""
        return [s for s in op.reads if not (self.scalar[op.type] and self.storages[s].bytes <= 8 and len(op.reads) > 1)]

    def _result(self, k: int, op: Op, operands: Sequence[int]) -> int:
        op_type, base = self.types[op.type], self.bases[op.type]
        states = [self.state.get(s, ANALOG) for s in operands]
        if states and self.makes_spikes[op.type]:
            return CONSTANT if all(s == CONSTANT for s in states) else SPIKES
        if op_type.kind in _FILLS or not states:
            return CONSTANT
        if base == "spiking_neuron":
            return SPIKES
        joined = max(states)
        if base == "where" and len(states) > 1 and ANALOG in states:
            return ANALOG
        if base == "mul" and SPIKES in states:
            self._fires_by_comparison(op, operands)
            others = [s for s, state in zip(operands, states, strict=True) if state != SPIKES]
            if others and self.rounded.keys() >= set(others):
                return SPIKES
        if joined == ANALOG and len(operands) == 1 and self._is_count(k, op, operands[0]):
            return SPIKES
        if base in _MOVES or base in _POOLS or base in _GATES or self.rounds[op.type]:
            return joined
        if op_type.kind == "gemm":
            return SPIKES if joined == SPIKES else ANALOG
        return CONSTANT if joined == CONSTANT else ANALOG

    def _is_count(self, k: int, op: Op, operand: int) -> bool:
        """Whether an op makes a number of spikes of one potential: it rounds what is clipped, or clips what is
        rounded."""
        if self.rounds[op.type]:
            rounding = k if operand in self.clipped else -1
        else:
            rounding = self.rounded.get(operand, -1) if self.bases[op.type] in _CLIPS else -1
        if rounding >= 0:
            self.counts.add(rounding)
        return rounding >= 0

    def _fires_by_comparison(self, op: Op, operands: Sequence[int]) -> None:
        """Of a potential that is rounded and multiplied with a comparison, the comparison tells what fires."""
        compared = any(self.state.get(s) == SPIKES and s not in self.rounded for s in operands)
        if compared:
            rounding = {self.rounded[s] for s in operands if s in self.rounded}
            self.counts -= {k for k in rounding if self.ops[k].module == op.module}

    def _write(self, k: int, op: Op, operands: Sequence[int], result: int) -> None:
        op_type, base = self.types[op.type], self.bases[op.type]
        origin: frozenset[str] = frozenset()
        if result == SPIKES:
            origin = origin.union(*(self.origin.get(s, frozenset()) for s in operands))
            if self.makes_spikes[op.type] or base == "spiking_neuron":
                origin = frozenset({op.module})
            origin = origin or frozenset({op.module})  # of a number of spikes
        lost = -1
        if result == ANALOG and op_type.kind not in (*MATRIX_KINDS, "attention"):
            mixed = any(self.state.get(s) == SPIKES for s in operands)
            lost = k if mixed else max((self.lost_at.get(s, -1) for s in operands), default=-1)
        if self.any_rounds:
            self._follow_potential(k, op, operands)
        for s in op.writes:
            whole = op_type.write_bytes >= self.storages[s].bytes or s not in self.state
            before = self.state.get(s, CONSTANT)
            self.state[s] = result if whole else max(before, result)
            if self.state[s] == SPIKES:
                self.origin[s] = origin if whole else self.origin.get(s, frozenset()) | origin
            else:
                self.origin.pop(s, None)
            if self.state[s] == ANALOG and lost >= 0:
                self.lost_at[s] = lost
            else:
                self.lost_at.pop(s, None)

    def _follow_potential(self, k: int, op: Op, operands: Sequence[int]) -> None:
        """Whether what the op writes is rounded or clipped."""
        base = self.bases[op.type]
        single = operands[0] if len(operands) == 1 else None
        rounded = k if self.rounds[op.type] else -1
        if base in _KEEPS_VALUES and operands and self.rounded.keys() >= set(operands):
            rounded = self.rounded[operands[-1]]
        clips = base in _CLIPS or (base in (*_KEEPS_VALUES, "mul", "div", "add") and single in self.clipped)
        for s in op.writes:
            self.rounded.pop(s, None)
            self.clipped.discard(s)
            if rounded >= 0:
                self.rounded[s] = rounded
            if clips and single is not None:
                self.clipped.add(s)


def _has_scalar_operand(op_type: OpType) -> bool:
    sizes = [math.prod(shape) for shape in op_type.input_shapes]
    return len(sizes) > 1 and min(sizes) <= 1 < max(sizes)
