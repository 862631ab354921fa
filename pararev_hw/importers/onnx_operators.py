"""The table of ONNX operators: each one, with its attributes and constant inputs known, becomes a torch function.

A lowering looks at a node (`Site`) once, at import, and gives the function that runs every time. What it takes through
`Site.constant` is gone from the run-time arguments (None stands there); the rest arrives in the node's own order, as
tensors or, for elementwise operators, as plain numbers; `Site.take` names other arguments altogether. Operator versions
7 to 24 of the default domain: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pararev_hw import limits
from pararev_hw.errors import BadInput
from pararev_hw.importers.onnx_quantization import dequantize, quantize
from pararev_hw.importers.onnx_recurrent import gru, lstm, rnn
from pararev_hw.importers.onnx_site import Lower, Operand, Run, Site


def _ints(site: Site, name: str, i: int) -> tuple[int, ...] | None:
    """A list that older operator versions keep in attribute `name`, newer ones in input `i`; None: not given."""
    value = site.attribute(name)
    if value is not None:
        return tuple(value)
    return tuple(site.constant(i).reshape(-1).tolist()) if site.has_input(i) else None


def _number(site: Site, name: str, i: int, default: Any) -> Any:
    value = site.attribute(name)
    if value is not None:
        return value
    return site.constant(i).item() if site.has_input(i) else default


def _bounded(shape: Sequence[int]) -> tuple[int, ...]:
    if math.prod(shape) > limits.CONSTANT_ELEMENTS:
        raise BadInput(
            f"makes a constant of shape {tuple(shape)}: at most {limits.CONSTANT_ELEMENTS} elements are made at import"
        )
    return tuple(shape)


def _broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*map(tuple, shapes)))  # type: ignore[no-untyped-call]


# --- convolution and matrix products

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_CONV_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def _spatial(site: Site, shape: Sequence[int]) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Number of spatial dimensions (1 to 3), kernel, strides and dilations."""
    n = len(shape) - 2
    if not 1 <= n <= 3:
        raise BadInput(f"works on shape {tuple(shape)}: one to three spatial dimensions can be imported")
    kernel = tuple(site.attribute("kernel_shape") or (site.shape(1)[2:] if site.has_input(1) else ()))
    return n, kernel, tuple(site.attribute("strides", (1,) * n)), tuple(site.attribute("dilations", (1,) * n))


