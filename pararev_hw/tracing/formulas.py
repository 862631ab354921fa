"""What kind of work an aten operation is, and how much: the one table of kinds and flop formulas.

Convolutions and matrix products are counted by torch's own registry (`torch.utils.flop_counter`), so totals equal
`FlopCounterMode`'s; the products of ops that it does not know (a CPU's fused attention, encoder layer and LSTM,
products with vectors) are counted by `product_flops`. Everything else has a formula of its own here, in operations per
element, and an operation without one is of kind "unknown" with `None` operations: listed, never counted as free.

The names are those of aten overload packets without "aten.", and in-place variants (`add_`) share their entry (`add`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pararev_hw.types.op_names import EMBEDDING_BAGS, RECURRENT, base_name, factors

Shape = tuple[int, ...]

# kind -> what it is
KINDS: Mapping[str, str] = {
    "conv": "convolution, forward",
    "conv_backward": "convolution, input and weight gradient",
    "gemm": "matrix product",
    "xnor": "convolution of signs: XNOR, popcount and add per word of 64",
    "attention": "fused scaled dot-product attention",
    "attention_backward": "its gradient",
    "elementwise": "one result per element",
    "neuron": "elementwise work inside a spiking neuron",
    "norm": "batch, layer or group normalisation",
    "norm_backward": "its gradient",
    "pool": "pooling and resampling",
    "pool_backward": "its gradient",
    "reduction": "sums, means, extrema over elements",
    "softmax": "softmax, log-softmax and their gradients",
    "loss": "negative log-likelihood and its gradient",
    "scan": "cumulative sums and products",
    "sort": "sort, top-k",
    "fft": "fast Fourier transform",
    "index": "gather, scatter, embedding",
    "copy": "copies, casts, concatenation",
    "fill": "constants written to memory",
    "random": "random numbers written to memory",
    "optimizer": "an update of many parameters in one call",
    "view": "another look at the same memory: moves nothing",
    "host": "a value brought to the host: waits for the device",
    "unknown": "no formula: its bytes are counted, its work is not",
}

# Operations per element of the output. Everything that torch tags `pointwise` and is not named here counts 1.
_ELEMENTWISE: Mapping[str, int] = {
    "addcmul": 3,
    "addcdiv": 3,
    "lerp": 3,
    "sigmoid": 4,  # negate, exp, add, reciprocal
    "sigmoid_backward": 3,
    "tanh_backward": 3,
    "silu": 5,
    "silu_backward": 8,
    "gelu": 8,
    "gelu_backward": 12,
    "softplus": 3,
    "softplus_backward": 4,
    "log_sigmoid_forward": 5,
    "log_sigmoid_backward": 5,
    "mish": 6,
    "mish_backward": 10,
    "elu": 3,
    "elu_backward": 4,
    "hardswish": 4,
    "hardswish_backward": 5,
    "hardsigmoid": 4,
    "hardsigmoid_backward": 2,
    "hardtanh": 2,
    "_prelu_kernel": 2,
    "_prelu_kernel_backward": 3,
    "rrelu_with_noise_backward": 2,
    "floor_divide": 2,
    "clamp": 2,
    "threshold_backward": 1,
    "native_dropout": 3,
    "native_dropout_backward": 2,
    "glu": 5,
    "glu_backward": 8,
}
_POINTWISE_UNTAGGED = frozenset(
    {
        *(
            "masked_fill",
            "where",
            "complex",
            "polar",
            "floor_divide",
            "hardswish",
            "_prelu_kernel",
            "log_sigmoid_forward",
        ),
        *("threshold_backward", "hardtanh_backward", "leaky_relu_backward", "hardswish_backward", "elu_backward"),
        *(
            "hardsigmoid_backward",
            "softplus_backward",
            "log_sigmoid_backward",
            "mish_backward",
            "_prelu_kernel_backward",
        ),
        *("softshrink_backward", "hardshrink_backward", "rrelu_with_noise_backward"),
    }
)

_WORD_BITS = 64

# Operations per element of the first input.
_PER_INPUT: Mapping[str, tuple[str, int]] = {
    "spiking_neuron": ("neuron", 4),  # charge, compare, spike, reset
    "spiking_neuron_backward": ("neuron", 12),  # surrogate 4, reset 4, charge 2, v of the step before 2
    # training: mean 1, variance 3, scale and shift 2; `norm_flops` lowers it for evaluation
    "native_batch_norm": ("norm", 6),
    "_native_batch_norm_legit": ("norm", 6),
    "_native_batch_norm_legit_no_training": ("norm", 2),
    "_batch_norm_with_update": ("norm", 6),
    "_batch_norm_no_update": ("norm", 2),
    "cudnn_batch_norm": ("norm", 6),
    "native_layer_norm": ("norm", 6),
    "native_group_norm": ("norm", 6),
    "_weight_norm_interface": ("norm", 4),  # squares 1, their sum 1, scale 1, root and division 1
    # sum of g 1, normalised x 2, sum of g*x 2, result 4
    "native_batch_norm_backward": ("norm_backward", 9),
    "batch_norm_backward": ("norm_backward", 9),
    "cudnn_batch_norm_backward": ("norm_backward", 9),
    "native_layer_norm_backward": ("norm_backward", 9),
    "native_group_norm_backward": ("norm_backward", 9),
    "_weight_norm_interface_backward": ("norm_backward", 8),
    "sum": ("reduction", 1),
    "mean": ("reduction", 1),
    "prod": ("reduction", 1),
    "amax": ("reduction", 1),
    "amin": ("reduction", 1),
    "max": ("reduction", 1),
    "min": ("reduction", 1),
    "argmax": ("reduction", 1),
    "argmin": ("reduction", 1),
    "any": ("reduction", 1),
    "all": ("reduction", 1),
    "logsumexp": ("reduction", 4),
    "var": ("reduction", 4),
    "std": ("reduction", 4),
    "var_mean": ("reduction", 4),
    "std_mean": ("reduction", 4),
    "linalg_vector_norm": ("reduction", 2),
    "norm": ("reduction", 2),
    # maximum 1, subtract 1, exp 1, sum 1, divide or subtract 1
    "_softmax": ("softmax", 5),
    "_log_softmax": ("softmax", 5),
    "_safe_softmax": ("softmax", 6),  # and whether a row is masked as a whole
    "_softmax_backward_data": ("softmax", 4),
    "_log_softmax_backward_data": ("softmax", 4),
    "_adaptive_avg_pool2d": ("pool", 1),
    "_adaptive_avg_pool3d": ("pool", 1),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), ("pool", 1)),
    # what was padded is added to where it came from
    **{f"{how}_pad{n}d_backward": ("pool_backward", 1) for how in ("reflection", "replication") for n in (1, 2, 3)},
    "unique_consecutive": ("reduction", 1),
    "cumsum": ("scan", 1),
    "cumprod": ("scan", 1),
    "logcumsumexp": ("scan", 3),
}
_RESAMPLED: Mapping[str, int] = {
    "upsample_linear1d": 2,
    "upsample_bilinear2d": 4,
    "upsample_trilinear3d": 8,
    "upsample_bicubic2d": 16,
    "grid_sampler_2d": 4,
    "grid_sampler_3d": 8,
}
_PER_OUTPUT: Mapping[str, tuple[str, int]] = {
    "_adaptive_avg_pool2d_backward": ("pool_backward", 1),
    "_adaptive_avg_pool3d_backward": ("pool_backward", 1),
    "upsample_nearest1d": ("pool", 0),
    "upsample_nearest2d": ("pool", 0),
    "upsample_nearest3d": ("pool", 0),
    **{f"upsample_nearest{n}d_backward": ("pool_backward", 1) for n in (1, 2, 3)},
    # points that are weighted and added up, per dimension 2 (cubic 4); backward, each is weighted and added
    **{name: ("pool", 2 * points - 1) for name, points in _RESAMPLED.items()},
    **{f"{name}_backward": ("pool_backward", 2 * points) for name, points in _RESAMPLED.items()},
    **dict.fromkeys(
        """
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward adaptive_max_pool2d_backward
        adaptive_max_pool3d_backward fractional_max_pool2d_backward fractional_max_pool3d_backward
        """.split(),
        ("pool_backward", 1),
    ),
    "affine_grid_generator": ("elementwise", 5),
    "nll_loss_forward": ("loss", 1),
    "nll_loss_backward": ("loss", 1),
    "nll_loss2d_forward": ("loss", 1),
    "nll_loss2d_backward": ("loss", 1),
    "mse_loss": ("loss", 3),
    "mse_loss_backward": ("loss", 3),
    "smooth_l1_loss": ("loss", 5),
    "smooth_l1_loss_backward": ("loss", 5),
    "huber_loss": ("loss", 5),
    "huber_loss_backward": ("loss", 5),
    "soft_margin_loss": ("loss", 5),
    "soft_margin_loss_backward": ("loss", 5),
}
# Window operations: one operation per element of the window, per output element (backward: per gradient element).
_POOLS = frozenset(
    """
    avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices fractional_max_pool2d
    fractional_max_pool3d
    """.split()
)
_POOLS_BACKWARD = frozenset({"avg_pool2d_backward", "avg_pool3d_backward"})

_NO_WORK: Mapping[str, str] = {
    **dict.fromkeys(
        """
        copy _to_copy clone contiguous cat stack repeat flip roll constant_pad_nd slice_backward
        select_backward slice_scatter select_scatter tril triu repeat_interleave unfold_backward im2col
        _reshape_copy lift_fresh_copy _foreach_copy split_with_sizes_copy pixel_shuffle pixel_unshuffle
        channel_shuffle reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d set diag_embed diagonal_backward _conj _pack_padded_sequence
        """.split(),
        "copy",
    ),
    **dict.fromkeys(
        """
        zeros zeros_like ones ones_like full full_like fill zero arange eye linspace empty empty_like
        empty_strided new_empty new_empty_strided new_zeros new_ones new_full scalar_tensor _foreach_zero
        _efficientzerotensor hann_window hamming_window
        """.split(),
        "fill",
    ),
    **dict.fromkeys(
        """
        bernoulli normal uniform rand rand_like randn randn_like randint randint_like random randperm
        multinomial exponential rrelu_with_noise normal_functional
        """.split(),
        "random",
    ),
    **dict.fromkeys(
        """
        index index_select gather take embedding embedding_dense_backward scatter scatter_add index_put
        index_add index_copy index_fill masked_scatter _unsafe_index _index_put_impl nonzero masked_select
        one_hot scatter_reduce index_put_impl put bincount
        """.split(),
        "index",
    ),
    **dict.fromkeys(("_local_scalar_dense", "item", "equal", "is_nonzero", "_assert_async"), "host"),
}

OVERWRITES = frozenset("copy zero fill bernoulli normal uniform random exponential _foreach_copy _foreach_zero".split())
READS_SELECTED = frozenset({"index", "index_select", "gather", "take", "embedding", "_unsafe_index"})

# Fused attention that torch's counter does not know: how many products of queries with keys it does, and where queries
# and keys stand among its tensors.
_ATTENTION: Mapping[str, tuple[str, int, int, int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": ("attention", 2, 0, 1),
    "_scaled_dot_product_flash_attention_for_cpu_backward": ("attention_backward", 5, 1, 2),
}

# Fast paths: where their weights begin among their tensors (behind the one input, or queries, keys and values), and how
# many tensors of weights there are before the mask.
_ENCODERS: Mapping[str, int] = {"_transformer_encoder_layer_fwd": 1, "_native_multi_head_attention": 3}
_ENCODER_TENSORS: Mapping[str, int] = {"_transformer_encoder_layer_fwd": 12, "_native_multi_head_attention": 4}
_RNN_LAYERS = frozenset({"mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"})
_BAGS_BACKWARD = frozenset({"_embedding_bag_backward", "_embedding_bag_dense_backward"})
_VECTOR_PRODUCTS = frozenset({"mv", "addmv", "addbmm"})
_SOFTMAX = 5  # per score, as `_softmax` above
_GATE = 5  # per gate: its activation 4, its part in the new state 1

_FOREACH: Mapping[str, int] = {"addcmul": 3, "addcdiv": 3, "lerp": 3}
_FUSED_UPDATES: Mapping[str, int] = {"_fused_sgd": 6, "_fused_adam": 14, "_fused_adamw": 15, "_fused_adagrad": 7}


def numel(shape: Shape) -> int:
    return math.prod(shape)


def describe(
    name: str, pointwise: bool, inputs: Sequence[Shape], outputs: Sequence[Shape], attributes: Mapping[str, Any]
) -> tuple[str, int | None]:
    """Kind and vector operations of an op that torch's counter does not know and that is no view.

    `inputs` and `outputs` are the shapes of its tensors, `attributes` its named arguments. None: no formula is known.
    """
    base = base_name(name)
    out = numel(outputs[0]) if outputs else 0
    first = numel(inputs[0]) if inputs else 0
    if base in _NO_WORK:
        return _NO_WORK[base], 0
    if base in _PER_INPUT:
        kind, per_element = _PER_INPUT[base]
        if base in ("sum", "mean", "max", "min", "amax", "amin") and pointwise:
            kind, per_element = "elementwise", 1
        if base in ("native_batch_norm", "cudnn_batch_norm") and not attributes.get("training", True):
            per_element = 2
        return kind, per_element * first
    if base in _PER_OUTPUT:
        kind, per_element = _PER_OUTPUT[base]
        return kind, per_element * out
    if base in _POOLS:
        return "pool", out * _window(attributes, len(outputs[0]) - 2)
    if base in _POOLS_BACKWARD:
        return "pool_backward", first * _window(attributes, len(outputs[0]) - 2)
    if base in ("_euclidean_dist", "_cdist_forward"):  # subtract, square and add along the last axis
        return "reduction", out * 3 * inputs[0][-1]
    if base in ("sort", "topk", "_unique2"):
        length = first if base == "_unique2" else inputs[0][-1] if inputs and inputs[0] else 1
        return "sort", first * max(1, math.ceil(math.log2(max(2, length))))
    if base.startswith("_fft_"):
        # Cooley-Tukey, complex: 5 n log2 n
        points = math.prod(inputs[0][d] for d in attributes.get("dim", (-1,))) if inputs else 1
        return "fft", round(5 * first * math.log2(max(2, points)))
    if base.startswith("_foreach_"):
        per_element = _FOREACH.get(base.removeprefix("_foreach_"), 1)
        lead = inputs[: max(1, len(inputs) // _lists(inputs))]
        return "optimizer", per_element * sum(map(numel, lead))
    if base in _FUSED_UPDATES:
        return "optimizer", _FUSED_UPDATES[base] * sum(map(numel, inputs[: max(1, len(inputs) // _lists(inputs))]))
    if base == "xnor_conv2d":
        return "xnor", out * 3 * math.ceil(math.prod(inputs[1][1:]) / _WORD_BITS)
    if base in _ATTENTION:
        kind, _, q, k = _ATTENTION[base]
        return kind, _SOFTMAX * numel(inputs[q][:-1]) * inputs[k][-2]
    if base in _ENCODERS:
        return "attention", _encoder_vector_flops(base, inputs, attributes)
    if base in _RNN_LAYERS:
        return "scan", _GATE * numel(inputs[0][:2]) * inputs[1][0]
    if base in RECURRENT:
        of_states = [shape for shape in inputs[1:] if len(shape) == 2][1::2]
        return "scan", _GATE * numel(inputs[0][:2]) * sum(gates for gates, _ in of_states)
    if base in _VECTOR_PRODUCTS:
        return "gemm", 0
    if base in EMBEDDING_BAGS:
        return "index", numel(inputs[1]) * inputs[0][-1]  # an addition for each element of each row
    if base in _BAGS_BACKWARD:
        return "index", numel(inputs[1]) * inputs[0][-1]
    if base == "_trilinear":
        return "reduction", 3 * _trilinear_terms(inputs, attributes)  # two multiplications and an addition
    if base in ("dot", "vdot"):
        return "reduction", 2 * max(map(numel, inputs))
    if base in _ELEMENTWISE:
        return "elementwise", _ELEMENTWISE[base] * out
    if pointwise or base in _POINTWISE_UNTAGGED:
        return "elementwise", out
    return "unknown", None


def product_flops(name: str, inputs: Sequence[Shape]) -> int:
    """Flops of the matrix products in an op that torch's counter does not know; 0 where it has none."""
    base = base_name(name)
    if base in _ATTENTION:
        _, products, q, k = _ATTENTION[base]
        return 2 * products * numel(inputs[q]) * inputs[k][-2]
    if base in _RNN_LAYERS:
        # [T, B, features], and of all gates the weights of inputs and of states; backward: gradients of both operands
        forward = 2 * numel(inputs[0][:2]) * (numel(inputs[1]) + numel(inputs[2]))
        return forward * (2 if base.endswith("backward") else 1)
    if base in RECURRENT:
        forward = 2 * numel(inputs[0][:2]) * sum(numel(shape) for shape in inputs[1:] if len(shape) == 2)
        return forward * (2 if base.endswith("backward") else 1)
    if base in _ENCODERS:
        return _encoder_flops(base, inputs)
    if base in _VECTOR_PRODUCTS:
        left, right = (inputs[k] for k in factors(name))
        return 2 * numel(left) * (right[-1] if len(right) > 1 else 1)
    return 0


