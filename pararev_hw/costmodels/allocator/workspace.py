"""What PyTorch's allocator counts of a step: the traced tensors, and what libraries allocate inside an op on a CPU.

The traced graph holds the framework's own tensors. What a library makes inside an op and lets go before the op ends is
added here, op by op. Found by watching the profiler's memory events on one thread; more threads may add buffers of
their own. On other kinds of devices nothing is known: 0.
"""

from __future__ import annotations

import math
from itertools import accumulate

from pararev_hw.costmodels.allocator.convolution import convolution_bytes
from pararev_hw.costmodels.allocator.convolution_sizes import HALVES, ITEM_BYTES
from pararev_hw.costmodels.allocator.fused_kernels import fused_bytes, hidden_output_bytes
from pararev_hw.devices.instruction_sets import USUAL, InstructionSet
from pararev_hw.tracing.formulas import base_name
from pararev_hw.types import BlockGraph, OpType

CUDA_BLOCK_BYTES = 512  # c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize


def eager_peak_bytes(graph: BlockGraph, kind: str = "cpu", isa: InstructionSet = USUAL) -> int:
    """Peak memory of the step as eager PyTorch runs it on a device of that kind.

    "cpu": as torch's profiler counts allocations, with what libraries allocate on a processor of instruction set `isa`.
    "gpu": what `torch.cuda.max_memory_allocated` counts, every tensor in whole blocks of 512 bytes; the workspaces that
    cuDNN picks per convolution and the one that cuBLAS keeps for the process (32 MiB on Hopper, 8 MiB before) are not
    in it.
    """
    change = [0] * (len(graph.ops) + 2)
    unseen = _unseen(graph) if kind == "cpu" else {}
    for k, s in enumerate(graph.storages):
        size = s.bytes + unseen.get(k, 0)
        if kind == "gpu":
            size = -(-size // CUDA_BLOCK_BYTES) * CUDA_BLOCK_BYTES
        change[max(s.born, 0)] += size
        change[min(s.freed, len(graph.ops)) + 1] -= size
    live = accumulate(change[: max(len(graph.ops), 1)])
    extra = [workspace_bytes(t, kind, isa) for t in graph.op_types]
    of_op = [extra[op.type] for op in graph.ops] or [0]
    return max(here + more for here, more in zip(live, of_op, strict=True))


def _unseen(graph: BlockGraph) -> dict[int, int]:
    """Bytes of storages that the trace shows as empty."""
    found: dict[int, int] = {}
    hidden = [hidden_output_bytes(t, base_name(t.name)) for t in graph.op_types]
    for op in graph.ops:
        if hidden[op.type]:
            found |= {s: hidden[op.type] for s in op.writes if graph.storages[s].bytes == 0}
    return found


def workspace_bytes(op: OpType, kind: str = "cpu", isa: InstructionSet = USUAL) -> int:
    """The most that the op holds at once beside its inputs and outputs, on a device of that kind."""
    if kind != "cpu" or op.dtype not in ITEM_BYTES:
        return 0
    base = base_name(op.name)
    if op.kind in ("conv", "conv_backward"):
        return convolution_bytes(op, isa)
    elements = math.prod(op.input_shapes[0]) if op.input_shapes else 0
    if base == "native_batch_norm_backward":  # the normalised input, made again
        return elements * ITEM_BYTES[op.dtype]
    if base.startswith(("mkldnn_rnn_layer", "_transformer_encoder_layer")):
        return fused_bytes(op, base, isa)
    if base in ("sum", "mean") and op.dtype in HALVES:  # summed in float32
        return elements * 4
    return 0
