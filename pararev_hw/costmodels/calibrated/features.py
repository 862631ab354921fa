"""What sets an op's time: amounts of work, each of which a fit gives a price, and coordinates that tell shapes apart.

seconds(op) = sum of price x amount. A fixed `overhead` beside amounts of work makes each rate a saturation curve:
work / seconds = rate x work / (work + half), half = overhead x rate. Every op has these amounts:

    overhead_s          1
    read_s_per_byte     bytes that it reads, wherever they are
    write_s_per_byte    bytes that it writes
    l2_s_per_byte       bytes that it fetches from beyond the second-level cache
    dram_s_per_byte     bytes that it fetches from beyond the last cache
    cold_s              1 where its code was cold too: in a measurement after the caches were emptied, never in a step

and each kind some of its own. A convolution's are those of a library that computes on channels in blocks of one SIMD
register (oneDNN's nChw16c): multiply-accumulates with channels rounded up to whole blocks, output rows, weights. Of its
gradient the input's and the weight's are computed one after the other, so that their amounts add up. What branches on a
mask pays for branches that the processor guessed wrong: `branch_s_per_element` x elements x min(density, 1 - density).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pararev_hw.types import OpType
from pararev_hw.types.op_names import base_name

Shape = tuple[int, ...]

BRANCHING = frozenset({"masked_fill", "where"})  # on a CPU a loop with a branch per element
COMMON = ("overhead_s", "read_s_per_byte", "write_s_per_byte")
CACHES = ("l2_s_per_byte", "dram_s_per_byte")
COLD = "cold_s"  # of an op measured after the caches were emptied: its code and its bookkeeping were cold too
_CHANNEL_BLOCK = 16  # float32 channels in a register of AVX-512; on other machines a coordinate like any other

# Prices beyond the common ones.
OWN: Mapping[str, tuple[str, ...]] = {
    "conv": ("row_s", "weight_s_per_byte", "block_s_per_byte", "compute_s_per_flop"),
    "conv_backward": (
        *("row_s", "weight_s_per_byte", "block_s_per_byte"),
        *("compute_s_per_flop", "gradient_s_per_flop", "narrow_s_per_flop"),
    ),
    "gemm": ("compute_s_per_flop", "row_s"),
    "attention": ("compute_s_per_flop",),
    "attention_backward": ("compute_s_per_flop",),
    "scan": ("compute_s_per_flop",),
    "norm": ("row_s", "channel_s"),
    "norm_backward": ("row_s", "channel_s"),
    "pool": ("window_s_per_element", "row_s"),
    "pool_backward": ("window_s_per_element", "row_s"),
    "reduction": ("row_s",),
    "softmax": ("row_s",),
    "copy": ("row_s",),
    "index": ("row_s",),
    "optimizer": ("tensor_s",),
}


def coefficient_names(t: OpType) -> tuple[str, ...]:
    """Names of the coefficients of an op of that type; those of all types of a group are the same."""
    branch = ("branch_s_per_element",) if branches(t) else ()
    return (*COMMON, *OWN.get(family(t), ()), *CACHES, COLD, *branch)


def branches(t: OpType) -> bool:
    """Whether its time depends on how often a mask is set."""
    return base_name(t.name) in BRANCHING


def family(t: OpType) -> str:
    """The kind that stands in for an op of this type where the op itself was not measured: neurons are elementwise."""
    return "elementwise" if t.kind == "neuron" else t.kind


def group(t: OpType) -> str:
    """The group of ops that share a fit: the op's name, with the form that picks the algorithm."""
    attributes = dict(t.attributes)
    if t.kind == "norm":
        return f"{t.name} {'train' if attributes.get('training', (1,))[0] else 'eval'}"
    if t.kind not in ("conv", "conv_backward"):
        return t.name
    x, w = _image_and_weight(t)
    groups = attributes.get("groups", (1,))[0]
    if groups > 1:
        form = ("depthwise" if max(w[2:]) <= 3 else "wide depthwise") if groups == x[1] else "grouped"
    elif not _by_library(t):
        form = "single"
    elif max(attributes.get("stride", (1,))) > 1:
        form = "strided"
    else:
        form = "pointwise" if math.prod(w[2:]) == 1 else "plain"
    form += "" if len(w) == 4 else f" {len(w) - 2}d"
    if t.kind == "conv":
        return f"{t.name} {form}"
    return f"{t.name} {form}{'' if attributes.get('output_mask', (1,))[0] else ' weight'}"


def work_terms(t: OpType) -> tuple[float, ...]:
    """Amounts of work in the order of `coefficient_names(t)`, without what caches and branches set."""
    common = (1.0, float(t.read_bytes), float(t.write_bytes))
    match family(t):
        case "conv" | "conv_backward":
            return (*common, *_convolution(t))
        case "gemm":
            return (*common, float(t.flops), float(_rows(t)))
        case "attention" | "attention_backward" | "scan":
            return (*common, float(t.flops + (t.vector_flops or 0)))
        case "norm" | "norm_backward":
            channels = t.input_shapes[0][1] if t.input_shapes and len(t.input_shapes[0]) > 1 else 1
            return (*common, float(_rows(t)), float(channels))
        case "pool" | "pool_backward":
            return (*common, float(t.vector_flops or 0), float(_rows(t)))
        case "reduction" | "softmax" | "copy" | "index":
            return (*common, float(_rows(t)))
        case "optimizer":
            return (*common, float(len(t.input_shapes)))
        case _:
            return common


