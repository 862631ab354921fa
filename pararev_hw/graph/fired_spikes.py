"""Which comparisons of a forward pass give a neuron's spikes, beside those that only reset its membrane.

Some neurons compare their membrane twice in a time step: once for the spikes that they send, once for their reset. What
a comparison gives is followed for as long as it stays spikes; it is sent where a layer or another module reads it. The
inverse of one is a gate (of a neuron that is refractory), which sends nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from pararev_hw.graph.sites import MATRIX_KINDS
from pararev_hw.graph.spike_flow import makes_spikes, spike_flow
from pararev_hw.types import BlockGraph
from pararev_hw.types.op_names import base_name

_INVERTS = frozenset({"rsub", "logical_not", "bitwise_not"})


def fired_comparisons(graph: BlockGraph, population_of_op: Mapping[int, str]) -> frozenset[int]:
    """The comparisons whose spikes are sent; of a population that sends none (an output that is averaged), all, unless
    another of its module sends."""
    sent = _sent(graph)
    sending = {name for k, name in population_of_op.items() if k in sent}
    modules = {graph.ops[k].module for k in sent} - {""}
    silent = {k for k, name in population_of_op.items() if name not in sending}
    return sent | {k for k in silent if graph.ops[k].module not in modules}


def _sent(graph: BlockGraph) -> frozenset[int]:
    flow = spike_flow(graph)
    sources: dict[int, frozenset[int]] = {}  # by storage: the comparisons whose spikes it holds
    sent: set[int] = set()
    for k, op in enumerate(graph.ops):
        if op.phase != "forward":
            continue
        op_type = graph.op_types[op.type]
        carried = frozenset[int]().union(*(sources.get(s, frozenset()) for s in op.reads))
        matrix = op_type.kind in (*MATRIX_KINDS, "attention")
        sent |= {c for c in carried if matrix or op.module != graph.ops[c].module}
        result = frozenset[int]()
        if k in flow.spiking_ops and base_name(op_type.name) not in _INVERTS:
            result = frozenset({k}) if makes_spikes(op_type.name) or k in flow.counts else carried
        for s in op.writes:
            whole = op_type.write_bytes >= graph.storages[s].bytes
            sources[s] = result if whole else sources.get(s, frozenset()) | result
    return frozenset(sent)
