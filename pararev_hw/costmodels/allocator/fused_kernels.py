"""Memory inside the CPU kernels that are a whole layer: oneDNN's LSTM, and the transformer layer of inference.

What oneDNN's LSTM keeps for its gradient stands in the trace (`graph.lstm_workspace`). In inference the states of all
steps and the cell states are scratch, and so are the gates: of one step where kernels of AVX2 and later compute small
matrix products (brgemm) on weights in blocks of each gate's features; of all steps on processors without AVX2.

Attention by blocks (`scaled_dot_product_attention`) keeps the scores of one block of queries and keys, for its gradient
those and their gradients, beside a product as large as the queries.

The transformer layer's attention holds queries, keys and values twice while it rescales them, then the scores.
Found with torch 2.13 by watching the profiler's memory events, and in oneDNN's `rnn_utils::set_offsets`.
"""

from __future__ import annotations

import math

from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.graph.lstm_workspace import PAGE_BYTES, is_lstm, padded_row, trains, whole_pages
from pararev_hw.sizes import FLOAT_BYTES, HALVES
from pararev_hw.types import OpType

_LSTM_SCRATCH = 12856  # beside the gates
_LISTS, _MORE_LISTS, _GRADIENT_LISTS = 568, 192, 1264  # bytes of pointers; more of them for halves; for their gradients
_HALVES_BLOCK = 128  # columns of weights in halves
_BRGEMM_SCRATCH = 8968  # in inference, pointers and lists of products
_REFERENCE_SCRATCH = 8760
_KEYS_AT_ONCE = 512  # of attention by blocks


def fused_bytes(op: OpType, base: str, isa: InstructionSet) -> int:
    """The most that such an op holds at once beside its inputs and outputs; 0 for every other op."""
    if op.dtype not in FLOAT_BYTES:
        return 0
    if base in ("mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"):
        return _lstm(op, base.endswith("backward"), isa) if is_lstm(op) else 0
    if base.startswith("_scaled_dot_product_flash_attention_for_cpu"):
        return _attention(op, base.endswith("backward"))
    return _transformer_layer(op) if base == "_transformer_encoder_layer_fwd" else 0


def _lstm(op: OpType, back: bool, isa: InstructionSet) -> int:
    (steps, batch, inputs), units = op.input_shapes[0], op.input_shapes[2][1]
    item = 2 if back and _reads_halves(op) else FLOAT_BYTES[op.dtype]
    if back:
        return _lstm_gradients(steps, batch, inputs, units, item)
    if trains(op) and item == 4:
        return (inputs + units) * padded_row(4 * units, 4) * 4 + _scratch(steps, batch, units)
    if trains(op):
        columns = -(-4 * units // _HALVES_BLOCK) * _HALVES_BLOCK  # of weights, whose rows come in pairs
        weights = (inputs + inputs % 2 + units + units % 2) * columns * 2
        return weights + _scratch(1, batch, units, 2) + _MORE_LISTS
    if item == 4:
        return _lstm_inference(steps, batch, inputs, units, isa)
    block = -(-4 * units // 128) * 128
    return (inputs + units) * block * item + (steps + 2) * batch * 4 * units * 4 + _LSTM_SCRATCH


def _lstm_gradients(steps: int, batch: int, inputs: int, units: int, item: int) -> int:
    """Weights whose rows are whole registers, gradients of the weights and of the bias, and what comes in, copied; of
    halves all gradients in float32."""
    rows = [4 * units * padded_row(n, item) * item for n in (inputs, units)]
    repacked = sum(row for row, n in zip(rows, (inputs, units), strict=True) if item == 2 or row > 4 * units * n * item)
    gradients = (inputs + units) * padded_row(4 * units, 4) * 4 + 4 * units * 4
    arriving = (steps + 2) * batch * units
    if item == 4:
        return repacked + gradients + 4 * arriving + _scratch(steps, batch, units)
    halves = 2 * arriving + 4 * units * 2  # as they come, states and bias among them
    scratch = (
        whole_pages(batch * padded_row(4 * units, 4) * 4) + 2 * PAGE_BYTES + 2 * batch * (inputs + units) + 64 * batch
    )
    return repacked + gradients + 4 * arriving + halves + scratch + _GRADIENT_LISTS


def _scratch(steps: int, batch: int, units: int, item: int = 4) -> int:
    """Gates of so many steps, both states of one step, and lists, each from a page on."""
    gates, states = steps * batch * padded_row(4 * units, 4) * 4, batch * units
    return whole_pages(gates) + whole_pages(states * 4) + whole_pages(states * item) + PAGE_BYTES + _LISTS


def _reads_halves(op: OpType) -> bool:
    """Whether weights and states are halves: the gradients that give an op its datatype are float32 all the same."""
    return op.dtype in HALVES or op.read_bytes < 4 * sum(map(math.prod, op.input_shapes))


def _lstm_inference(steps: int, batch: int, inputs: int, units: int, isa: InstructionSet) -> int:
    """Weights in the kernel's layout, and scratch: states, cell states and gates, each from a page on."""
    small_products = isa >= InstructionSet.AVX2
    block = 32 if isa >= InstructionSet.AVX512_CORE else 16  # features of a gate in one block of weights
    row = 4 * -(-units // block) * block if small_products else padded_row(4 * units, 4)
    states = 2 * (steps + 1) * batch * padded_row(max(inputs, units), 4) * 4
    cells = 2 * (steps + 1) * batch * units * 4
    gates = (1 if small_products else steps) * batch * padded_row(4 * units, 4) * 4
    paged = sum(map(whole_pages, (states, cells, gates)))
    return (inputs + units) * row * 4 + paged + (_BRGEMM_SCRATCH if small_products else _REFERENCE_SCRATCH)


def _attention(op: OpType, back: bool) -> int:
    """Blocks as aten/src/ATen/native/cpu/FlashAttentionKernel.cpp takes them, for one thread."""
    shapes = op.input_shapes[1:3] if back else op.input_shapes[:2]
    if len(shapes) < 2 or any(len(s) != 4 for s in shapes):
        return 0
    (_, _, queries, width), keys, item = shapes[0], shapes[1][2], FLOAT_BYTES[op.dtype]
    most = 256 if queries >= 768 else 64 if queries >= 192 else 32
    rows, scores = min(most, queries), min(most, queries) * min(_KEYS_AT_ONCE, keys)
    halves = item if op.dtype in HALVES else 0  # the scores once more, in the datatype of the inputs
    if back:
        return math.prod(shapes[0]) * item + 2 * scores * (4 + halves) + rows * 4
    return (scores + rows * (2 + width)) * 4 + scores * halves


def _transformer_layer(op: OpType) -> int:
    x, item = (op.input_shapes or ((),))[0], FLOAT_BYTES[op.dtype]
    if len(x) != 3 or len(op.input_shapes) < 11 or not op.input_shapes[9]:
        return 0
    attributes = dict(op.attributes)
    heads = (attributes.get("num_heads") or (1,))[0]
    first = (attributes.get("norm_first") or (0,))[0]
    batch, steps, _ = x
    tensor, scores = math.prod(x) * item, batch * heads * steps * steps * item
    inner = batch * steps * op.input_shapes[9][0] * item
    attention = first * tensor + max(6 * tensor, 3 * tensor + scores)
    feed_forward = (1 + first) * tensor + inner + tensor
    return max(attention, feed_forward) - tensor
