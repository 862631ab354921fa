"""What the launching host spends on an op of an eager step, by where the op stands.

    host seconds(op) = host_overhead_s x factor

A forward op with gradients costs 1: Python, the dispatcher, autograd's node and the launch. Without gradients there is
no node; in backward the engine calls it, without Python; an accumulation is the engine adding a parameter's gradient;
an optimizer's ops run in a Python loop; a view or an allocation launches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pararev_hw.devices.gpu_law import HOST_ROLES
from pararev_hw.types import BlockGraph, Op, OpType
from pararev_hw.types.op_names import ALLOCATES_ONLY, base_name


def host_role(op: Op, t: OpType, mode: str, gradient: bool) -> str:
    """Where an op stands for the host. `gradient`: it writes a parameter's gradient that was there before."""
    if t.kind == "view" or base_name(t.name) in ALLOCATES_ONLY:
        return "view"
    if mode == "infer":
        return "inference"
    if op.phase == "update":
        return "update"
    if op.phase == "backward":
        return "accumulation" if gradient else "backward"
    return "forward"


def host_roles(graph: BlockGraph) -> tuple[str, ...]:
    """The role of each op of a graph."""
    gradients = {k for k, s in enumerate(graph.storages) if s.role == "gradient" and s.born < 0}
    return tuple(
        host_role(op, graph.op_types[op.type], graph.mode, not gradients.isdisjoint(op.writes)) for op in graph.ops
    )


def host_seconds(roles: tuple[str, ...], overhead_s: float, factor: Mapping[str, float]) -> NDArray[np.float64]:
    """Seconds of the host per op; `factor` gives that of each role, 1 where it does not."""
    of_role = {role: overhead_s * factor.get(role, 1.0) for role in HOST_ROLES}
    return np.array([of_role[role] for role in roles], np.float64)
