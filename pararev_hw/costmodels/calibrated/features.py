"""What sets an op's time: amounts of work, each of which a fit gives a price, and coordinates that tell shapes apart.

seconds(op) = sum of price x amount. A fixed `overhead` beside amounts of work makes each rate a saturation curve:
work / seconds = rate x work / (work + half), half = overhead x rate. Every op has these amounts:

    overhead_s          1
    read_s_per_byte     bytes that it reads, wherever they are
    write_s_per_byte    bytes that it writes
    copied_s_per_byte   bytes of inputs that its kernel copies first, since they do not lie as it needs them
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

from pararev_hw.costmodels.calibrated import convolution_work
from pararev_hw.devices.instruction_sets import InstructionSet
from pararev_hw.types import OpType
from pararev_hw.types.op_names import base_name

Shape = tuple[int, ...]

BRANCHING = frozenset({"masked_fill", "where"})  # on a CPU a loop with a branch per element
COMMON = ("overhead_s", "read_s_per_byte", "write_s_per_byte", "copied_s_per_byte")
CACHES = ("l2_s_per_byte", "dram_s_per_byte")
COLD = "cold_s"  # of an op measured after the caches were emptied: its code and its bookkeeping were cold too
_CHANNELS_LAST, _INNER_ELSEWHERE = 1, (1, 3)  # layouts: of images, and all whose last dimension is not innermost
_LAYOUT_WEIGHT = 1.5  # of how tensors lie in memory, among the logarithms of sizes

# Prices beyond the common ones.
OWN: Mapping[str, tuple[str, ...]] = {
    "conv": convolution_work.FORWARD,
    "conv_backward": convolution_work.BACKWARD,
    "gemm": ("compute_s_per_flop", "row_s"),
    "attention": ("compute_s_per_flop",),
    "attention_backward": ("compute_s_per_flop",),
    "scan": ("compute_s_per_flop", "row_s"),
    "norm": ("row_s", "channel_s"),
    "norm_backward": ("row_s", "channel_s"),
    "pool": ("window_s_per_element", "row_s", "window_s"),
    "pool_backward": ("window_s_per_element", "row_s", "window_s"),
    "reduction": ("row_s",),
    "softmax": ("row_s",),
    "copy": ("row_s", "crossed_s_per_element"),
    "elementwise": ("crossed_s_per_element", "row_s"),
    "fft": ("compute_s_per_flop",),
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
    if t.kind in ("pool", "pool_backward"):
        return f"{t.name} last" if _is_last(t, 0) else t.name
    if t.kind not in ("conv", "conv_backward"):
        return t.name
    return f"{t.name} {_convolution_form(t)}"


def _convolution_form(t: OpType) -> str:
    """What picks a convolution's algorithm: groups, kernel, stride, layout, and which gradients are wanted."""
    attributes = dict(t.attributes)
    x, w = convolution_work.image_and_weight(t)
    groups = attributes.get("groups", (1,))[0]
    if attributes.get("transposed", (0,)) != (0,):
        form = "transposed"
    elif groups > 1:
        form = ("depthwise" if max(w[2:]) <= 3 else "wide depthwise") if groups == x[1] else "grouped"
    elif not convolution_work.is_library_form(t):
        form = "single"
    elif max(attributes.get("stride", (1,))) > 1:
        form = "strided"
    else:
        form = "pointwise" if math.prod(w[2:]) == 1 else "plain"
    form += " last" if _is_last(t, 1 if t.kind == "conv_backward" else 0) else ""
    form += "" if len(w) == 4 else f" {len(w) - 2}d"
    only_weight = t.kind == "conv_backward" and not attributes.get("output_mask", (1, 1))[0]
    return form + (" weight" if only_weight else "")


def work_terms(t: OpType, isa: InstructionSet | None = None) -> tuple[float, ...]:
    """Amounts of work in the order of `coefficient_names(t)`, without what caches and branches set; of a convolution as
    that instruction set computes it."""
    copied_bytes = dict(t.attributes).get("copied_bytes", (0,))[0]
    common = (1.0, float(t.read_bytes), float(t.write_bytes), float(copied_bytes))
    match family(t):
        case "conv" | "conv_backward":
            return (*common, *convolution_work.convolution_terms(t, isa))
        case "gemm":
            return (*common, float(t.true_flops), float(_rows(t)))
        case "attention" | "attention_backward":
            return (*common, float(t.flops + (t.vector_flops or 0)))
        case "scan":
            return (*common, float(t.flops + (t.vector_flops or 0)), float(_steps(t)))
        case "norm" | "norm_backward":
            channels = t.input_shapes[0][1] if t.input_shapes and len(t.input_shapes[0]) > 1 else 1
            return (*common, float(_rows(t)), float(channels))
        case "pool" | "pool_backward":
            return (*common, float(t.vector_flops or 0), float(_rows(t)), _windows(t))
        case "reduction" | "softmax" | "index":
            return (*common, float(_rows(t)))
        case "copy":
            return (*common, float(_rows(t)), _crossed_elements(t))
        case "elementwise":
            return (*common, _crossed_elements(t), float(_spread_rows(t)))
        case "fft":
            return (*common, float(t.vector_flops or 0))
        case "optimizer":
            return (*common, float(len(t.input_shapes)))
        case _:
            return common


