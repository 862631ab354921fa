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
from pararev_hw.costmodels.allocator.convolution_kernels import SCRATCH_ALIGNED, USUAL_CACHE_BYTES
from pararev_hw.costmodels.allocator.fused_kernels import fused_bytes
from pararev_hw.devices.instruction_sets import USUAL, InstructionSet, instruction_set_here, instruction_set_of
from pararev_hw.measurement.quick import second_level_cache_bytes
from pararev_hw.sizes import FLOAT_BYTES, HALVES, largest_divisor
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
        return _products_of_halves(op, rule.isa)
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


def _products_of_halves(op: OpType, isa: InstructionSet) -> int:
    """What is copied for oneDNN's products, which batches come to in one piece, and what they compute on: without
    instructions for halves the sums of one matrix in float32, with them blocks."""
    attributes = dict(op.attributes)
    copied = attributes.get("copied_bytes", (0,))[0]
    if base_name(op.name) not in ("mm", "addmm", "bmm", "baddbmm"):
        return copied
    a, b = op.input_shapes[-2:]
    if math.prod(a) * b[-1] <= _LEAST_PRODUCTS:
        return copied
    if len(a) > 2:
        copied = attributes.get("library_copied_bytes", (0,))[0]
    if isa < InstructionSet.AVX512_CORE_BF16:
        return copied + a[-2] * b[-1] * FLOAT_BYTES["float32"] + SCRATCH_ALIGNED
    turned = not copied and attributes.get("layout", (0, 0))[-2] == _ROWS_INNERMOST
    return copied + _packed_blocks(a[-2], a[-1], b[-1], turned)


def _packed_blocks(rows: int, depth: int, columns: int, turned: bool) -> int:
    """Blocks of b, of sums in float32 and, where its columns lie in one piece, of a (oneDNN's brgemm_matmul with
    AVX512_CORE_BF16). Where the depth of such an a takes several blocks, the sums of several columns' blocks wait."""
    if rows == 1 or columns == 1:  # a vector lies in one piece either way
        return _LISTS + 2 * _block_depth(depth, _DEEP) * _COLUMNS + 4 * min(max(rows, columns), _COLUMNS)
    block_depth = _block_depth(depth, _DEEPEST if depth > _DEEPEST and not turned else _DEEP)
    divisor = largest_divisor(rows, _MOST_ROWS)
    block_rows = divisor if divisor >= min(rows, _LEAST_ROWS) else min(rows, _MOST_ROWS)
    waiting = largest_divisor(-(-columns // _COLUMNS), _MOST_WAITING) if turned and depth > _DEEP else 1
    block_columns = min(columns, _COLUMNS) if waiting == 1 else _COLUMNS * waiting
    packed = _LISTS + 2 * block_depth * _COLUMNS + 4 * block_rows * block_columns
    pitch = block_depth + (_DEPTH if block_depth == _DEEP else 0)  # rows a power of two apart share cache lines
    return packed + (2 * block_rows * pitch + SCRATCH_ALIGNED if turned else 0)


def _block_depth(depth: int, most: int) -> int:
    return min(-(-depth // _DEPTH) * _DEPTH, most)


_ROWS_INNERMOST = 3  # of layouts: a matrix of which columns lie in one piece
_LISTS = 1024  # bytes, of small products
_DEPTH, _DEEP, _DEEPEST, _LEAST_ROWS, _MOST_ROWS, _COLUMNS = 32, 512, 1024, 32, 256, 64  # of a block
_MOST_WAITING = 16  # blocks of columns


_LEAST_PRODUCTS = 16**3  # multiplications up to which PyTorch asks no library (aten/native/mkldnn/Matmul.cpp)
_POWERS = 10  # matrices that matrix_exp holds of each of several
# of a single one 5 to 12, by its norm: so many at 0.05 to 0.58, as gradients and orthogonal weights begin
_POWERS_OF_ONE = 8