def _encoder_flops(base: str, inputs: Sequence[Shape]) -> int:
    """Of the fast path of an encoder layer or of multi-head attention: projections, feed-forward part, two products of
    the queries."""
    first = _ENCODERS[base]
    queries, keys = inputs[0], inputs[1 if first > 1 else 0]
    weights = [s for s in inputs[first : first + _ENCODER_TENSORS[base]] if len(s) == 2]
    rows = numel(queries[:-1])
    return 2 * rows * sum(map(numel, weights)) + 2 * 2 * rows * keys[-2] * queries[-1]


def _encoder_vector_flops(base: str, inputs: Sequence[Shape], attributes: Mapping[str, Any]) -> int:
    """The softmax, and in an encoder layer two normalisations, two sums and the feed-forward part's activation."""
    queries, keys = inputs[0], inputs[1 if _ENCODERS[base] > 1 else 0]
    rows, heads = numel(queries[:-1]), int(attributes.get("num_heads", attributes.get("num_head", 1)))
    softmax = _SOFTMAX * rows * keys[-2] * heads
    if base == "_native_multi_head_attention":
        return softmax
    hidden = inputs[9][0]  # rows of the first weight of the feed-forward part
    activation = _ELEMENTWISE["gelu"] if attributes.get("use_gelu") else 1
    return softmax + rows * (queries[-1] * 2 * (_PER_INPUT["native_layer_norm"][1] + 1) + hidden * activation)


