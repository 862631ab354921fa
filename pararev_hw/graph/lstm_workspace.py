"""What oneDNN's LSTM keeps for its gradient: a workspace that torch's own shape function gives as an empty tensor.

It holds gates and states of every time step, is made by the forward op and lives until the backward op has read it.
With T steps, B samples, H features, rows padded to a SIMD register, and every part rounded up to pages:

    gates T x B x 4H, hidden T x B x H, and for T + 1 steps, twice (input and output of the layer):
    states of layer and iteration, cell states, and in float32 the gradients of both states
    (the states of iterations and the cell states without padding)

Found with torch 2.13 by watching the profiler's memory events, and in oneDNN's `rnn_utils::set_offsets`.
"""

from __future__ import annotations

from pararev_hw.sizes import FLOAT_BYTES
from pararev_hw.types import OpType
from pararev_hw.types.op_names import base_name

_REGISTER_BYTES = 64
PAGE_BYTES = 4096


def lstm_workspace_bytes(op: OpType) -> int:
    """Bytes of the workspace that an LSTM layer in training makes; 0 for every other op."""
    if base_name(op.name) != "mkldnn_rnn_layer" or op.dtype not in FLOAT_BYTES or not trains(op) or not is_lstm(op):
        return 0
    (steps, batch, inputs), units, item = op.input_shapes[0], op.input_shapes[2][1], FLOAT_BYTES[op.dtype]
    wide = max(inputs, units)
    parts = [
        steps * batch * padded_row(4 * units, item) * item,
        steps * batch * padded_row(units, item) * item,
        2 * (steps + 1) * batch * padded_row(wide, item) * item,
        2 * (steps + 1) * batch * units * item,
        2 * (steps + 1) * batch * units * 4,
        *[2 * (steps + 1) * batch * padded_row(wide, 4) * 4] * 2,
    ]
    return sum(map(whole_pages, parts))


def padded_row(count: int, item: int) -> int:
    """Elements of a row in memory: whole registers, one more where rows would fall on the same cache lines."""
    per = _REGISTER_BYTES // item
    padded = -(-count // per) * per
    return padded + per if padded % 256 == 0 else padded


def is_lstm(op: OpType) -> bool:
    """Whether the shapes are those of an LSTM: of a graph that somebody wrote by hand they may be anything."""
    return len(op.input_shapes) > 2 and [len(s) for s in op.input_shapes[:3]] == [3, 2, 2]


def trains(op: OpType) -> bool:
    """Whether a recurrent layer keeps what its gradient needs."""
    return dict(op.attributes).get("train", (1,)) != (0,)


def whole_pages(size: int) -> int:
    """The size rounded up to whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES
