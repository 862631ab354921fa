"""What PyTorch's allocator counts of a step: the traced tensors, and what libraries allocate inside an op on a CPU.

The traced graph holds the framework's own tensors. What a library makes inside an op and lets go before the op ends is
added here, op by op. Found by watching the profiler's memory events on one thread; more threads may add buffers of
their own. On CPUs without AVX2 and on other kinds of devices nothing is known: 0.
"""

from __future__ import annotations

import math
from itertools import accumulate

from pararev_hw.costmodels.allocator.convolution import AVX2_BYTES as AVX2_BYTES
from pararev_hw.costmodels.allocator.convolution import HALVES, ITEM_BYTES, convolution_bytes
from pararev_hw.costmodels.allocator.fused_kernels import fused_bytes, hidden_output_bytes
from pararev_hw.tracing.formulas import base_name
from pararev_hw.types import BlockGraph, OpType

AVX512_BYTES = 64  # of one SIMD register
CUDA_BLOCK_BYTES = 512  # c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize


def eager_peak_bytes(graph: BlockGraph, kind: str = "cpu", *, simd_bytes: int = AVX512_BYTES) -> int:
    """Peak memory of the step as eager PyTorch runs it on a device of that kind.

    "cpu": library workspaces included, as torch's profiler counts allocations. "gpu": what
    `torch.cuda.max_memory_allocated` counts, every tensor in whole blocks of 512 bytes; the workspaces that cuDNN picks
    per convolution and the one that cuBLAS keeps for the process (32 MiB on Hopper, 8 MiB before) are not in it.
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
    extra = [workspace_bytes(t, kind, simd_bytes=simd_bytes) for t in graph.op_types]
    of_op = [extra[op.type] for op in graph.ops] or [0]
    return max(here + more for here, more in zip(live, of_op, strict=True))


def simd_bytes_here() -> int:
    """Of one SIMD register of this machine, as far as PyTorch uses it."""
    import torch  # the cost models themselves do without

    return AVX2_BYTES if torch.backends.cpu.get_cpu_capability() == "AVX2" else AVX512_BYTES


def _unseen(graph: BlockGraph) -> dict[int, int]:
    """Bytes of storages that the trace shows as empty."""
    found: dict[int, int] = {}
    hidden = [hidden_output_bytes(t, base_name(t.name)) for t in graph.op_types]
    for op in graph.ops:
        if hidden[op.type]:
            found |= {s: hidden[op.type] for s in op.writes if graph.storages[s].bytes == 0}
    return found


def workspace_bytes(op: OpType, kind: str = "cpu", *, simd_bytes: int = AVX512_BYTES) -> int:
    """The most that the op holds at once beside its inputs and outputs, on a device of that kind."""
    if kind != "cpu" or op.dtype not in ITEM_BYTES:
        return 0
    base = base_name(op.name)
    if op.kind in ("conv", "conv_backward"):
        return convolution_bytes(op, simd_bytes)
    elements = math.prod(op.input_shapes[0]) if op.input_shapes else 0
    if base == "native_batch_norm_backward":  # the normalised input, made again
        return elements * ITEM_BYTES[op.dtype]
    if base.startswith(("mkldnn_rnn_layer", "_transformer_encoder_layer")):
        return fused_bytes(op, base)
    if base in ("sum", "mean") and op.dtype in HALVES:  # summed in float32
        return elements * 4
    return 0
