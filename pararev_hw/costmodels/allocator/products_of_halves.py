"""What matrix products in bfloat16 and float16 allocate on a CPU: copies for oneDNN, and the blocks that it packs.

Seen with oneDNN's brgemm_matmul as torch's profiler records it, on a processor with AVX512_CORE_BF16. On one and two
threads all of some 600 random products agreed to the byte; on three and four 3 % of them divide their rows otherwise.
"""

from __future__ import annotations

import math

from pararev_hw.costmodels.allocator.convolution_kernels import SCRATCH_ALIGNED
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.sizes import FLOAT_BYTES
from pararev_hw.types import OpType
from pararev_hw.types.op_names import base_name

_LEAST_PRODUCTS = 16**3  # multiplications up to which PyTorch asks no library (aten/native/mkldnn/Matmul.cpp)
_ROWS_INNERMOST = 3  # of layouts: a matrix of which columns lie in one piece
_LISTS, _LISTS_OF_THREAD = 384, 640  # bytes
_DEPTH, _DEEP, _DEEPEST = 32, 512, 1024  # of blocks: a step, and the most
_COLUMNS, _MOST_WAITING = 64, 16  # columns of a block, and such blocks
_MOST_ROWS, _LEAST_ROWS, _FEW_ROWS = 256, 32, 16  # of a block, and where there are fewer blocks than threads
_MOST_PARTS = 4  # of the depth, each a thread's


def products_of_halves_bytes(op: OpType, isa: InstructionSet, threads: int = 1) -> int:
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
    vector = a[-2] == 1 or (b[-1] == 1 and math.prod(a[:-2]) == 1)  # lies in one piece either way
    packed = _of_vector(a, b) if vector else _of_matrices(a, b, turned, threads)
    aligned = SCRATCH_ALIGNED if turned and not vector else 0
    return copied + _LISTS + aligned + threads * (_LISTS_OF_THREAD + packed)


def _of_vector(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return 2 * _block_depth(a[-1], _DEEP) * _COLUMNS + 4 * min(max(a[-2], b[-1]), _COLUMNS)


def _of_matrices(a: tuple[int, ...], b: tuple[int, ...], turned: bool, threads: int) -> int:
    """Of one thread: blocks of b, of sums in float32 and, where its columns lie in one piece, of a. Where the depth of
    such an a takes several blocks, the sums of several columns' blocks wait; where each thread takes a part of it, all.
    """
    rows, depth, columns = a[-2], a[-1], b[-1]
    matrices, column_blocks = math.prod(a[:-2]), -(-columns // _COLUMNS)
    deep = turned and depth > _DEEP
    block_depth = _block_depth(depth, _DEEPEST if depth > _DEEPEST and not turned else _DEEP)
    parts = _parts(depth, column_blocks, threads) if turned and matrices == 1 else 1
    block_rows, waiting = _division(rows, column_blocks, turned, threads, matrices, parts)
    if parts > 1:
        sums = rows * columns
    elif deep and waiting > 1:
        sums = block_rows * _COLUMNS * waiting
    else:
        sums = block_rows * min(columns, _COLUMNS)
    pitch = block_depth + (_DEPTH if block_depth == _DEEP else 0)  # rows a power of two apart share cache lines
    return 2 * block_depth * _COLUMNS + 4 * sums + (2 * block_rows * pitch if turned else 0)


def _parts(depth: int, column_blocks: int, threads: int) -> int:
    """Into how many parts of equal depth threads divide a product that has fewer blocks of columns than they are."""
    if threads <= column_blocks or depth <= _DEEPEST:
        return 1
    return next((n for n in range(min(threads, _MOST_PARTS), 1, -1) if depth % (_DEEP * n) == 0), 1)


def _division(rows: int, column_blocks: int, turned: bool, threads: int, matrices: int, parts: int) -> tuple[int, int]:
    """Rows of a block, and how many blocks of columns a thread takes together: those that leave the fewest threads,
    rows and blocks over, among them the most blocks and of these the most rows."""
    threads_abreast = threads // parts
    least = min(rows, _FEW_ROWS if threads > matrices * column_blocks else _LEAST_ROWS)
    best, fewest = (rows, 1), math.inf
    for together in range(min(column_blocks, _MOST_WAITING) if turned else 1, 0, -1):
        chunks = -(-column_blocks // together)
        for block_rows in range(min(rows, _MOST_ROWS), least - 1, -1):
            pieces = -(-rows // block_rows)
            idle = -matrices * pieces * chunks % threads_abreast / threads_abreast
            left_over = idle + 1 - rows / (pieces * block_rows) + 1 - column_blocks / (chunks * together)
            if left_over < fewest:
                best, fewest = (block_rows, together), left_over
            if fewest == 0:
                return best
    return best


def _block_depth(depth: int, most: int) -> int:
    return min(-(-depth // _DEPTH) * _DEPTH, most)