def _padding(
    site: Site, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding at the begin and the end of every spatial dimension."""
    n = len(size)
    auto = site.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0,) * n, (0,) * n
    if auto == "NOTSET":
        pads = tuple(site.attribute("pads", (0,) * (2 * n)))
        return pads[:n], pads[n:]
    total = [
        max((math.ceil(x / s) - 1) * s + (k - 1) * d + 1 - x, 0)
        for x, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def _torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Begin and end of the last dimensions in the order of `torch.nn.functional.pad`: last dimension first."""
    return [p for b, e in zip(reversed(begin), reversed(end), strict=True) for p in (b, e)]


def _conv(site: Site) -> Run:
    n, kernel, stride, dilation = _spatial(site, site.shape(0))
    begin, end = _padding(site, site.shape(0)[2:], kernel, stride, dilation)
    groups = site.attribute("group", 1)
    conv = _CONV[n - 1]
    if begin == end:
        return lambda x, w, b=None: conv(x, w, b, stride, begin, dilation, groups)
    pads = _torch_pads(begin, end)
    return lambda x, w, b=None: conv(F.pad(x, pads), w, b, stride, 0, dilation, groups)


def _conv_transpose(site: Site) -> Run:
    n, kernel, stride, dilation = _spatial(site, site.shape(0))
    size = site.shape(0)[2:]
    extra = tuple(site.attribute("output_padding", (0,) * n))
    groups = site.attribute("group", 1)
    auto, output_size = site.attribute("auto_pad", "NOTSET"), site.attribute("output_shape")
    full = [s * (x - 1) + (k - 1) * d + 1 for x, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    if output_size is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        output_size = [x * s for x, s in zip(size, stride, strict=True)]
    if output_size is None:
        begin, end = _padding(site, size, kernel, stride, dilation)
    else:
        total = [f + e - w for f, e, w in zip(full, extra, tuple(output_size)[-n:], strict=True)]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begin, end = (small, large) if auto == "SAME_UPPER" else (large, small)
    conv = _CONV_TRANSPOSE[n - 1]
    if begin == end and min(begin) >= 0:
        return lambda x, w, b=None: conv(x, w, b, stride, begin, extra, groups, dilation)
    # torch leaves away the same on both sides only: here all is computed, and cut
    crop = _torch_pads([-b for b in begin], [-e for e in end])
    return lambda x, w, b=None: F.pad(conv(x, w, b, stride, 0, extra, groups, dilation), crop)


def _gemm(site: Site) -> Run:
    alpha, beta = site.attribute("alpha", 1.0), site.attribute("beta", 1.0)
    trans_a, trans_b = site.attribute("transA", 0), site.attribute("transB", 0)
    plain = alpha == 1.0 and beta == 1.0 and not trans_a
    vector = not site.has_input(2) or len(site.shape(2)) == 1

    def general(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.t() if trans_a else a, b.t() if trans_b else b
        if c is None:
            return torch.mm(a, b) if alpha == 1.0 else torch.mm(a, b) * alpha
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    if plain and trans_b and vector:
        return F.linear
    return general


# --- normalisation and dropout (these two run differently in training: see MODAL)


def _batch_norm(site: Site) -> Run:
    site.state(3)
    site.state(4)
    eps, momentum = site.attribute("epsilon", 1e-5), 1.0 - site.attribute("momentum", 0.9)
    return lambda training, x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, training, momentum, eps)


def _dropout(site: Site) -> Run:
    ratio = _number(site, "ratio", 1, 0.5)
    if site.has_input(2):
        site.constant(2)  # the file's own mode: the network's decides
    return lambda training, x, *_: F.dropout(x, ratio, training)


def _layer_norm(site: Site) -> Run:
    shape = site.shape(0)
    sizes = shape[site.attribute("axis", -1) % len(shape) :]
    eps = site.attribute("epsilon", 1e-5)
    return lambda x, scale, bias=None: F.layer_norm(x, sizes, scale, bias, eps)


def _group_norm(site: Site) -> Run:
    groups, eps = site.attribute("num_groups"), site.attribute("epsilon", 1e-5)
    return lambda x, scale, bias: F.group_norm(x, groups, scale, bias, eps)


def _rms_norm(site: Site) -> Run:
    shape = site.shape(0)
    sizes = shape[site.attribute("axis", -1) % len(shape) :]
    eps = site.attribute("epsilon", 1e-5)
    return lambda x, scale: F.rms_norm(x, sizes, scale, eps)


def _response_norm(site: Site) -> Run:
    """x / (bias + alpha/size · Σ x²)^beta over neighbouring channels."""
    size, alpha = site.attribute("size"), site.attribute("alpha", 1e-4)
    beta, bias = site.attribute("beta", 0.75), site.attribute("bias", 1.0)
    if size % 2:
        return lambda x: F.local_response_norm(x, size, alpha, beta, bias)
    before = (size - 1) // 2  # torch starts an even window one channel earlier

    def run(x: Tensor) -> Tensor:
        padded = F.pad((x * x).flatten(2).unsqueeze(1), (0, 0, before, size - 1 - before))
        mean = F.avg_pool2d(padded, (size, 1), stride=1).squeeze(1).reshape(x.shape)
        return x / torch.pow(mean * alpha + bias, beta)

    return run


def _mean_variance_norm(site: Site) -> Run:
    axes = tuple(site.attribute("axes", (0, 2, 3)))

    def run(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / (variance.sqrt() + 1e-9)

    return run


def _lp_norm(site: Site) -> Run:
    axis, p = site.attribute("axis", -1), site.attribute("p", 2)
    return lambda x: F.normalize(x, p=p, dim=axis)


def _instance_norm(site: Site) -> Run:
    eps = site.attribute("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=eps)


# --- pooling and resampling

_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVG_POOL: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _max_pool(site: Site) -> Run:
    n, kernel, stride, dilation = _spatial(site, site.shape(0))
    begin, end = _padding(site, site.shape(0)[2:], kernel, stride, dilation)
    ceil = bool(site.attribute("ceil_mode", 0))
    pool = _MAX_POOL[n - 1]
    if begin == end and all(2 * b <= k for b, k in zip(begin, kernel, strict=True)):
        return lambda x: pool(x, kernel, stride, begin, dilation, ceil)
    pads = _torch_pads(begin, end)
    return lambda x: pool(F.pad(x, pads, value=-math.inf), kernel, stride, 0, dilation, ceil)


def _avg_pool(site: Site) -> Run:
    n, kernel, stride, dilation = _spatial(site, site.shape(0))
    if any(d != 1 for d in dilation):
        raise BadInput("averages over a dilated window: torch has no such pooling")
    size = site.shape(0)[2:]
    begin, end = _padding(site, size, kernel, stride, dilation)
    ceil, count_pad = bool(site.attribute("ceil_mode", 0)), bool(site.attribute("count_include_pad", 0))
    pool = _AVG_POOL[n - 1]
    if begin == end and all(2 * b <= k for b, k in zip(begin, kernel, strict=True)):
        return lambda x: pool(x, kernel, stride, begin, ceil, count_pad)
    pads = _torch_pads(begin, end)
    if count_pad:
        return lambda x: pool(F.pad(x, pads), kernel, stride, 0, ceil)
    # torch pads both sides alike: here the padded average is divided by the share of the window that is no padding
    return lambda x: (
        pool(F.pad(x, pads), kernel, stride, 0, ceil)
        / pool(F.pad(x.new_ones((1, 1, *size)), pads), kernel, stride, 0, ceil)
    )


def _global_pool(pools: Sequence[Callable[..., Tensor]]) -> Lower:
    def lower(site: Site) -> Run:
        n, _, _, _ = _spatial(site, site.shape(0))
        return lambda x: pools[n - 1](x, 1)

    return lower


def _global_lp_pool(site: Site) -> Run:
    p, dims = site.attribute("p", 2), tuple(range(2, len(site.shape(0))))
    return lambda x: torch.linalg.vector_norm(x, p, dims, keepdim=True)


_INTERPOLATION = {
    "linear": {3: "linear", 4: "bilinear", 5: "trilinear"},
    "cubic": {4: "bicubic"},
}


def _resize(site: Site) -> Run:
    shape = site.shape(0)
    mode = site.attribute("mode", "nearest")
    where = site.attribute("coordinate_transformation_mode", "half_pixel" if site.opset >= 11 else "asymmetric")
    if site.opset >= 11 and site.has_input(1):
        site.constant(1)  # the region of interest matters in tf_crop_and_resize alone
    at = 2 if site.opset >= 11 else 1
    scales = site.constant(at).tolist() if site.has_input(at) else []
    sizes = site.constant(3).tolist() if site.has_input(3) else []
    axes = [a % len(shape) for a in site.attribute("axes", range(len(shape)))]
    scale = dict(zip(axes, scales or (s / shape[a] for s, a in zip(sizes, axes, strict=True)), strict=True))
    if any(scale.get(d, 1.0) != 1.0 for d in (0, 1)) or site.attribute("antialias", 0):
        raise BadInput("resizes batch or channels, or with antialiasing: only plain spatial resizing can be imported")
    if site.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise BadInput("keeps the aspect ratio: give the sizes themselves")
    factors = [scale.get(d, 1.0) for d in range(2, len(shape))]
    out = [math.floor(x * f + 1e-9) for x, f in zip(shape[2:], factors, strict=True)]
    if sizes:
        out = [dict(zip(axes, sizes, strict=True)).get(d, shape[d]) for d in range(2, len(shape))]
    whole = bool(sizes) or all(abs(x * f - o) < 1e-6 for x, f, o in zip(shape[2:], factors, out, strict=True))
    size: dict[str, Any] = {"size": out} if whole else {"scale_factor": factors, "recompute_scale_factor": False}
    if mode == "nearest":
        return partial(_interpolated, mode=_nearest(site, where, shape[2:], out), **size)
    name = _INTERPOLATION.get(mode, {}).get(len(shape))
    corners = where == "align_corners"
    plain = where == "half_pixel" or (where == "pytorch_half_pixel" and min(out) > 1)
    if name is None or not (corners or plain) or (mode == "cubic" and site.attribute("cubic_coeff_a", -0.75) != -0.75):
        raise BadInput(f"resizes by mode {mode}, coordinates {where}: torch has no such interpolation")
    return partial(_interpolated, mode=name, align_corners=corners, **size)


def _upsample(site: Site) -> Run:
    """The older resize, of whole images: the nearest, or linear with pixels half a step apart as torch exports it."""
    shape = site.shape(0)
    mode = site.attribute("mode", "nearest")
    scales = site.attribute("scales") or site.constant(1).tolist()
    name = _INTERPOLATION["linear"].get(len(shape)) if mode in ("linear", "bilinear") else mode
    if any(s != 1.0 for s in scales[:2]) or name is None:
        raise BadInput(f"scales shape {shape} by {list(scales)}, mode {mode}: only the last dimensions can be scaled")
    size = [math.floor(n * s + 1e-9) for n, s in zip(shape[2:], scales[2:], strict=True)]
    return partial(_interpolated, size=size, mode=name)


def _nearest(site: Site, where: str, size: Sequence[int], out: Sequence[int]) -> str:
    rounding = site.attribute("nearest_mode", "round_prefer_floor" if site.opset >= 11 else "floor")
    if where == "asymmetric" and rounding == "floor":
        return "nearest"
    # (i + 1/2) x/o lies on a whole number: only there the two ways to round differ
    tie = any((2 * i + 1) * x % (2 * o) == 0 for x, o in zip(size, out, strict=True) for i in range(o))
    if where in ("half_pixel", "pytorch_half_pixel") and (
        rounding == "round_prefer_ceil" or (rounding == "round_prefer_floor" and not tie)
    ):
        return "nearest-exact"
    raise BadInput(f"resizes to the nearest with coordinates {where} and {rounding}: torch has no such interpolation")


def _interpolated(x: Tensor, *_: object, **how: Any) -> Tensor:
    return F.interpolate(x, **how)


# --- shape


def _shape(site: Site) -> Run:
    shape = site.shape(0)
    sizes = torch.tensor(shape[slice(site.attribute("start", 0), site.attribute("end"))], dtype=torch.int64)
    return lambda *_: sizes


def _size(site: Site) -> Run:
    count = torch.tensor(math.prod(site.shape(0)))
    return lambda *_: count


def _reshape(site: Site) -> Run:
    target = _ints(site, "shape", 1) or ()
    if not site.attribute("allowzero", 0):
        shape = site.shape(0)
        target = tuple(shape[d] if n == 0 else n for d, n in enumerate(target))
    return lambda x, *_: x.reshape(target)


def _flatten(site: Site) -> Run:
    shape = site.shape(0)
    axis = site.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    target = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return lambda x: x.reshape(target)


def _squeeze(site: Site) -> Run:
    shape = site.shape(0)
    axes = _ints(site, "axes", 1)
    drop = {d for d, n in enumerate(shape) if n == 1} if axes is None else {a % len(shape) for a in axes}
    if any(shape[d] != 1 for d in drop):
        raise BadInput(f"squeezes dimensions {sorted(drop)} of shape {shape}: they must have size 1")
    return lambda x, *_: x.squeeze(tuple(sorted(drop))) if drop else x


def _unsqueeze(site: Site) -> Run:
    axes = _ints(site, "axes", 1) or ()
    rank = len(site.shape(0)) + len(axes)
    places = sorted(a % rank for a in axes)
    return lambda x, *_: reduce(torch.unsqueeze, places, x)


def _transpose(site: Site) -> Run:
    rank = len(site.shape(0))
    order = tuple(site.attribute("perm", range(rank)[::-1]))
    return lambda x: x.permute(order)


def _expand(site: Site) -> Run:
    shape = _broadcast(site.shape(0), site.constant(1).tolist())
    return lambda x, *_: x.expand(shape)


def _tile(site: Site) -> Run:
    repeats = tuple(site.constant(1).tolist())
    return lambda x, *_: x.repeat(repeats)


def _concat(site: Site) -> Run:
    axis = site.attribute("axis")
    return lambda *tensors: torch.cat(tensors, axis)


def _split(site: Site) -> Run:
    shape = site.shape(0)
    axis = site.attribute("axis", 0) % len(shape)
    sizes = _ints(site, "split", 1)
    if sizes is None:
        parts = site.outputs
        each = math.ceil(shape[axis] / parts)
        sizes = tuple(min(each, shape[axis] - k * each) for k in range(parts))
    return lambda x, *_: torch.split(x, list(sizes), axis)


def _slice(site: Site) -> Run:
    shape = site.shape(0)
    starts, ends = _ints(site, "starts", 1) or (), _ints(site, "ends", 2) or ()
    axes = _ints(site, "axes", 3) or tuple(range(len(starts)))
    steps = (_ints(site, "steps", 4) if site.has_input(4) else None) or (1,) * len(starts)
    cuts = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        d = axis % len(shape)
        chosen = (
            range(*slice(start, end, step).indices(shape[d])) if step > 0 else _backwards(start, end, step, shape[d])
        )
        if len(chosen) != shape[d] or step < 0:
            cuts.append((d, chosen))
    return lambda x, *_: reduce(_cut, cuts, x)


def _backwards(start: int, end: int, step: int, size: int) -> range:
    """The indices of a slice with a negative step; `end` below −size means up to and with index 0."""
    first = min(max(start + size if start < 0 else start, 0), size - 1)
    last = end + size if end < 0 else end
    return range(first, max(last, -1), step)


def _cut(x: Tensor, cut: tuple[int, range]) -> Tensor:
    d, chosen = cut
    if chosen.step == 1:
        return x.narrow(d, chosen.start, len(chosen))
    if chosen.step < 0:
        x, chosen = x.flip(d), range(x.shape[d] - 1 - chosen.start, x.shape[d], -chosen.step)[: len(chosen)]
    index: list[Any] = [slice(None)] * x.dim()
    index[d] = slice(chosen.start, chosen.stop, chosen.step)
    return x[tuple(index)]


def _gather(site: Site) -> Run:
    shape = site.shape(0)
    axis = site.attribute("axis", 0) % len(shape)
    if not site.is_constant(1):
        where = site.shape(1)
        if axis == 0:
            return lambda x, index: F.embedding(index, x) if x.dim() == 2 else x[index]
        return lambda x, index: x.index_select(axis, index.reshape(-1)).reshape(
            *shape[:axis], *where, *shape[axis + 1 :]
        )
    index = site.constant(1)
    index = torch.where(index < 0, index + shape[axis], index)
    if index.dim() == 0:
        place = int(index)
        return lambda x, *_: x.select(axis, place)
    places = index.reshape(-1).tolist()
    target = (*shape[:axis], *index.shape, *shape[axis + 1 :])
    if places and places == list(range(places[0], places[0] + len(places))):
        return lambda x, *_: x.narrow(axis, places[0], len(places)).reshape(target)
    return lambda x, *_: torch.cat([x.narrow(axis, p, 1) for p in places], axis).reshape(target)


def _gather_elements(site: Site) -> Run:
    axis = site.attribute("axis", 0)
    size = site.shape(0)[axis]
    return lambda x, index: torch.gather(x, axis, torch.where(index < 0, index + size, index))


def _scatter_elements(site: Site) -> Run:
    axis, how = site.attribute("axis", 0), site.attribute("reduction", "none")
    size = site.shape(0)[axis]
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        places = torch.where(index < 0, index + size, index)
        if how == "none":
            return x.scatter(axis, places, updates)
        return x.scatter_reduce(axis, places, updates, names[how])

    return run


def _one_hot(site: Site) -> Run:
    """`values` = [off, on] in a new dimension `axis` of size `depth`."""
    depth, axis = int(site.constant(1).item()), site.attribute("axis", -1)
    off, on = site.constant(2).tolist()
    dtype = site.dtype(2)

    def run(index: Tensor, *_: object) -> Tensor:
        chosen = torch.where(index < 0, index + depth, index).unsqueeze(-1) == torch.arange(depth, device=index.device)
        spread = torch.where(chosen, on, off).to(dtype)
        return spread.movedim(-1, axis)

    return run


def _depth_to_space(site: Site) -> Run:
    n, c, h, w = site.shape(0)
    b = site.attribute("blocksize")
    if site.attribute("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, b)

    def run(x: Tensor) -> Tensor:
        parts = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // (b * b), h * b, w * b)

    return run


def _space_to_depth(site: Site) -> Run:
    n, c, h, w = site.shape(0)
    b = site.attribute("blocksize")

    def run(x: Tensor) -> Tensor:
        parts = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * b * b, h // b, w // b)

    return run


def _trilu(site: Site) -> Run:
    diagonal = int(site.constant(1).item()) if site.has_input(1) else 0
    cut = torch.triu if site.attribute("upper", 1) else torch.tril
    return lambda x, *_: cut(x, diagonal)


def _top_k(site: Site) -> Run:
    k, axis = int(_number(site, "k", 1, 1)), site.attribute("axis", -1)
    largest, ordered = bool(site.attribute("largest", 1)), bool(site.attribute("sorted", 1))
    return lambda x, *_: tuple(torch.topk(x, k, axis, largest, ordered))


def _arg(function: Callable[..., Tensor]) -> Lower:
    def lower(site: Site) -> Run:
        axis, keep = site.attribute("axis", 0), bool(site.attribute("keepdims", 1))
        if not site.attribute("select_last_index", 0):
            return lambda x: function(x, axis, keep)
        last = site.shape(0)[axis] - 1
        return lambda x: last - function(x.flip(axis), axis, keep)

    return lower


def _cum_sum(site: Site) -> Run:
    axis = int(site.constant(1).item())
    exclusive, backwards = site.attribute("exclusive", 0), site.attribute("reverse", 0)

    def run(x: Tensor, *_: object) -> Tensor:
        y = x.flip(axis) if backwards else x
        total = y.cumsum(axis)
        total = total - y if exclusive else total
        return total.flip(axis) if backwards else total

    return run


def _hardmax(site: Site) -> Run:
    """1 at the first largest element along an axis, 0 elsewhere; before version 13 along all dimensions from it on."""
    shape = site.shape(0)
    flat = site.opset < 13
    axis = site.attribute("axis", 1 if flat else -1)

    def run(x: Tensor) -> Tensor:
        y, along = (x.flatten(axis), -1) if flat else (x, axis)
        return torch.zeros_like(y).scatter(along, y.argmax(along, keepdim=True), 1.0).reshape(shape)

    return run


def _pad(site: Site) -> Run:
    shape = site.shape(0)
    widths = _ints(site, "pads", 1) or ()
    mode = site.attribute("mode", "constant")
    value = _number(site, "value", 2, 0.0)
    axes = [a % len(shape) for a in (site.constant(3).tolist() if site.has_input(3) else range(len(shape)))]
    n = len(axes)
    begin, end = dict(zip(axes, widths[:n], strict=True)), dict(zip(axes, widths[n:], strict=True))
    padded = [d for d in range(len(shape)) if begin.get(d) or end.get(d)]
    dims = range(min(padded, default=len(shape)), len(shape))
    if mode != "constant":
        dims = range(min(2, dims.start), len(shape))  # torch's other modes want batch and channels in front
    pads = _torch_pads([begin.get(d, 0) for d in dims], [end.get(d, 0) for d in dims])
    if mode == "constant":
        return lambda x, *_: F.pad(x, pads, value=value) if padded else x
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    return lambda x, *_: F.pad(x, pads, mode=names[mode]) if padded else x


def _constant(site: Site) -> Run:
    for name, kind in (
        ("value", None),
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        value = site.attribute(name)
        if value is not None:
            constant = value if kind is None else torch.tensor(value, dtype=kind)
            return lambda: constant
    raise BadInput("has no numeric value: strings and sparse tensors cannot be imported")


def _constant_of_shape(site: Site) -> Run:
    shape = _bounded(site.constant(0).tolist())
    value = site.attribute("value")
    filled = torch.zeros(1) if value is None else value
    return lambda *_: torch.full(shape, filled.item(), dtype=filled.dtype)


def _range(site: Site) -> Run:
    start, limit, delta = (site.constant(i) for i in range(3))
    _bounded((math.ceil((limit.item() - start.item()) / delta.item()),))
    return lambda *_: torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _cast(site: Site) -> Run:
    to = site.attribute("to")
    # The same type stays what the trace makes of it: float32 in the file may run as float64.
    return (lambda x: x) if site.dtype(0) == to else (lambda x: x.to(to))


# --- reductions, softmax, elementwise


def _reduce(function: Callable[..., Tensor]) -> Lower:
    def lower(site: Site) -> Run:
        rank = len(site.shape(0))
        axes = _ints(site, "axes", 1)
        keep = bool(site.attribute("keepdims", 1))
        if not axes:
            if site.attribute("noop_with_empty_axes", 0):
                return lambda x, *_: x
            axes = tuple(range(rank))
        dims = tuple(a % rank for a in axes)
        return lambda x, *_: function(x, dims, keep)

    return lower


def _product(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    """torch multiplies along one dimension at a time."""
    return reduce(lambda y, d: y.prod(d, keep), sorted(dims, reverse=True), x)


def _norm(order: int) -> Callable[..., Tensor]:
    return lambda x, dims, keep: torch.linalg.vector_norm(x, order, dims, keep)


def _softmax(function: Callable[..., Tensor]) -> Lower:
    def lower(site: Site) -> Run:
        shape = site.shape(0)
        axis = site.attribute("axis", -1 if site.opset >= 13 else 1) % len(shape)
        if site.opset >= 13 or axis == len(shape) - 1:
            return lambda x: function(x, axis)
        # before version 13: over all dimensions from `axis` on together
        return lambda x: function(x.flatten(axis), -1).reshape(shape)

    return lower


def _plain(function: Run) -> Lower:
    return lambda site: function


def _with(function: Callable[..., Tensor], *names: tuple[str, Any]) -> Lower:
    """A function of x and of attributes, given as (name, default)."""

    def lower(site: Site) -> Run:
        values = tuple(site.attribute(n, d) for n, d in names)
        return lambda x: function(x, *values)

    return lower


def _clip(site: Site) -> Run:
    low, high = _number(site, "min", 1, None), _number(site, "max", 2, None)
    if low is None and high is None:
        return lambda x, *_: x
    return lambda x, *_: torch.clamp(x, low, high)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def _scaled_elu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    if math.isclose(alpha, 1.67326319, rel_tol=1e-6) and math.isclose(gamma, 1.05070102, rel_tol=1e-6):
        return F.selu(x)
    return gamma * F.elu(x, alpha)


def _thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return F.threshold(x, alpha, 0.0)


def _shrink(x: Tensor, lambd: float, bias: float) -> Tensor:
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


def _swish(x: Tensor, alpha: float) -> Tensor:
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def _mod(site: Site) -> Run:
    """The sign of the divisor, as Python's %, or with `fmod` that of the dividend, as C's."""
    if not site.attribute("fmod", 0):
        return operator.mod
    return lambda a, b: torch.fmod(a, b) if isinstance(a, Tensor) else torch.fmod(torch.full_like(b, a), b)


def _mean(*tensors: Operand) -> Operand:
    return reduce(operator.add, tensors) / len(tensors)


def _gelu(site: Site) -> Run:
    approximate = site.attribute("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def _prelu(site: Site) -> Run:
    x, slope = site.shape(0), site.shape(1)
    channels = math.prod(slope)
    if channels != 1 and (len(x) < 2 or channels != x[1] or slope[-(len(x) - 1) :] != (x[1], *(1,) * (len(x) - 2))):
        raise BadInput(
            f"has slopes of shape {slope} for an input of {x}: one slope, or one per channel, can be imported"
        )
    return lambda v, w: F.prelu(v, w.reshape(-1))


def _div(a: Operand, b: Operand) -> Operand:
    whole = not any(isinstance(v, float) or (isinstance(v, Tensor) and v.is_floating_point()) for v in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _extreme(function: Callable[[Tensor, Tensor], Tensor], bound: Literal["min", "max"]) -> Lower:
    """The least or the greatest of all operands: a number bounds a tensor."""

    def of_two(a: Operand, b: Operand) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return function(a, b)
        tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
        return torch.clamp(tensor, **{bound: number})  # type: ignore[arg-type]

    return _variadic(of_two)


def _where(site: Site) -> Run:
    shape = _broadcast(*(site.shape(i) for i in range(3)))
    fills = site.shape(2) == shape

    def run(condition: Tensor, x: Operand, y: Operand) -> Tensor:
        if not isinstance(x, Tensor) and isinstance(y, Tensor) and fills:
            return y.masked_fill(condition, x)
        return torch.where(condition, x, y)

    return run


def _einsum(site: Site) -> Run:
    equation = site.attribute("equation")
    return lambda *tensors: torch.einsum(equation, *tensors)


def _variadic(function: Callable[[Any, Any], Operand]) -> Lower:
    return lambda site: lambda *tensors: reduce(function, tensors)


# Operators that take a one-element constant as a plain number.
ELEMENTWISE: Mapping[str, Lower] = {
    "Add": _plain(operator.add),
    "Sub": _plain(operator.sub),
    "Mul": _plain(operator.mul),
    "Div": _plain(_div),
    "Pow": _plain(operator.pow),
    "Mod": _mod,
    "Min": _extreme(torch.minimum, "max"),
    "Max": _extreme(torch.maximum, "min"),
    "Sum": _variadic(operator.add),
    "Mean": _plain(_mean),
    "Greater": _plain(operator.gt),
    "GreaterOrEqual": _plain(operator.ge),
    "Less": _plain(operator.lt),
    "LessOrEqual": _plain(operator.le),
    "Equal": _plain(operator.eq),
    "Where": _where,
}

# Operators of one input that torch calls by the same name in small letters, in `torch` and in `torch.nn.functional`.
_OF_TORCH = """
Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor IsNaN Log Neg Reciprocal Round Sigmoid Sign Sin Sinh
Sqrt Tan Tanh
""".split()
_OF_FUNCTIONAL = ("HardSwish", "Mish", "Relu", "Softplus", "Softsign")

OPERATORS: Mapping[str, Lower] = {
    **ELEMENTWISE,
    **{name: _plain(getattr(torch, name.lower())) for name in _OF_TORCH},
    **{name: _plain(getattr(F, name.lower())) for name in _OF_FUNCTIONAL},
    **{name: _plain(getattr(torch, f"logical_{name.lower()}")) for name in ("Not", "And", "Or", "Xor")},
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _plain(torch.matmul),
    "Einsum": _einsum,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
    "LRN": _response_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance_norm,
    "LSTM": lstm,
    "GRU": gru,
    "RNN": rnn,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Dropout": _dropout,
    "LeakyRelu": _with(F.leaky_relu, ("alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": _with(F.elu, ("alpha", 1.0)),
    "Clip": _clip,
    "HardSigmoid": _with(_hard_sigmoid, ("alpha", 0.2), ("beta", 0.5)),
    "Gelu": _gelu,
    "Selu": _with(_scaled_elu, ("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
    "Celu": _with(F.celu, ("alpha", 1.0)),
    "ThresholdedRelu": _with(_thresholded_relu, ("alpha", 1.0)),
    "Shrink": _with(_shrink, ("lambd", 0.5), ("bias", 0.0)),
    "Swish": _with(_swish, ("alpha", 1.0)),
    "Hardmax": _hardmax,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Cast": _cast,
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _global_pool((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)),
    "GlobalMaxPool": _global_pool((F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)),
    "GlobalLpPool": _global_lp_pool,
    "Resize": _resize,
    "Upsample": _upsample,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "ScatterElements": _scatter_elements,
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "TopK": _top_k,
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "CumSum": _cum_sum,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Identity": _plain(lambda x: x),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceL1": _reduce(_norm(1)),
    "ReduceL2": _reduce(_norm(2)),
    "ReduceSumSquare": _reduce(lambda x, dims, keep: (x * x).sum(dims, keep)),
    "ReduceLogSum": _reduce(lambda x, dims, keep: x.sum(dims, keep).log()),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
}

# Activations that exporters put into domains of their own, where every one means the same by the name.
OTHER_DOMAINS: Mapping[str, Lower] = {
    "Silu": _plain(F.silu),
    "Swish": _with(_swish, ("alpha", 1.0)),
    "QuickGelu": _with(_swish, ("alpha", 1.702)),
    "Gelu": _plain(F.gelu),
    "FastGelu": _plain(lambda x, bias=None: F.gelu(x if bias is None else x + bias, approximate="tanh")),
    "BiasGelu": _plain(lambda x, bias: F.gelu(x + bias)),
}


def lowering(domain: str, op_type: str) -> Lower | None:
    """How an operator becomes a torch function, None where it cannot."""
    return (OPERATORS if domain in ("", "ai.onnx") else OTHER_DOMAINS).get(op_type)


# Their function takes, before its tensors, whether the network is in training mode.
MODAL = frozenset({"BatchNormalization", "Dropout", "LSTM", "GRU", "RNN"})

# What an operator's inputs are called in torch, where the file has no name for them.
ROLES: Mapping[str, tuple[str, ...]] = {
    "Conv": ("input", "weight", "bias"),
    "ConvTranspose": ("input", "weight", "bias"),
    "Gemm": ("input", "weight", "bias"),
    "MatMul": ("input", "weight"),
    "Gather": ("weight",),
    "BatchNormalization": ("input", "weight", "bias", "running_mean", "running_var"),
    "LayerNormalization": ("input", "weight", "bias"),
    "InstanceNormalization": ("input", "weight", "bias"),
    "GroupNormalization": ("input", "weight", "bias"),
    "RMSNormalization": ("input", "weight"),
    "PRelu": ("input", "weight"),
    "Add": ("bias", "bias"),
}