def coordinates(t: OpType, isa: InstructionSet | None = None) -> tuple[float, ...]:
    """Where the op's shape stands among the shapes of its group: two that are close take nearly the same time per
    amount of work. Natural logarithms; all types of a group give as many."""
    if t.kind in ("conv", "conv_backward"):
        return convolution_work.convolution_coordinates(t, isa)
    if t.kind == "gemm":
        left, right = t.input_shapes[-2:]
        sizes = (left[-2] if len(left) > 1 else 1, left[-1], right[-1], math.prod(left[:-2]))
        turned = [_LAYOUT_WEIGHT * (way in _INNER_ELSEWHERE) for way in _layouts(t)[-2:]]
        return (*map(_log, sizes), *turned)
    if t.kind in ("norm", "norm_backward", "pool", "pool_backward"):
        shape = t.input_shapes[0]
        window = math.prod(dict(t.attributes).get("kernel_size", (1,)))
        sizes = (shape[0], shape[1] if len(shape) > 1 else 1, math.prod(shape[2:]), window)
        return (*map(_log, sizes), _LAYOUT_WEIGHT * _is_last(t, 0))
    if t.kind == "scan":
        shape = t.input_shapes[0]
        return tuple(map(_log, (_steps(t), math.prod(shape[1:2]), math.prod(shape[2:]), t.flops)))
    if t.kind in ("reduction", "softmax", "index", "copy"):
        return (_log(t.read_bytes), _log(t.write_bytes), _log(_rows(t)))
    return (_log(t.read_bytes + t.write_bytes), _log(t.read_bytes / max(t.write_bytes, 1)))


def _log(value: float) -> float:
    return math.log(max(value, 1e-3))


def _layouts(t: OpType) -> tuple[int, ...]:
    """How its inputs lie in memory (`pararev_hw.tracing.recorder.memory_layout`), all densely where the trace does not
    say."""
    return dict(t.attributes).get("layout", ()) or (0,) * len(t.input_shapes)


def _is_last(t: OpType, k: int) -> bool:
    """Whether input k lies channels last."""
    layouts = _layouts(t)
    return k < len(layouts) and layouts[k] == _CHANNELS_LAST


def _crossed_elements(t: OpType) -> float:
    """Elements of an op whose tensors are not all innermost in the same dimension: it goes through one of them by
    strides, and gets no vector of neighbours."""
    shapes = (*t.input_shapes, *t.output_shapes)
    layouts = (*_layouts(t), *dict(t.attributes).get("output_layout", (0,) * len(t.output_shapes)))
    if len(layouts) != len(shapes) or not shapes:
        return 0.0
    most = max(map(math.prod, shapes))
    inner = {way in _INNER_ELSEWHERE for shape, way in zip(shapes, layouts, strict=True) if math.prod(shape) == most}
    return float(most) if len(inner) > 1 else 0.0


def _norm_rows(t: OpType) -> int:
    """How often a normalisation starts its inner loop: for each piece that it normalises together, for each plane of
    each channel, or for all channels of each place where those are innermost."""
    shape = t.input_shapes[0] if t.input_shapes else ()
    if base_name(t.name).startswith("native_layer_norm"):
        return math.prod(shape) // max(1, math.prod(dict(t.attributes).get("normalized_shape", shape[-1:])))
    if len(shape) == 2 or _is_last(t, 0):
        return math.prod(shape) // max(1, shape[1])
    return math.prod(shape[:2])


def _windows(t: OpType) -> float:
    """How often the innermost loop of a pooling starts: for each window, or where channels lie last for each place of
    each window, over all of its channels."""
    pooled = t.output_shapes[0] if t.kind == "pool" else t.input_shapes[0]
    windows = math.prod(pooled)
    if _is_last(t, 0) and len(pooled) > 1:
        return max(t.vector_flops or 0, windows) / max(1, pooled[1])
    return float(windows)


def _spread_rows(t: OpType) -> int:
    """How often the inner loop of an op starts that spreads one of its tensors over a dimension of the others: once
    wherever another dimension begins, over which it is not spread. 0 where it goes through all of them in one."""
    shape = max(t.output_shapes, key=math.prod, default=())
    inner, spread = 1, None
    for d in range(1, len(shape) + 1):
        if shape[-d] == 1:
            continue
        here = [len(s) < d or s[-d] == 1 for s in t.input_shapes]
        if spread is not None and here != spread:
            return math.prod(shape) // inner
        spread, inner = here, inner * shape[-d]
    return 0


def _steps(t: OpType) -> int:
    """Steps of a recurrence, one after the other."""
    return t.input_shapes[0][0] if t.input_shapes and t.input_shapes[0] else 1


def _rows(t: OpType) -> int:
    """How often an inner loop starts: once per row of what it goes over."""
    shape = max(t.input_shapes, key=math.prod, default=())
    base = base_name(t.name)
    if t.kind in ("norm", "norm_backward"):
        return _norm_rows(t)
    if t.kind in ("pool", "pool_backward"):
        return math.prod(shape[:-1])
    if base in ("stack", "cat"):
        dim = dict(t.attributes).get("dim", (0,))[0]
        dim = dim + len(shape) if dim < 0 else dim
        return max(1, math.prod(shape[:dim])) * len(t.input_shapes)
    if t.kind == "reduction":
        return max(1, math.prod(t.output_shapes[0]) if t.output_shapes else 1)
    return max(1, math.prod(shape[:-1]))
