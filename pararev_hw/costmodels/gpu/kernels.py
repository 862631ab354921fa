"""The kernels that an op launches on a GPU, and the work of each.

A convolution's backward is two kernels, one per gradient, and a bias gradient is a reduction. Work is what a kernel
cannot do without: true flops (a grouped convolution's gradients as sparse as the convolution itself), the product it is
as a matrix (`m` x `n` x `k`, once per group), and the bytes that go in and come out.

A kernel's class names the algorithm and picks its rates. Matrix kernels:

    product, batched_product, attention, attention_backward
    {pointwise, pointwise_strided, window, window_strided, window_dilated, grouped, grouped_packed, grouped_wide,
     depthwise, depthwise_large, depthwise_cudnn}_{forward, input, weight}      a convolution and its gradients
    "packed": groups that share the tiles of tensor cores; "wide": of more than 48 channels, channels last; "large":
    windows other than 1, 3 and 5; PyTorch has kernels of its own for depthwise convolutions, and leaves some of 16 bits
    to cuDNN ("cudnn")

all others move memory: elementwise, cast, copy, rows (a strided copy), transpose, batch_norm, softmax, ...
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pararev_hw.sizes import item_bytes
from pararev_hw.types import OpType
from pararev_hw.types.op_names import ALLOCATES_ONLY, RECURRENT, base_name

Shape = tuple[int, ...]

# How an input lies in memory, as the tracer writes it down for a GPU (`layout` among an op's attributes).
DENSE, CHANNELS_LAST, ROWS, TRANSPOSED, EXPANDED = range(5)

_FAST_WINDOWS = (1, 3, 5)  # of PyTorch's depthwise kernels: other sizes go through a general loop
# Grouped convolutions whose groups cuDNN packs into tiles of tensor cores, as the steps of published networks tell:
# channels per group (channels last not the first), least number of groups, and what divides all channels.
_PACKED_WIDTHS = (2, 4, 8, 16, 32)
_LEAST_PACKED, _PACKED_CHANNELS = 32, 32
_WIDEST_NARROW = 48  # channels of a group, channels last, above which cuDNN takes kernels with wide tiles
_LEAST_WINOGRAD = 16  # channels of a convolution that Winograd's algorithm is tried for
_BATCH_NORM = ("batch_norm", "batch_norm_backward", "batch_norm_native", "batch_norm_native_backward")
_LEAST_FLOAT_BYTES = 3  # of a value of a channel, in the mean: statistics are read in float32 in any case
_WARP_ROW = 1024  # elements of a row that a warp holds in registers: PyTorch's softmax reads such rows once
_SECTOR_BYTES = 32  # memory is read in pieces of this size
_ALIGNMENT_BYTES = 16  # tensor cores load operands in pieces of this size


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel. `layout_bytes` of a convolution is what its images hold: tensor cores want them channels last, and
    where they are not, they are converted. `winograd_tiles`: of 2 x 2 pixels of the result of a 3 x 3 window of stride
    1, 0 for other kernels. `blocks`: of threads, where a kernel has one for each channel, or for each channel and tap,
    and no more."""

    kind: str
    bytes: int
    flops: int = 0
    m: int = 1
    n: int = 1
    k: int = 1
    groups: int = 1
    dtype: str = "float32"
    aligned: bool = True
    channels_last: bool = False
    winograd_tiles: int = 0
    layout_bytes: int = 0
    blocks: int = 0


def kernels(t: OpType) -> tuple[Kernel, ...]:
    """The kernels of an op; none for a view, an allocation, or a value brought to the host."""
    moved = t.read_bytes + t.write_bytes
    if t.kind in ("view", "host") or base_name(t.name) in ALLOCATES_ONLY or (moved == 0 and t.flops == 0):
        return ()
    if t.kind in ("conv", "conv_backward"):
        needed = 3 if t.kind == "conv_backward" else 2
        whole = len(t.input_shapes) >= needed and all(len(s) > 2 for s in t.input_shapes[:needed])
        return _convolution(t) if whole else (_of_unknown_shape(t, moved),)
    if t.kind == "gemm":
        whole = len(t.input_shapes) >= 2 and all(len(s) in (2, 3) for s in t.input_shapes[-2:])
        return (_product(t, moved) if whole else _of_unknown_shape(t, moved),)
    if t.kind in ("attention", "attention_backward"):
        work = t.flops or t.vector_flops or 0
        return (Kernel(t.kind, moved, flops=work, dtype=t.dtype),)
    base = base_name(t.name)
    if base in RECURRENT:
        return _recurrent(t, base.endswith("backward"))
    if base in ("select_backward", "slice_backward"):  # zeros of the whole, then the part copied in
        return (Kernel("fill", t.write_bytes), Kernel("rows", 2 * t.read_bytes))
    kind = _memory_class(t, base)
    channels = t.input_shapes[0][1] if kind in _BATCH_NORM else 0
    return (Kernel(kind, moved, blocks=channels),)


