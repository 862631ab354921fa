"""Which modules are spiking neurons, by what they do: they compare a potential with a threshold, and give numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pararev_hw.graph.spike_flow import flow_of
from pararev_hw.types import Op, OpType, Storage

_LAYER_KINDS = frozenset({"conv", "gemm", "norm", "pool", "attention"})


def spiking_modules(types: Sequence[OpType], ops: Sequence[Op], storages: Sequence[Storage]) -> frozenset[str]:
    """Paths of spiking neurons, the modules around a surrogate function included: those that hold no layer beside it.

    The network itself is none, even where it compares something.
    """
    sources = flow_of(types, ops, storages).sources - {""}
    if not sources:
        return frozenset()
    layers = [types[op.type].kind in _LAYER_KINDS and op.phase == "forward" for op in ops]
    holders = {part for op, is_layer in zip(ops, layers, strict=True) if is_layer for part in _upwards(op.module)}
    neurons: set[str] = set()
    for source in sources - {op.module for op, is_layer in zip(ops, layers, strict=True) if is_layer}:
        neurons.add(source)
        neurons.update(path for path in _upwards(source) if path and path not in holders)
    return frozenset(neurons)


def _upwards(path: str) -> list[str]:
    """The path and the paths of what holds it."""
    parts = path.split(".")
    return [".".join(parts[:k]) for k in range(len(parts), 0, -1)]
