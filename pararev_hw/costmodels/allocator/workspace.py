"""What PyTorch's allocator counts of a step: the traced tensors, and what libraries allocate inside an op on a CPU.

The traced graph holds the framework's own tensors. What a library makes inside an op and lets go before the op ends is
added here, op by op. Found by watching the profiler's memory events; further threads inside an op add buffers of
their own. On other kinds of devices nothing is known: 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from pararev_hw.costmodels.allocator.convolution import convolution_bytes
from pararev_hw.costmodels.allocator.convolution_kernels import USUAL_CACHE_BYTES
from pararev_hw.costmodels.allocator.fused_kernels import fused_bytes
from pararev_hw.costmodels.allocator.products_of_halves import products_of_halves_bytes
from pararev_hw.devices.instruction_sets import USUAL, InstructionSet, instruction_set_here, instruction_set_of
from pararev_hw.measurement.quick import second_level_cache_bytes
from pararev_hw.sizes import FLOAT_BYTES, HALVES
from pararev_hw.types import BlockGraph, Device, Hardware, OpType
from pararev_hw.types.op_names import base_name

CUDA_BLOCK_BYTES = 512  # c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize


@dataclass(frozen=True, slots=True)
class LibraryRule:
    """How much a CPU's libraries allocate: by the kernels of its instruction set. Where convolutions were seen to do
    something else, by the nearest rule for their datatype, and a ratio to it by kind of op and datatype.

    `cache_bytes`: of a core's second-level cache, by which products over unfolded images are cut into blocks.
    `threads`: that compute one operation together."""

    isa: InstructionSet = USUAL
    cache_bytes: int = USUAL_CACHE_BYTES
    threads: int = 1
    nearest: Mapping[str, InstructionSet] = field(default_factory=dict)
    ratios: Mapping[tuple[str, str], float] = field(default_factory=dict)


USUAL_RULE = LibraryRule()


def rule_of(hardware: Hardware) -> LibraryRule:
    """The rule of that CPU, wherever this runs."""
    device = hardware if isinstance(hardware, Device) else hardware.device
    threads = 1 if isinstance(hardware, Device) else hardware.environment.threads
    ratios = {
        (kind, dtype): device.value(name)
        for kind in ("conv", "conv_backward")
        for dtype in FLOAT_BYTES
        if (name := f"{kind}_workspace_ratio.{dtype}") in device.parameters
    }
    nearest = {
        dtype: InstructionSet(int(device.value(name)))
        for dtype in FLOAT_BYTES
        if (name := f"allocation_rule.{dtype}") in device.parameters
    }
    cache_bytes = USUAL_CACHE_BYTES
    if "second_level_cache_bytes" in device.parameters:
        cache_bytes = int(device.value("second_level_cache_bytes"))
    return LibraryRule(instruction_set_of(hardware), cache_bytes, threads, nearest, ratios)


def rule_here(threads: int = 1) -> LibraryRule:
    """That of this machine's instruction set, with so many threads inside an operation."""
    return LibraryRule(instruction_set_here(), second_level_cache_bytes() or USUAL_CACHE_BYTES, threads)


def eager_peak_bytes(graph: BlockGraph, kind: str = "cpu", rule: LibraryRule = USUAL_RULE) -> int:
    """Peak memory of the step as eager PyTorch runs it on a device of that kind.

    "cpu": as torch's profiler counts allocations, with what libraries allocate by that rule.
    "gpu": what `torch.cuda.max_memory_allocated` counts, every tensor in whole blocks of 512 bytes; the workspaces that
    cuDNN picks per convolution and the one that cuBLAS keeps for the process (32 MiB on Hopper, 8 MiB before) are not
    in it.
    """
    change = [0] * (len(graph.ops) + 2)
    for s in graph.storages:
        size = s.bytes
        if kind == "gpu":
            size = -(-size // CUDA_BLOCK_BYTES) * CUDA_BLOCK_BYTES
        change[max(s.born, 0)] += size
        change[min(s.freed, len(graph.ops)) + 1] -= size
    live = accumulate(change[: max(len(graph.ops), 1)])
    extra = [workspace_bytes(t, kind, rule) for t in graph.op_types]
    of_op = [extra[op.type] for op in graph.ops] or [0]
    return max(here + more for here, more in zip(live, of_op, strict=True))


def workspace_bytes(op: OpType, kind: str = "cpu", rule: LibraryRule = USUAL_RULE) -> int:
    """The most that the op holds at once beside its inputs and outputs, on a device of that kind."""
    if kind != "cpu":
        return 0
    if op.kind == "gemm" and op.dtype in HALVES and rule.isa.computes(op.dtype):
        return products_of_halves_bytes(op, rule.isa, rule.threads)
    for name, value in op.attributes:
        if name == "copied_bytes" and value:
            return value[0]
    if op.dtype not in FLOAT_BYTES:
        return 0
    base = base_name(op.name)
    if op.kind in ("conv", "conv_backward"):
        isa = rule.nearest.get(op.dtype, rule.isa)
        size = convolution_bytes(op, isa, rule.cache_bytes, rule.threads)
        return round(size * rule.ratios.get((op.kind, op.dtype), 1.0))
    elements = math.prod(op.input_shapes[0]) if op.input_shapes else 0
    if base == "native_batch_norm_backward":  # the normalised input, made again
        return elements * FLOAT_BYTES[op.dtype]
    if base.startswith(("mkldnn_rnn_layer", "_transformer_encoder_layer", "_scaled_dot_product_flash")):
        return fused_bytes(op, base, rule.isa)
    if base == "mean" and op.dtype in HALVES:  # of a copy in float32, into a result in float32
        return (elements + sum(map(math.prod, op.output_shapes))) * 4
    if base == "linalg_matrix_exp":
        single = math.prod(op.input_shapes[0][:-2]) == 1
        return elements * FLOAT_BYTES[op.dtype] * (_POWERS_OF_ONE if single else _POWERS)
    return 0


_POWERS = 10  # matrices that matrix_exp holds of each of several
# of a single one 5 to 12, by its norm: so many at 0.05 to 0.58, as gradients and orthogonal weights begin
_POWERS_OF_ONE = 8