def _attributes(t: OpType) -> Mapping[str, tuple[int, ...]]:
    return dict(t.attributes)


def _layouts(t: OpType) -> tuple[int, ...]:
    """How each input lies in memory; all dense where the trace does not say."""
    return _attributes(t).get("layout", (DENSE,) * len(t.input_shapes))


def _product(t: OpType, moved: int) -> Kernel:
    left, right = t.input_shapes[-2:]
    batch, (m, k), n = math.prod(left[:-2]), left[-2:], right[-1]
    step = max(1, _ALIGNMENT_BYTES // item_bytes(t.dtype))
    return Kernel(
        "batched_product" if batch > 1 else "product",
        moved,
        flops=2 * batch * m * n * k,
        m=m,
        n=n,
        k=k,
        groups=batch,
        dtype=t.dtype,
        aligned=n % step == 0 and (k % step == 0 or m % step == 0),
    )


def _recurrent(t: OpType, backward: bool) -> tuple[Kernel, ...]:
    """cuDNN's recurrent layers: the products of all inputs at once, and one time step after the other those of the
    states and the gates' elementwise part."""
    attributes, item = _attributes(t), item_bytes(t.dtype)
    first, second = t.input_shapes[0][:2]
    batch, steps = (first, second) if attributes.get("batch_first", (0,))[0] else (second, first)
    directions = 2 if attributes.get("bidirectional", (0,))[0] else 1
    matrices = [shape for shape in t.input_shapes[1:] if len(shape) == 2]
    per_layer = max(1, len(matrices) // max(1, attributes.get("num_layers", (1,))[0] * directions))

    def matrix(m: int, n: int, k: int) -> Kernel:
        moved = item * (m * k + k * n + m * n)
        step = max(1, _ALIGNMENT_BYTES // item)
        aligned = n % step == 0 and (k % step == 0 or m % step == 0)
        return Kernel("product", moved, flops=2 * m * n * k, m=m, n=n, k=k, dtype=t.dtype, aligned=aligned)

    parts: list[Kernel] = []
    for k, (gates, width) in enumerate(matrices):
        all_steps, one_step = matrix(steps * batch, gates, width), matrix(batch, gates, width)
        if k % per_layer == 0:
            cell = Kernel("elementwise", 2 * item * batch * gates)
            parts += [all_steps, *([cell] * steps)]
        else:
            parts += [one_step] * steps
        if backward:  # the gradient of what goes in has the same product, that of the weights sums over all steps
            parts.append(matrix(gates, width, steps * batch))
    return tuple(parts)


def _of_unknown_shape(t: OpType, moved: int) -> Kernel:
    """A product of the op's flops, as much a cube as it can be: a graph from elsewhere may not give shapes."""
    edge = max(1, round((t.true_flops / 2) ** (1 / 3)))
    k = max(1, round(t.true_flops / 2 / edge**2))
    kind = {"conv": "window_forward", "conv_backward": "window_input"}.get(t.kind, "product")
    return Kernel(kind, moved, flops=t.true_flops, m=edge, n=edge, k=k, dtype=t.dtype, channels_last=True)


def _convolution(t: OpType) -> tuple[Kernel, ...]:
    backward = t.kind == "conv_backward"
    x, w = t.input_shapes[1:3] if backward else t.input_shapes[:2]
    y = t.input_shapes[0] if backward else t.output_shapes[0]
    attributes = _attributes(t)
    item, groups = item_bytes(t.dtype), attributes.get("groups", (1,))[0]
    transposed = bool(attributes.get("transposed", (0,))[0])
    if transposed:  # its forward is the input gradient of a convolution from y to x
        x, y = y, x
    strides = attributes.get("stride", (1,))
    strides = strides if len(strides) == len(w) - 2 else strides[:1] * (len(w) - 2)
    stride = math.prod(strides)
    taps, inside, outside = math.prod(w[2:]), w[1], w[0] // groups
    x_pixels, y_pixels = x[0] * math.prod(x[2:]), y[0] * math.prod(y[2:])
    layouts = _layouts(t)
    last = layouts[1 if backward else 0] == CHANNELS_LAST
    form = _form(x, w, groups, strides, max(attributes.get("dilation", (1,))), t.dtype, last)
    step = max(1, _ALIGNMENT_BYTES // item)
    padded = inside if form.startswith("depthwise") else -(-inside // step) * step if item == 2 else inside
    images = item * (math.prod(x) + math.prod(y))
    flops = 2 * y_pixels * inside * taps * w[0]
    if form == "grouped_packed":  # as many groups as fill a tile are one, zeros between them
        packed = _PACKED_WIDTHS[-1] // inside
        inside, outside, padded, groups = inside * packed, outside * packed, inside * packed, groups // packed

    takes_winograd = form == "window" and tuple(w[2:]) == (3, 3) and min(inside, outside) >= _LEAST_WINOGRAD

    def kernel(direction: str, m: int, n: int, k: int) -> Kernel:
        return Kernel(
            f"{form}_{direction}{'_last' if last and groups > 1 else ''}",
            images + item * math.prod(w),
            flops=flops,
            m=m,
            n=n,
            k=max(1, k),
            groups=groups,
            dtype=t.dtype,
            aligned=inside % step == 0 and outside % step == 0,
            channels_last=last,
            winograd_tiles=y[0] * math.prod(-(-n // 2) for n in y[2:]) if takes_winograd else 0,
            layout_bytes=images,
            blocks=w[0] * taps if direction == "weight" and form == "depthwise" and not last else 0,
        )

    forward = kernel("forward", y_pixels, outside, padded * taps)
    to_input = kernel("input", x_pixels, inside, outside * taps // stride)
    to_weight = kernel("weight", outside, padded * taps, y_pixels)
    if not backward:
        return (to_input if transposed else forward,)
    mask = attributes.get("output_mask", (1, 1, 1))
    bias = Kernel("row_reduction" if not last else "column_reduction", item * math.prod(t.input_shapes[0]))
    parts = (forward if transposed else to_input, to_weight, bias)
    return tuple(part for part, needed in zip(parts, mask, strict=False) if needed)


def _form(x: Shape, w: Shape, groups: int, strides: Shape, dilation: int, dtype: str, last: bool) -> str:
    taps = w[2:]
    if groups > 1 and groups == x[1]:
        if not last and _cudnn_takes_depthwise(x, taps, strides, dilation, dtype):
            return "depthwise_cudnn"
        return "depthwise" if all(n in _FAST_WINDOWS for n in taps) else "depthwise_large"
    if groups > 1:
        widths = _PACKED_WIDTHS[last:]
        packed = groups >= _LEAST_PACKED and w[1] in widths and w[0] == x[1] and x[1] % _PACKED_CHANNELS == 0
        if packed:
            return "grouped_packed"
        return "grouped_wide" if last and w[1] > _WIDEST_NARROW else "grouped"
    strided = math.prod(strides) > 1
    if math.prod(taps) == 1:
        return "pointwise_strided" if strided else "pointwise"
    if dilation > 1 and not strided:
        return "window_dilated"
    return "window_strided" if strided else "window"


def _cudnn_takes_depthwise(x: Shape, taps: Shape, strides: Shape, dilation: int, dtype: str) -> bool:
    """PyTorch's choice for images that lie channels first (`use_cudnn_depthwise` of aten/native/Convolution.cpp)."""
    if dtype not in ("float16", "bfloat16") or len(x) != 4 or x[1] < 32 or dilation > 1:
        return False
    if taps[0] != taps[1] or taps[1] not in _FAST_WINDOWS or x[3] < 7 or strides[0] != strides[1]:
        return False
    if strides[0] != 2 or taps[1] == 1:
        return strides[0] == 1
    return x[0] == 1 or x[1] >= 512 or (x[1] >= 256 and x[3] >= 28)


def _memory_class(t: OpType, base: str) -> str:
    layouts = _layouts(t)
    last = "_last" if layouts and layouts[0] == CHANNELS_LAST else ""
    match t.kind:
        case "norm" | "norm_backward":
            backward = "_backward" if t.kind == "norm_backward" else ""
            if "batch_norm" in base:
                return _batch_norm(t, backward, last)
            return f"{'layer_norm' if 'layer' in base else 'group_norm'}{backward}"
        case "softmax":
            return "softmax_backward" if "backward" in base else softmax_class(_row_length(t), item_bytes(t.dtype))
        case "pool" | "pool_backward":
            return t.kind + last
        case "reduction":
            return _reduction(t, last != "")
        case "copy":
            return _copy(base, layouts)
        case "fill" | "optimizer":
            return t.kind
        case "random":
            return "fill"
        case "index":
            accumulates = base.startswith(("embedding_dense", "index_put", "index_add", "scatter", "_index_put"))
            return "index_backward" if accumulates else "index"
        case "elementwise" | "neuron":
            return _elementwise(t, layouts)
        case _:
            out = t.output_shapes[0] if t.output_shapes else ()
            return "elementwise" if out and all(shape == out for shape in t.input_shapes) else "other"


def _batch_norm(t: OpType, backward: str, last: str) -> str:
    """In inference a scale and an offset of each channel; in training cuDNN's kernels, or PyTorch's own where the
    weights have 16 bits as well (`_select_batch_norm_backend` of aten/native/Normalization.cpp)."""
    if not backward and not _attributes(t).get("training", (1,))[0]:
        return "elementwise"
    item = item_bytes(t.dtype)
    channels = sum(math.prod(shape) for shape in t.input_shapes if len(shape) == 1)
    of_channels = t.read_bytes - item * sum(math.prod(shape) for shape in t.input_shapes if len(shape) > 1)
    native = "_native" if item == 2 and of_channels < _LEAST_FLOAT_BYTES * channels and not last else ""
    return f"batch_norm{native}{backward}{last}"


def _row_length(t: OpType) -> int:
    shape = t.input_shapes[0] if t.input_shapes else ()
    dim = _attributes(t).get("dim", (-1,))[0]
    return shape[dim] if -len(shape) <= dim < len(shape) else 1


def softmax_class(row: int, item: int) -> str:
    """Rows that a warp holds; "ragged" where they start within a piece of memory; "long" ones are read repeatedly."""
    if row > _WARP_ROW:
        return "softmax_long"
    return "softmax" if row * item % _SECTOR_BYTES == 0 else "softmax_ragged"


def _reduction(t: OpType, last: bool) -> str:
    shape = t.input_shapes[0] if t.input_shapes else ()
    dims = _attributes(t).get("dim")
    if dims is None or not shape:
        return "row_reduction"
    innermost = 1 if last and len(shape) > 1 else len(shape) - 1
    return "row_reduction" if innermost in {d % len(shape) for d in dims} else "column_reduction"


def _copy(base: str, layouts: Sequence[int]) -> str:
    if base in ("cat", "stack"):
        return "concatenate"
    if base == "_to_copy":
        return "cast"
    if base in ("clone", "copy", "contiguous", "_reshape_copy"):
        source = layouts[-1] if layouts else DENSE
        return {ROWS: "rows", TRANSPOSED: "transpose"}.get(source, "copy")
    return "rows"


def _elementwise(t: OpType, layouts: Sequence[int]) -> str:
    out = max(map(math.prod, t.output_shapes or t.input_shapes), default=0)
    whole = [how for shape, how in zip(t.input_shapes, layouts, strict=True) if math.prod(shape) == out]
    if len({how in (TRANSPOSED, CHANNELS_LAST) for how in whole if how != EXPANDED}) > 1:
        return "mixed_layouts"
    return "broadcast" if any(1 < math.prod(shape) < out for shape in t.input_shapes) else "elementwise"