def _trilinear_terms(inputs: Sequence[Shape], attributes: Mapping[str, Any]) -> int:
    """Products of three factors in a bilinear layer: all combinations of the axes that its three tensors have."""
    expanded = []
    for k, shape in enumerate(inputs[:3]):
        sizes = list(shape)
        for axis in sorted(attributes[f"expand{k + 1}"]):
            sizes.insert(axis, 1)
        expanded.append(sizes)
    return math.prod(map(max, zip(*expanded, strict=True)))


def _lists(inputs: Sequence[Shape]) -> int:
    """How many equally shaped lists an optimizer call was given: `(p, p, g, g)` holds two."""
    for lists in range(len(inputs), 1, -1):
        size, rest = divmod(len(inputs), lists)
        if rest == 0 and all(inputs[:size] == inputs[k * size : (k + 1) * size] for k in range(1, lists)):
            return lists
    return 1


def _window(attributes: Mapping[str, Any], dims: int) -> int:
    kernel = attributes.get("kernel_size", 1)
    sizes = tuple(kernel) if isinstance(kernel, list | tuple) else (kernel,)
    return math.prod(sizes * dims if len(sizes) == 1 else sizes)


def matrix_kind(name: str) -> str | None:
    """The kind of a convolution, a matrix product or an attention, None for every other op."""
    base = base_name(name)
    if base in ("convolution", "_convolution", "cudnn_convolution", "convolution_overrideable", "_slow_conv2d_forward"):
        return "conv"
    if base == "convolution_backward":
        return "conv_backward"
    if base in ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm") or base in _VECTOR_PRODUCTS:
        return "gemm"
    if "attention" in base:
        return "attention_backward" if base.endswith("backward") else "attention"
    return None