def coordinates(t: OpType) -> tuple[float, ...]:
    """Where the op's shape stands among the shapes of its group: two that are close take nearly the same time per
    amount of work. Natural logarithms; all types of a group give as many."""
    if t.kind in ("conv", "conv_backward"):
        x, w = _image_and_weight(t)
        ragged = w[0] / _up(w[0]) * w[1] / _up(w[1])
        return (*map(_log, (x[0], x[1], w[0], math.prod(x[2:]), math.prod(w[2:]))), 2 * _log(ragged))
    if t.kind == "gemm":
        left, right = t.input_shapes[-2:]
        return tuple(map(_log, (left[-2] if len(left) > 1 else 1, left[-1], right[-1], math.prod(left[:-2]))))
    if t.kind in ("norm", "norm_backward", "pool", "pool_backward"):
        shape = t.input_shapes[0]
        window = math.prod(dict(t.attributes).get("kernel_size", (1,)))
        return tuple(map(_log, (shape[0], shape[1] if len(shape) > 1 else 1, math.prod(shape[2:]), window)))
    if t.kind in ("reduction", "softmax", "index", "copy"):
        return (_log(t.read_bytes), _log(t.write_bytes), _log(_rows(t)))
    return (_log(t.read_bytes + t.write_bytes), _log(t.read_bytes / max(t.write_bytes, 1)))


def _log(value: float) -> float:
    return math.log(max(value, 1e-3))


def _up(channels: int, block: int = _CHANNEL_BLOCK) -> int:
    """Channels in whole blocks."""
    return -(-channels // block) * block


def _image_and_weight(t: OpType) -> tuple[Shape, Shape]:
    return (t.input_shapes[0], t.input_shapes[1]) if t.kind == "conv" else (t.input_shapes[1], t.input_shapes[2])


def _by_library(t: OpType) -> bool:
    """Whether PyTorch hands an ungrouped convolution to oneDNN (at::native::ConvParams::use_mkldnn, one thread)."""
    x, w = _image_and_weight(t)
    attributes = dict(t.attributes)
    spread = max(*attributes.get("stride", (1,)), *attributes.get("dilation", (1,))) > 1
    worthwhile = spread or x[0] >= 16 or math.prod(w[2:]) > 1
    return t.dtype != "float32" or (worthwhile and (min(w[2:]) > 3 or x[0] > 1 or math.prod(x) > 20480))


def _convolution(t: OpType) -> tuple[float, ...]:
    """Output rows by blocks of channels; bytes of weights; bytes of the images in whole blocks of channels; and flops.

    Forward all flops are of one kind. Backward those of the input's gradient come first, then those of the weight's, in
    two places: few input channels leave it to kernels of half as long registers
    (see pararev_hw.costmodels.allocator.workspace).
    """
    x, w = _image_and_weight(t)
    attributes = dict(t.attributes)
    y = t.output_shapes[0] if t.kind == "conv" else t.input_shapes[0]
    for_x, for_w = (attributes.get("output_mask", (1, 1)) if t.kind == "conv_backward" else (1, 0))[:2]
    grouped = attributes.get("groups", (1,))[0] > 1
    narrow = not grouped and w[1] < _CHANNEL_BLOCK and math.prod(w[2:]) > 1
    within, outside = (w[1], w[0]) if grouped else (_up(w[1]), _up(w[0]))
    item = 2 if "16" in t.dtype else 4
    taps = 2.0 * y[0] * _taps(t, y, w)
    x_bytes = item * x[0] * math.prod(x[2:]) * (x[1] if grouped else _up(x[1]))
    y_bytes = item * y[0] * math.prod(y[2:]) * outside
    rows = (for_x + for_w) * y[0] * (y[2] if len(y) > 2 else 1) * outside / _CHANNEL_BLOCK
    common = (rows, float((for_x + for_w) * math.prod(w) * item))
    if t.kind == "conv":
        blocks = y_bytes + (0 if narrow else x_bytes)
        return (*common, float(blocks), taps * outside * (w[1] if narrow else within))
    half = _up(w[1], _CHANNEL_BLOCK // 2) * _up(w[0], _CHANNEL_BLOCK // 2)
    return (
        *common,
        float((for_x + for_w) * (x_bytes + y_bytes)),
        for_x * taps * outside * within,
        0.0 if narrow else for_w * taps * outside * within,
        for_w * taps * half if narrow else 0.0,
    )


def _taps(t: OpType, y: Shape, w: Shape) -> float:
    """Pairs of an output pixel and a kernel tap that falls on the image: what lies on a padded border is skipped."""
    x = _image_and_weight(t)[0]
    attributes = dict(t.attributes)
    total = 1.0
    for d, (size, taps, out) in enumerate(zip(x[2:], w[2:], y[2:], strict=True)):
        stride, pad, dilation = (
            _at(attributes.get(name, (default,)), d)
            for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        total *= sum(
            max(
                0,
                min(out - 1, (size - 1 + pad - k * dilation) // stride)
                - max(0, -(-(pad - k * dilation) // stride))
                + 1,
            )
            for k in range(taps)
        )
    return total


def _at(values: tuple[int, ...], d: int) -> int:
    return values[d] if d < len(values) else values[-1]


def _rows(t: OpType) -> int:
    """How often an inner loop starts: once per row of what it goes over."""
    shape = max(t.input_shapes, key=math.prod, default=())
    base = base_name(t.name)
    if t.kind in ("norm", "norm_backward"):
        return math.prod(shape[:2])
    if t.kind in ("pool", "pool_backward"):
        return math.prod(shape[:-1])
    if base in ("stack", "cat"):
        dim = dict(t.attributes).get("dim", (0,))[0]
        dim = dim + len(shape) if dim < 0 else dim
        return max(1, math.prod(shape[:dim])) * len(t.input_shapes)
    if t.kind == "reduction":
        return max(1, math.prod(t.output_shapes[0]) if t.output_shapes else 1)
    return max(1, math.prod(shape[:-1]))
